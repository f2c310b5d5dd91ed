"""Whole runs without Prefect and Dask, by the plain driver: the steps and the order of the flow."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import closing, contextmanager
from unittest import mock

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import identify
from rag_index.components.ledger import Ledger
from rag_index.core.reports.outcome import IndexOutcome
from rag_index.core.reports.progress import RunRecord
from rag_index.core.settings import Settings
from rag_index.etl import opened as opened_module
from rag_index.etl.changed import serially
from rag_index.etl.deletes import count_parts_of
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import AllDocuments, run_index
from rag_index.etl.scan import begin_scan
from rag_index.orchestration.hooks import SearchHooks
from rag_index.watch.kept_runs import KeptRuns, RunEnd
from tests.fakes.ollama import FakeOllama
from tests.project import Project, run_here

NIGHT = 86_400.0


class Nights:
    """A clock of the ledger that says night after night; the time within a night does not stand
    still."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, nights: float = 1) -> None:
        self.now += nights * NIGHT


def run_plain(
    project: Project,
    *,
    full: bool = False,
    allow_deletes: bool = False,
    allow_loss: bool = False,
    clock: Nights | None = None,
    delete: bool = True,
) -> IndexOutcome:
    """Run an index; without `delete` the run dies before it deletes."""
    settings = project.settings

    def ledger(url):
        return Ledger(url, clock=clock) if clock else Ledger(url)

    options, record = (
        RunOptions(full=full, allow_deletes=allow_deletes, allow_loss=allow_loss),
        RunRecord("notes"),
    )
    hooks = SearchHooks(settings, settings.index("notes"), options)
    with (
        mock.patch.object(opened_module, "Ledger", ledger),
        open_index(settings, "notes", options, run_id=str(uuid.uuid4())) as opened,
        closing(LocalSteps(serially(settings))) as steps,
    ):
        run_index(opened, steps, record, documents=Documents(delete=delete), hooks=hooks)
        if record.error is not None:
            raise record.error
        return record.outcome


@contextmanager
def begun_run(settings: Settings, options: RunOptions):
    """Begin a run of the index, in this process; give what is opened, the scan, the steps and the
    record."""
    record = RunRecord("notes")
    with (
        open_index(settings, "notes", options, run_id="late") as opened,
        closing(LocalSteps(serially(settings))) as steps,
    ):
        identity, chunker = identify(settings.embedder), open_chunker(settings, opened.index)
        yield opened, begin_scan(opened, record, identity, chunker), steps, record


class Documents(AllDocuments):
    """All documents, without the questions that a run asks its services first. Without `delete` the
    run dies."""

    def __init__(self, *, delete: bool = True) -> None:
        self._delete = delete

    def begin_run(self, opened, steps, record, checks):
        opened.source.check()
        parts = count_parts_of(opened)
        identity, chunker = (
            identify(opened.settings.embedder),
            open_chunker(opened.settings, opened.index),
        )
        return begin_scan(opened, record, identity, chunker, part_rows=parts)

    def delete(self, opened, scan, steps, record):
        if not self._delete:
            raise Died
        return super().delete(opened, scan, steps, record)


def watched_run(project: Project) -> RunEnd:
    """Carry out one run as a watch does."""
    with closing(KeptRuns(project.settings, "notes", lambda: False)) as runs:
        return runs.run(time.time())


def counts(outcome: IndexOutcome) -> dict:
    """Return what a completed run did with its documents: the numbers that are not 0."""
    assert outcome.state == "completed", outcome
    names = ("new", "changed", "payload_only", "unchanged", "empty", "deleted", "failed")
    found = {name: number for name in names if (number := getattr(outcome, name))}
    assert outcome.documents == sum(found.values()) - outcome.deleted
    return found


def printed(project: Project, *arguments: str, code: int = 0) -> dict:
    """Run a command in this process, and return the document that --json prints."""
    return json.loads(run_here(project.config, *arguments, "--json", code=code)[0])


def listed_as_deadly(project: Project, fake: FakeOllama, marker: str, *, where: str) -> None:
    """Run once, with documents that are then listed because the server fails at their texts. It
    stays up: ten deaths of each would take long."""
    project.execute(f"UPDATE note SET body = '{marker}' WHERE {where}")
    fake.fault("status", code=500, marker=marker)
    assert project.run().state == "partial"
    with project.ledger() as ledger:
        [collection] = ledger.collections(project.settings.alias("notes"))
        listed = ledger.failures(collection.id).values()
    assert any(one.cause == "server" for one in listed)
    fake.clear()


class Died(BaseException):
    """The death of the process."""


def die(*_, **__):
    """Die in place of a call."""
    raise Died
