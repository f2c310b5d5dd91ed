"""One kill, from start to judgement.

A run in a subprocess is watched through its ledger until a random share of its changes is committed. Then the target is
killed. No process of the run may remain, and nothing may be written any more. After one more run, the point ids, the
payloads, the vectors and the ledger's rows must equal those of a project that was indexed once, from nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.orchestration.window import shards_per_worker
from tests.fakes.qdrant import FakeQdrant
from tests.reliability.cases import Case, TooLate, Trial
from tests.reliability.scenario import SHARD_DOCUMENTS, edit_corpus, make_project
from tests.reliability.services import Services, kill_qdrant, prefect_to_kill
from tests.reliability.victim import Row, Victim, file_stamps, ledger_rows, project_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.project import Project

GONE_SECONDS = 60.0
"""How long the processes of a killed run may take to end. The time is reported; only one that stays is a fault."""
END_SECONDS = 240.0
"""How long a run that is not killed itself may take to end."""
PAYLOAD_BATCH = 500
"""Documents in one payload update; a kill in the middle of it makes the next run embed them again."""
TOLERANCE = {"local": 0.0, "ollama": 1e-5}
SURVIVED = ("worker", "ollama", "qdrant")
"""Targets that a run survives: it must complete by itself."""

Points = dict[str, tuple[dict[str, Any], list[float]]]


@dataclass(frozen=True, slots=True)
class Clean:
    """A project whose run nobody killed."""

    folder: Path
    points: Points
    rows: dict[str, Row]


class Bench:
    """Trials in `folder`. PREFECT_API_URL names a server that outlives them."""

    def __init__(self, folder: Path, services: Services, documents: int) -> None:
        self._folder = folder
        self._services = services
        self._documents = documents
        self._clean: dict[tuple[str, str], Clean] = {}
        self._number = 0

    def clean(self, embedder: str, run: str) -> Clean:
        """Return the corpus before (`first`) or after (`second`) the edits, indexed from nothing in one run."""
        key = (embedder, run)
        if key not in self._clean:
            settings = self._services.settings(embedder, None)
            project = make_project(self._folder / f"clean-{embedder}-{run}", self._documents, extra=settings)
            if run == "second":
                edit_corpus(project)
            report = project.run()
            assert report.state == "completed", report.sentence()
            rows = ledger_rows(project)
            assert not any(row.pending for row in rows.values())
            self._clean[key] = Clean(project.folder, project.points(), rows)
        return self._clean[key]

    def trial(self, case: Case) -> Trial:
        """Make one kill. Raises TooLate."""
        self._number += 1
        folder = self._folder / f"victim-{self._number}"
        with ExitStack() as stack:
            qdrant = stack.enter_context(FakeQdrant()) if case.store == "server" else None
            project = self._prepared(folder, case, qdrant)
            trial = _Attempt(self, self._services, case, project, qdrant).run()
        if not trial.problems:
            shutil.rmtree(folder)
        return trial

    def trial_in_time(self, case: Case) -> Trial:
        """Make one kill, at an earlier moment if the run ended too soon."""
        for share in (case.share, case.share * 0.7, case.share * 0.4, 0.0):
            try:
                return self.trial(case.at(share))
            except TooLate:
                continue
        raise TooLate(str(case))

    def _prepared(self, folder: Path, case: Case, qdrant: FakeQdrant | None) -> Project:
        before = self.clean(case.embedder, "first")
        if case.run == "first" or qdrant is not None:
            project = make_project(folder, self._documents, extra=self._services.settings(case.embedder, qdrant))
            if case.run == "second":
                assert project.run().state == "completed"
        else:
            shutil.copytree(before.folder, folder)
            project = project_in(folder)
        return edit_corpus(project) if case.run == "second" else project


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
        self.window = shards_per_worker(embedded=qdrant is None) * case.workers * SHARD_DOCUMENTS[case.run]
        self.trial = Trial(case)

    def run(self) -> Trial:
        case = self.case
        shard_documents = str(SHARD_DOCUMENTS[case.run])
        arguments = ["--workers", str(case.workers), "--shard-documents", shard_documents]
        with ExitStack() as stack:
            environment, external = {}, None
            if case.target == "prefect-external":
                environment, external = stack.enter_context(prefect_to_kill())
                environment["PREFECT_CLIENT_MAX_RETRIES"] = "1"  # by default Prefect tries for a minute at each call
            own = case.own_prefect or case.target in ("prefect", "tree")
            victim = stack.enter_context(Victim(self.project, *arguments, own_prefect=own, **environment))
            self._wait_for_moment(victim)
            self._kill(victim, external)
            self._check_end(victim)
        rows = ledger_rows(self.project)
        self.trial.committed = self._committed(rows)
        self.trial.pending = sum(row.pending for row in rows.values())
        report = self._next_run()
        if report is not None:
            self._compare(rows, report)
        return self.trial

    def _wait_for_moment(self, victim: Victim) -> None:
        deadline = time.monotonic() + END_SECONDS
        while True:
            rows = ledger_rows(self.project)
            committed = self._committed(rows)
            begun = committed > 0 or any(row.pending for row in rows.values())
            begun = begun and len(victim.workers()) >= self.case.workers  # they start meanwhile
            if victim.ended or committed == 1.0:
                if victim.ended and victim.process.returncode:
                    raise AssertionError(f"{self.case}: the run ended by itself: {victim.output}")
                raise TooLate
            if begun and committed >= self.case.share:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.case}: the run never reached the moment of the kill: {victim.output}")
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

    def _check_end(self, victim: Victim) -> None:
        trial, dead = self.trial, self.case.target in ("flow", "group", "tree")
        started = time.monotonic()
        while not victim.ended and time.monotonic() - started < END_SECONDS:
            time.sleep(0.02)
        trial.ended_seconds = time.monotonic() - started
        trial.exit_code = victim.process.poll()
        trial.gone_seconds = victim.seconds_until_gone(GONE_SECONDS)
        if trial.exit_code is None:
            self._problem(f"the run did not end within {END_SECONDS:.0f} s: {victim.output[-500:]}")
        elif trial.gone_seconds is None:
            self._problem(f"processes that remain: {[' '.join(p.cmdline())[:200] for p in victim.processes()]}")
        if self.case.target in SURVIVED and trial.exit_code:
            self._problem(f"the run ended with {trial.exit_code}: {victim.output[-1000:]}")
        if self.case.target.startswith("prefect") and trial.exit_code not in (0, None):
            last = victim.output.strip().splitlines()[-1]
            if trial.exit_code != 1 or "Prefect server" not in last:
                self._problem(f"the run ended with {trial.exit_code} and the message {last!r}")
        starting = dead and re.search("in spawn_main|forkserver.py", victim.output)
        if "Traceback" in victim.output and not starting:
            self._problem(f"the run printed a traceback: {victim.output[-2000:]}")
        before = file_stamps(self.project.folder / ".rag-index")
        time.sleep(0.3)
        if file_stamps(self.project.folder / ".rag-index") != before:
            self._problem("somebody still writes to ledger or store")

    def _next_run(self) -> dict[str, Any] | None:
        started = time.monotonic()
        report = self._in_one_process() if self.case.serial_next else self._with_workers()
        self.trial.next_seconds = time.monotonic() - started
        return report

    def _in_one_process(self) -> dict[str, Any] | None:
        report = self.project.run()
        if report.exit_code:
            self._problem(f"the next run ended with {report.exit_code}: {report.sentence()}")
            return None
        return report.indexes[0].to_json()

    def _with_workers(self) -> dict[str, Any] | None:
        run = ["index-all", "--json", "--workers", str(self.case.workers), "--shard-documents", "100"]
        ended = self.project.cli(*run, timeout=END_SECONDS)
        if ended.returncode:
            self._problem(f"the next run ended with {ended.returncode}: {ended.stdout} {ended.stderr[-1000:]}")
            return None
        report: dict[str, Any] = json.loads(ended.stdout)["indexes"][0]
        return report

    def _compare(self, rows: dict[str, Row], report: dict[str, Any]) -> None:
        """Compare the index with the clean one, and the next run's counts with what the kill had left to do."""
        trial, clean = self.trial, self.clean
        with_text = {key for key, row in clean.rows.items() if row.chunks}
        left = {
            key
            for key in with_text
            if (row := rows.get(key)) is None or row.text_hash != clean.rows[key].text_hash
        }  # fmt: skip
        trial.embedded_again = (
            report["new"] + report["changed"] - len({key for key in left if not _is_pending(rows, key)})
        )
        if trial.embedded_again < 0:
            self._problem(f"the next run embedded {report['new'] + report['changed']} documents, {len(left)} were left")
        payloads = sum(_payload_only(self.before.get(key), clean.rows[key]) for key in with_text)
        trial.beyond_window = max(0, trial.embedded_again - self.window - min(PAYLOAD_BATCH, payloads))
        if trial.beyond_window:
            self._problem(f"{trial.embedded_again} documents were embedded again, one window has {self.window}")
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
            if points[point][0] != clean[point][0] or not _equal(points[point][1], clean[point][1], tolerance)
        ]
        trial.lost = len({_document_id(clean, point) for point in lost})
        trial.stale = len({_document_id(points, point) for point in [*orphans, *wrong]})
        if trial.lost or trial.stale:
            self._problem(f"{len(lost)} points are missing, {len(orphans)} are left over, and {len(wrong)} are wrong")

    def _committed(self, rows: dict[str, Row]) -> float:
        done = sum(rows.get(key) == self.clean.rows.get(key) for key in self.changes) if rows else 0
        return done / len(self.changes)

    def _problem(self, words: str) -> None:
        self.trial.problems.append(f"{words} [{self.project.folder}]")


def _is_pending(rows: dict[str, Row], key: str) -> bool:
    return key in rows and bool(rows[key].pending)


def _payload_only(before: Row | None, after: Row) -> bool:
    return before is not None and before.text_hash == after.text_hash and before.payload_hash != after.payload_hash


def _document_id(points: Points, point: str) -> str:
    return str(points[point][0]["_rag"]["document_id"])


def _equal(one: list[float], other: list[float], tolerance: float) -> bool:
    if not tolerance:
        return one == other
    return len(one) == len(other) and all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))
