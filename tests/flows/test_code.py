"""Source code on real Dask processes: indexed, changed, moved, renamed, and files that fail."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from rag_index.etl import sharding
from tests.components.chunking.code.samples import SAMPLES
from tests.etl.plain import printed
from tests.project import Project, run_here

SETTINGS = """\
project = "test"
{extra}
[[indexes]]
name = "code"
kind = "code"
root = "src"
chunk_chars = 300
"""
ENDS = {
    "python": "py",
    "javascript": "js",
    "typescript": "ts",
    "tsx": "tsx",
    "go": "go",
    "rust": "rs",
    "java": "java",
    "c": "c",
    "cpp": "cpp",
    "ruby": "rb",
}


class Code:
    """A project that indexes a folder of source code."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.project = Project(folder)
        self.project.write_settings(SETTINGS.format(extra=extra))
        self.root = folder / "src"

    def write(self, path: str, text: str) -> None:
        """Write a file whose modification time lies a while back."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        os.utime(file, (time.time() - 100, time.time() - 100))

    def index(self, **parameters: Any) -> dict[str, Any]:
        """Return the counts that are not 0, and the number of chunks embedded. Workers are started
        by the flow."""
        run = self.project.index if "workers" in parameters else self.project.run
        outcome = run(**parameters).indexes[0].to_json()
        names = ("new", "changed", "unchanged", "deleted", "failed", "skipped")
        found = {name: outcome[name] for name in names if outcome.get(name)}
        return {**found, "chunks": outcome["chunks_embedded"], "state": outcome["state"]}

    def payloads(self, path: str) -> list[dict[str, Any]]:
        """Return the payloads of a file's points, in order."""
        found = [
            payload
            for payload, _ in self.project.points("code").values()
            if payload["path"] == path
        ]
        return sorted(found, key=lambda payload: payload["_rag"]["chunk"])

    def failed(self) -> dict[str, str]:
        """Return the listed documents with the reason."""
        failed = printed(self.project, "status", "--failed")["failed"]
        return {one["document_id"]: f"{one['kind']}: {one['reason']}" for one in failed}


@pytest.fixture
def code(tmp_path) -> Code:
    made = Code(tmp_path / "project")
    for language, text in SAMPLES.items():
        made.write(f"{language}/sample.{ENDS[language]}", text)
    return made


@pytest.mark.long
def test_workers_and_one_process_make_the_same_points(code, tmp_path, prefect_server):
    for number in range(30):
        code.write(f"many/m{number}.py", SAMPLES["python"].replace("retry", f"retry_{number}"))
    first = code.index(workers=2, shard_documents=5)
    assert (first["new"], first["state"]) == (40, "completed")
    alone = Code(tmp_path / "alone")
    (tmp_path / "alone" / "src").symlink_to(code.root)
    assert (alone.index(), code.project.points("code")) == (first, alone.project.points("code"))
    payload = next(p for p in code.payloads("many/m7.py") if p.get("name") == "retry_7")
    ours = payload.pop("_rag")
    assert payload == {
        "path": "many/m7.py",
        "language": "python",
        "lines": [6, 15],
        "kind": "function",
        "name": "retry_7",
        "qualified_name": "retry_7",
        "signature": "def retry_7(call, *, times: int = LIMIT) -> None",
        "docstring": "Try a call again.",
    }
    assert ours["text"].startswith("# How often.\n# And how long.\n@policy")
    assert (
        "".join(p["_rag"]["text"] for p in code.payloads("many/m7.py"))
        == (code.root / "many" / "m7.py").read_text()
    )
    assert 0 < printed(code.project, "status", "--report")["runs"][0]["metrics"]["utilisation"] <= 1


def test_a_search_shows_places_and_only_what_changes_is_embedded_and_nothing_of_a_file_that_moved(
    code,
):
    code.index()
    said = run_here(
        code.project.config, "search", "--index", "code", "queue of things", "--limit", "3"
    )[0]
    assert "code: rust/sample.rs:3\n       pub struct Queue<T>\n" in said
    assert "code: go/sample.go:3\n       type Queue struct\n" in said
    assert len(code.payloads("python/sample.py")) > 3
    before = {p["_rag"]["text"]: v for p, v in code.project.points("code").values()}
    changed = "# A new line above all.\n" + SAMPLES["python"].replace("return 1", "return 2")
    code.write("python/sample.py", changed)
    assert code.index() == {"changed": 1, "unchanged": 9, "chunks": 2, "state": "completed"}
    payloads = code.payloads("python/sample.py")
    assert "".join(p["_rag"]["text"] for p in payloads) == changed
    retry = next(p for p in payloads if p.get("name") == "retry")
    assert retry["lines"] == [7, 16], "its lines moved, its vector did not"
    after = {p["_rag"]["text"]: v for p, v in code.project.points("code").values()}
    assert after[retry["_rag"]["text"]] == before[retry["_rag"]["text"]]
    (code.root / "go" / "sample.go").rename(code.root / "go" / "renamed.go")
    (code.root / "c" / "sample.c").unlink()
    assert code.index() == {
        "new": 1,
        "unchanged": 8,
        "deleted": 2,
        "chunks": 0,
        "state": "completed",
    }
    assert "".join(p["_rag"]["text"] for p in code.payloads("go/renamed.go")) == SAMPLES["go"]
    assert code.payloads("go/sample.go") == []


def test_files_that_cannot_be_indexed_are_listed_and_harm_no_other(tmp_path):
    code = Code(tmp_path / "project")
    code.write("good.py", "def f(): return 1\n")
    code.write("binary.py", "x = '\0'\n")
    (code.root / "out.py").symlink_to("/etc/passwd")
    assert code.index() == {"new": 1, "failed": 1, "skipped": 1, "chunks": 1, "state": "partial"}
    failed = code.failed()
    assert failed.keys() == {"binary.py", "out.py"}
    assert failed["binary.py"] == "skipped: it is binary: it holds NUL bytes"
    assert "leaves the root" in failed["out.py"]


@pytest.mark.long
def test_files_that_kill_or_hang_their_worker_are_found_and_harm_no_other(
    tmp_path, fake, prefect_server, monkeypatch
):
    monkeypatch.setattr(sharding, "hang_limit", lambda *_, **__: 5.0)
    code = Code(tmp_path / "project", fake.settings)
    for number in range(8):
        code.write(f"good{number}.py", f"def f_{number}(): return {number}\n")
    code.write("hangs.py", "def f(): 'HANGS'\n")
    code.write("kills.py", "def f(): 'KILLS'\n")
    fake.fault("hang", marker="HANGS")
    fake.fault("kill_client", marker="KILLS")
    ended = code.index(workers=1, shard_documents=3)
    assert (ended["new"], ended["failed"], ended["state"]) == (8, 2, "partial")
    assert code.failed().keys() == {"hangs.py", "kills.py"}
    assert all("worker process dies" in reason for reason in code.failed().values())


@pytest.mark.long
def test_a_worker_that_takes_too_much_memory_is_killed_and_its_file_is_found(
    tmp_path, prefect_server, monkeypatch
):
    code = Code(tmp_path / "project", "[parallel]\nworker_memory = 500\n")
    monkeypatch.setattr("rag_index.components.sources.code.MAX_FILE_BYTES", 100_000_000)
    for number in range(3):
        code.write(f"good{number}.py", f"def f_{number}(): return {number}\n")
    code.write("large.py", "x = [" + "(1, 2, 3),\n" * 600_000 + "]\n")
    ended = code.index(workers=1, shard_documents=1)
    assert (ended["new"], ended["failed"]) == (3, 1)
    assert "worker process dies" in code.failed()["large.py"]
