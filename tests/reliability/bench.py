"""One kill: a subprocess run, watched through its ledger until a random share of its changes is committed; the kill;
no process of it left and nothing written any more; one more run; then point ids, payloads, vectors and the ledger's
rows must be those of a project that was indexed once, from nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.fakes.qdrant import FakeQdrant
from tests.reliability.cases import Case, TooLate, Trial
from tests.reliability.scenario import SHARD_DOCUMENTS, edited, made
from tests.reliability.services import Services, kill_qdrant, prefect_to_kill
from tests.reliability.victim import Row, Victim, beside, ledger_rows, marks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.project import Project

__all__ = ["Bench"]

GONE_SECONDS = 10.0
"""In which every process of a killed run must be gone."""
END_SECONDS = 240.0
"""In which a run must end that is not killed itself."""
PAYLOAD_BATCH = 500
"""Documents whose payload alone changed are overwritten so many at a time; a kill amid one embeds them again."""
TOLERANCE = {"local": 0.0, "ollama": 1e-5}
SURVIVED = ("worker", "ollama", "qdrant")
"""What a run outlives: it must complete by itself."""

Points = dict[str, tuple[dict[str, Any], list[float]]]


@dataclass(frozen=True, slots=True)
class Clean:
    """A project that nobody killed."""

    folder: Path
    points: Points
    rows: dict[str, Row]


class Bench:
    """Makes trials in `folder`. PREFECT_API_URL names a server that outlives them."""

    def __init__(self, folder: Path, services: Services, documents: int) -> None:
        self._folder = folder
        self._services = services
        self._documents = documents
        self._clean: dict[tuple[str, str], Clean] = {}
        self._number = 0

    def clean(self, embedder: str, run: str) -> Clean:
        """Before (`first`) or after (`second`) the edits, indexed from nothing in one go."""
        key = (embedder, run)
        if key not in self._clean:
            settings = self._services.settings(embedder, None)
            project = made(self._folder / f"clean-{embedder}-{run}", self._documents, extra=settings)
            if run == "second":
                edited(project)
            report = project.index(serial=True)
            assert report.state == "completed", report.sentence()
            rows = ledger_rows(project)
            assert not any(row.pending for row in rows.values())
            self._clean[key] = Clean(project.folder, project.points(), rows)
        return self._clean[key]

    def trial(self, case: Case) -> Trial:
        """One kill. Raises TooLate."""
        self._number += 1
        folder = self._folder / f"victim-{self._number}"
        with ExitStack() as stack:
            qdrant = stack.enter_context(FakeQdrant()) if case.store == "server" else None
            project = self._prepared(folder, case, qdrant)
            trial = _Attempt(self, self._services, case, project, qdrant).made()
        if not trial.problems:
            shutil.rmtree(folder)
        return trial

    def soon(self, case: Case) -> Trial:
        """One kill; earlier where the run was over too soon."""
        for share in (case.share, case.share * 0.7, case.share * 0.4, 0.0):
            try:
                return self.trial(case.at(share))
            except TooLate:
                continue
        raise TooLate(str(case))

    def _prepared(self, folder: Path, case: Case, qdrant: FakeQdrant | None) -> Project:
        before = self.clean(case.embedder, "first")
        if case.run == "first" or qdrant is not None:
            project = made(folder, self._documents, extra=self._services.settings(case.embedder, qdrant))
            if case.run == "second":
                assert project.index(serial=True).state == "completed"
        else:
            shutil.copytree(before.folder, folder)
            project = beside(folder)
        return edited(project) if case.run == "second" else project


class _Attempt:
    """The steps of one trial."""

    def __init__(
        self, bench: Bench, services: Services, case: Case, project: Project, qdrant: FakeQdrant | None
    ) -> None:
        self.case, self.project, self.qdrant, self.services = case, project, qdrant, services
        self.clean = bench.clean(case.embedder, case.run)
        self.before = ledger_rows(project)
        self.changes = {
            key for key in {*self.before, *self.clean.rows} if self.before.get(key) != self.clean.rows.get(key)
        }
        self.window = 2 * case.workers * SHARD_DOCUMENTS[case.run]
        self.trial = Trial(case)

    def made(self) -> Trial:
        case = self.case
        shard_documents = str(SHARD_DOCUMENTS[case.run])
        arguments = ["--workers", str(case.workers), "--shard-documents", shard_documents]
        with ExitStack() as stack:
            environment, external = {}, None
            if case.target == "prefect-external":
                environment["PREFECT_API_URL"], external = stack.enter_context(prefect_to_kill())
                environment["PREFECT_CLIENT_MAX_RETRIES"] = "1"  # by default Prefect tries for a minute at each call
            own = case.own_prefect or case.target in ("prefect", "tree")
            victim = stack.enter_context(Victim(self.project, *arguments, own_prefect=own, **environment))
            self._await_moment(victim)
            self._kill(victim, external)
            self._see_end(victim)
        rows = ledger_rows(self.project)
        self.trial.committed = self._committed(rows)
        self.trial.pending = sum(row.pending for row in rows.values())
        report = self._next_run()
        if report is not None:
            self._compare(rows, report)
        return self.trial

    def _await_moment(self, victim: Victim) -> None:
        deadline = time.monotonic() + END_SECONDS
        while True:
            rows = ledger_rows(self.project)
            committed = self._committed(rows)
            begun = committed > 0 or any(row.pending for row in rows.values())
            begun = begun and len(victim.workers()) >= self.case.workers  # who start beside it
            if victim.ended or committed == 1.0:
                if victim.ended and victim.process.returncode:
                    raise AssertionError(f"{self.case}: the run ended by itself: {victim.said}")
                raise TooLate
            if begun and committed >= self.case.share:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.case}: the run does not get there: {victim.said}")
            time.sleep(0.01)
        time.sleep(self.case.delay)
        if victim.ended:
            raise TooLate

    def _kill(self, victim: Victim, external: Any) -> None:
        target = self.case.target
        pause = 0.3 + 2 * self.case.delay
        if target == "flow":
            victim.kill_flow()
        elif target == "group":
            victim.kill_group()
        elif target == "tree":
            victim.kill_tree()
        elif target == "worker":
            workers = victim.workers()
            if not workers:
                raise TooLate
            workers[int(1000 * self.case.delay) % len(workers)].kill()
        elif target == "ollama":
            self.services.ollama.kill()
            time.sleep(pause)
            self.services.ollama.start()
        elif target == "qdrant":
            kill_qdrant(self.qdrant, pause)
        elif target == "prefect":
            [server] = victim.prefect()
            server.kill()
        elif target == "prefect-external":
            external.kill()
        else:
            raise ValueError(target)

    def _see_end(self, victim: Victim) -> None:
        trial, dead = self.trial, self.case.target in ("flow", "group", "tree")
        started = time.monotonic()
        while not victim.ended and time.monotonic() - started < (5.0 if dead else END_SECONDS):
            time.sleep(0.02)
        trial.ended_seconds = time.monotonic() - started
        trial.exit_code = victim.process.poll()
        trial.gone_seconds = victim.seconds_to_be_gone(GONE_SECONDS)
        if trial.exit_code is None:
            self._problem(f"the run did not end within {END_SECONDS:.0f} s: {victim.said[-500:]}")
        elif trial.gone_seconds is None:
            self._problem(f"still there: {[' '.join(p.cmdline())[:200] for p in victim.family()]}")
        if self.case.target in SURVIVED and trial.exit_code:
            self._problem(f"the run ended with {trial.exit_code}: {victim.said[-1000:]}")
        if self.case.target.startswith("prefect") and trial.exit_code not in (0, None):
            last = victim.said.strip().splitlines()[-1]
            if trial.exit_code != 1 or "Prefect server" not in last:
                self._problem(f"ended with {trial.exit_code} and the words {last!r}")
        being_born = dead and re.search("in spawn_main|forkserver.py", victim.said)
        if "Traceback" in victim.said and not being_born:
            self._problem(f"it said: {victim.said[-2000:]}")
        before = marks(self.project.folder / ".rag-index")
        time.sleep(0.3)
        if marks(self.project.folder / ".rag-index") != before:
            self._problem("somebody goes on writing")

    def _next_run(self) -> dict[str, Any] | None:
        started = time.monotonic()
        report = self._in_one_process() if self.case.serial_next else self._with_workers()
        self.trial.next_seconds = time.monotonic() - started
        return report

    def _in_one_process(self) -> dict[str, Any] | None:
        report = self.project.index(serial=True)
        if report.exit_code:
            self._problem(f"the next run ended with {report.exit_code}: {report.sentence()}")
            return None
        return report.indexes[0].to_json()

    def _with_workers(self) -> dict[str, Any] | None:
        run = ["index-all", "--json", "--workers", str(self.case.workers)]
        ended = self.project.cli(*run, timeout=END_SECONDS)
        if ended.returncode:
            self._problem(f"the next run ended with {ended.returncode}: {ended.stdout} {ended.stderr[-1000:]}")
            return None
        report: dict[str, Any] = json.loads(ended.stdout)["indexes"][0]
        return report

    def _compare(self, rows: dict[str, Row], report: dict[str, Any]) -> None:
        """The index against the clean one, and the next run's figures against what the kill had left to do."""
        trial, clean = self.trial, self.clean
        with_text = {key for key, row in clean.rows.items() if row.chunks}
        left = {
            key
            for key in with_text
            if (row := rows.get(key)) is None or row.text_hash != clean.rows[key].text_hash
        }  # fmt: skip
        trial.again = report["new"] + report["changed"] - len({key for key in left if not _open(rows, key)})
        if trial.again < 0:
            self._problem(f"the next run embedded {report['new'] + report['changed']} documents, {len(left)} were left")
        payloads = sum(_payload_only(self.before.get(key), clean.rows[key]) for key in with_text)
        trial.beyond = max(0, trial.again - self.window - min(PAYLOAD_BATCH, payloads))
        if trial.beyond:
            self._problem(f"{trial.again} documents were embedded again, {self.window} are a window")
        if (found := ledger_rows(self.project)) != clean.rows:
            different = sorted(key for key in {*found, *clean.rows} if found.get(key) != clean.rows.get(key))
            self._problem(f"the ledger differs in {len(different)} documents, the first are {different[:5]}")
        self._compare_points(self.project.points())

    def _compare_points(self, points: Points) -> None:
        trial, clean = self.trial, self.clean.points
        tolerance = TOLERANCE[self.case.embedder] if self.qdrant is None else 1e-5
        lost = clean.keys() - points.keys()
        orphans = points.keys() - clean.keys()
        wrong = [
            point
            for point in points.keys() & clean.keys()
            if points[point][0] != clean[point][0] or not _same(points[point][1], clean[point][1], tolerance)
        ]
        trial.lost = len({_document(clean, point) for point in lost})
        trial.stale = len({_document(points, point) for point in [*orphans, *wrong]})
        if trial.lost or trial.stale:
            self._problem(f"{len(lost)} points are missing, {len(orphans)} too many, {len(wrong)} are wrong")

    def _committed(self, rows: dict[str, Row]) -> float:
        done = sum(rows.get(key) == self.clean.rows.get(key) for key in self.changes) if rows else 0
        return done / len(self.changes)

    def _problem(self, words: str) -> None:
        self.trial.problems.append(f"{words} [{self.project.folder}]")


def _open(rows: dict[str, Row], key: str) -> bool:
    return key in rows and bool(rows[key].pending)


def _payload_only(before: Row | None, after: Row) -> bool:
    return before is not None and before.text_hash == after.text_hash and before.payload_hash != after.payload_hash


def _document(points: Points, point: str) -> str:
    return str(points[point][0]["_rag"]["document_id"])


def _same(one: list[float], other: list[float], tolerance: float) -> bool:
    if not tolerance:
        return one == other
    return len(one) == len(other) and all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))
