"""Measurements of indexing source code, quoted in README.md. Ratios are taken within one run,
several times.

    python benchmarks/code.py [ROOT …] [--files N] [--sample N] [--repeat N]

ROOT are folders with Python files, by default the standard library and the site-packages of this
interpreter. The benchmark copies `files` of their files into one folder and indexes them with the
local embedder and an embedded store.

- two workers over one: seconds of whole runs over `sample` files, from the first shard to the end
- nothing changed, one file changed: seconds of a run beyond those of a run over ten files
- memory of a worker: its peak, beyond its memory after a run over ten files
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

from rag_index.care.index_status import run_reports
from rag_index.core.settings import load_settings

SETTINGS = """\
project = "bench"
[parallel]
workers = {workers}
[[indexes]]
name = "code"
kind = "code"
root = "{root}"
"""
AUTO = '"auto"'


def main() -> None:
    paths = sysconfig.get_paths()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "roots", nargs="*", type=Path, default=[Path(paths["stdlib"]), Path(paths["purelib"])]
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=1500)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["workers", "unchanged"], nargs="*")
    given = parser.parse_args()
    only = given.only or ["workers", "unchanged"]
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        if "workers" in only:
            two_workers(Path(folder), given.roots, given.sample, given.repeat)
        if "unchanged" in only:
            unchanged(Path(folder), given.roots, given.files, given.repeat)


def two_workers(folder: Path, roots: list[Path], count: int, repeat: int) -> None:
    """Time whole runs with one worker and with two, in turn, and print what their workers took."""
    copy_files(roots, folder / "sample", count, mixed=True)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(repeat):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            metrics = index(folder / f"w{workers}-{number}", folder / "sample", workers)
            after_start = metrics["seconds"] - metrics["first_shard_after"]
            seconds[workers].append(after_start)
            busy = f"busy {metrics['worker_seconds']:.1f} s"
            print(f"  {workers} workers: {after_start:.1f} s from the first shard, {busy}")
    one, two = statistics.median(seconds[1]), statistics.median(seconds[2])
    print(
        f"two workers over one: {one / two:.2f} ({one:.1f} s and {two:.1f} s for {count:,} files,"
        f" median of {repeat})"
    )


def unchanged(folder: Path, roots: list[Path], count: int, repeat: int) -> None:
    """Time runs in which nothing changed, and one file changed, over many files and over ten."""
    copy_files(roots, folder / "many", count, mixed=False)
    copy_files(roots, folder / "ten", 10, mixed=False)
    for name in ("many", "ten"):
        metrics = index(folder / f"{name}.p", folder / name, 2)
        print(
            f"  {name}: {metrics['documents']:,} files, {metrics['chunks']:,} chunks in"
            f" {metrics['seconds']:.0f} s"
        )
    time.sleep(2.5)
    seconds: dict[str, list[float]] = {
        "many": [],
        "ten": [],
        "one changed": [],
        "many, processor": [],
        "ten, processor": [],
    }
    for name in ("many", "ten"):  # this run records the files' stamps
        index(folder / f"{name}.p", folder / name, AUTO)
    for _ in range(repeat):
        for name in ("many", "ten"):
            metrics = index(folder / f"{name}.p", folder / name, AUTO)
            seconds[name].append(metrics["seconds"])
            seconds[f"{name}, processor"].append(metrics["cpu"])
        file = next((folder / "many").rglob("*.py"))
        file.write_text(f"# changed at {time.time()}\n" + file.read_text(errors="replace"))
        seconds["one changed"].append(index(folder / "many.p", folder / "many", AUTO)["seconds"])
        time.sleep(2.5)
        index(folder / "many.p", folder / "many", AUTO)
    nothing = statistics.median(seconds["many"]) - statistics.median(seconds["ten"])
    changed = statistics.median(seconds["one changed"]) - statistics.median(seconds["many"])
    print(f"nothing changed in {count:,} files: {nothing:.2f} s beyond a run over ten")
    cpu = statistics.median(seconds["many, processor"]) - statistics.median(
        seconds["ten, processor"]
    )
    print(
        "  in processor time of the flow, which other work on the machine affects less:"
        f" {cpu:.2f} s"
    )
    print(f"one file changed in {count:,} files: {changed:.2f} s more")
    for name, values in seconds.items():
        print(f"  {name}: {', '.join(f'{one:.2f}' for one in values)} s")


def copy_files(roots: list[Path], target: Path, count: int, *, mixed: bool) -> None:
    """Copy `count` Python files of the folders into one folder, in order or (mixed) at random."""
    found = [
        (number, root, path)
        for number, root in enumerate(roots)
        for path in sorted(root.rglob("*.py"))
        if number or "site-packages" not in path.parts
    ]
    if mixed:
        random.Random(1).shuffle(found)
    if len(found) < count:
        print(f"  there are only {len(found):,} Python files below {', '.join(map(str, roots))}")
    for number, root, path in found[:count]:
        place = target / str(number) / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def index(project: Path, root: Path, workers: int | str) -> dict[str, float]:
    """Index the folder in a project of its own and return the metrics of the run."""
    from rag_index.etl.opened import RunOptions
    from rag_index.orchestration.launch import run_locally

    project.mkdir(exist_ok=True)
    config = project / "rag-index.toml"
    config.write_text(SETTINGS.format(workers=workers, root=root))
    cpu = time.process_time()
    settings = load_settings(config)
    with contextlib.redirect_stderr(io.StringIO()):
        run_locally(settings, settings.indexes, RunOptions())
    cpu = time.process_time() - cpu
    (report,) = run_reports(settings, settings.indexes)
    metrics: dict[str, float] = {**report["metrics"], "documents": report["documents"], "cpu": cpu}
    return metrics


if __name__ == "__main__":
    main()
