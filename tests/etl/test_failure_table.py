"""docs/troubleshooting.md: each failure of a run in its tables happens as it says. A scene provokes
one line. It needs neither Prefect nor Dask: it checks what the run says, what the index then holds
and what the next run does, and returns the exit code. Other tests provoke the other lines, most of
them with processes."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rag_index.care.index_status import failed
from rag_index.components.sources.sql import SqlSource
from rag_index.core.reports.outcome import IndexOutcome, RunReport, failed_to_start
from rag_index.errors import RagIndexError
from rag_index.search import Retriever
from tests.docs.pages import ROOT, page, tables
from tests.etl.plain import run_plain
from tests.fakes.ollama import FakeOllama
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project
from tests.waiting import when

LINES = {
    row[1]: row
    for rows in tables(page("troubleshooting"), "symptom")
    for row in rows
    if row[-1].isdigit()
}
"""Failures of a run by their cause."""
ELSEWHERE = {
    "The embedder refuses a text": (
        3,
        "flows/test_failures.py",
        "a_refused_text_is_tried_again_by_hand_and_is_no",
    ),
    "A [text](": (3, "etl/test_invalid_texts.py", "one_invalid_text_costs_its_document_alone"),
    "The source breaks off in the middle": (
        1,
        "etl/test_pipeline.py",
        "what_is_under_way_when_the_source_fails_is_",
    ),
    "An Ollama server goes down": (
        1,
        "flows/test_outages.py",
        "the_progress_of_a_run_that_failed_says_what_is_kept",
    ),
    "A value in a text column is not text": (
        3,
        "etl/test_single.py",
        "a_failed_document_that_is_mended_or_gone_is_no",
    ),
    "The source lost more than": (
        3,
        "etl/test_delete_guard.py",
        "a_wrong_source_never_empties_the_index_and",
    ),
    "Another run has this index": (
        1,
        "etl/test_single.py",
        "it_waits_for_no_other_run_and_says_who_is_writing",
    ),
    "A collection of the embedded store": (
        1,
        "cli/test_commands.py",
        "a_store_that_another_process_writes_is",
    ),
    "The source gives fewer rows": (
        1,
        "components/sources/test_servers.py",
        "a_run_deletes_nothing_because_",
    ),
    "The disk of `data` has no room": (
        2,
        "components/sources/test_sql.py",
        "a_disk_without_room_for_rows_is_named",
    ),
    "The disk is nearly full": (
        1,
        "reliability/test_disk_and_clock.py",
        "a_disk_that_fills_up_during_a_run_loses",
    ),
    "The ledger's file is removed": (
        1,
        "reliability/test_disk_and_clock.py",
        "a_run_whose_ledger_is_removed",
    ),
    "A rebuild finds less": (
        3,
        "etl/test_publish.py",
        "a_rebuild_that_finds_less_stays_beside_the_live_collection",
    ),
    "A text of the document ends": (
        3,
        "etl/test_recovery.py",
        "one_text_that_ends_its_only_server_costs_ten",
    ),
    "A chunk ends its server each time": (
        3,
        "etl/test_recovery.py",
        "one_text_that_ends_its_only_server_costs_ten",
    ),
    "A chunk is too long for the model": (
        0,
        "etl/test_embed.py",
        "what_is_too_long_is_halved_until_it_fits",
    ),
    "A file of a row cannot be read": (
        0,
        "components/sources/test_attachments.py",
        "the_example_of_the_docs_is_ind",
    ),
    "A document kills the worker": (
        3,
        "flows/test_code.py",
        "files_that_kill_or_hang_their_worker_are_found_and",
    ),
    "A document kills the flow's own process": (
        137,
        "flows/test_failures.py",
        "the_next_run_finds_it_and_indexes",
    ),
    "A Dask worker is killed": (
        0,
        "flows/test_failures.py",
        "a_worker_that_is_killed_as_it_starts_does_not_stop",
    ),
    "A worker hangs at a shard": (
        3,
        "flows/test_code.py",
        "files_that_kill_or_hang_their_worker_are_found_and",
    ),
    "The workers do not start": (
        0,
        "flows/test_failures.py",
        "workers_that_do_not_start_are_started_once_more",
    ),
    "The flow's process is killed": (
        137,
        "reliability/test_kill.py",
        "the_run_after_a_kill_loses_nothing",
    ),
    "You press Ctrl-C": (
        130,
        "cli/test_commands.py",
        "a_signal_stops_the_run_and_its_processes_and_the_next_run",
    ),
    "The worker of a deployed run": (
        137,
        "deployments/test_automations.py",
        "runs_that_lose_their_machine_or_worker",
    ),
    "The pod of a run": (
        0,
        "deployments/test_worker.py",
        "a_job_of_kubernetes_that_is_told_to_end_schedules_its_run",
    ),
    "A run is suspended": (
        0,
        "deployments/test_worker.py",
        "a_run_that_is_suspended_ends_its_processes_and_goes_on",
    ),
    "A run is cancelled on Prefect's page": (
        130,
        "orchestration/test_stopping.py",
        "a_run_in_a_terminal_that_is",
    ),
    "A [part](": (2, "etl/test_parts.py", "a_source_that_lost_many_parts_overwrites_nothing"),
    "Store or ledger was put back": (
        0,
        "etl/test_restored.py",
        "a_store_that_was_put_back_is_mended_by_the_next",
    ),
    "The Prefect server goes away": (
        0,
        "deployments/test_worker.py",
        "a_restart_of_prefects_server_",
    ),
    "The Prefect server that Prefect's settings name": (
        1,
        "orchestration/test_launch.py",
        "a_prefect_server_that",
    ),
    "MariaDB and MySQL show six digits": (
        2,
        "components/sources/test_keys.py",
        "a_key_that_the_database_cannot",
    ),
    "Two projects make one alias": (
        1,
        "etl/test_collection.py",
        "no_command_touches_what_is_another_projects",
    ),
    "An upgrade reads or chunks": (
        1,
        "etl/test_collection.py",
        "an_index_of_an_older_release_says_why_it_must_be",
    ),
    "The ledger was written by another": (
        1,
        "components/ledger/test_ledger.py",
        "a_ledger_of_another_version_is_",
    ),
    "A migration gives the key another type": (
        2,
        "etl/test_vector_reuse.py",
        "a_key_of_another_type_is_refused",
    ),
    "`rebuild --to` names the store of": (
        1,
        "etl/test_other_store.py",
        "the_same_store_and_copies_of_it",
    ),
    "Another program, or another rag-index": (
        1,
        "etl/test_other_store.py",
        "what_another_program_has_in_the_",
    ),
    "A column of [`[indexes.visible]`]": (
        0,
        "etl/test_undecided.py",
        "rows_of_a_new_value_leave_the_index",
    ),
    "A folder that it writes belongs": (
        1,
        "reliability/test_disk_and_clock.py",
        "a_store_that_cannot_be_written",
    ),
}
"""Lines that another test provokes, most of them with other processes: the exit code, and that
test."""
DOCUMENTS = 40
SCENES: dict[str, Callable[[Stage, FakeQdrant], int]] = {}
"""The scenes by the beginning of their line."""
ENDLESS = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)"


@dataclass
class Stage:
    """What a scene needs. The project has forty notes, none of which is indexed yet."""

    folder: Path
    fake: FakeOllama
    patch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.project = self.make("project")

    def make(self, name: str, more: str = "") -> Project:
        """Return another project with forty notes; `more` is TOML that goes before the indexes."""
        waits = (
            "batch_texts = 8\n[parallel]\nshard_documents = 10\n[run]\nwait_for_recovery = 0.2\n"
        )
        return Project(self.folder / name, extra=self.fake.settings + waits + more).fill(DOCUMENTS)

    def set(self, old: str, new: str) -> None:
        """Change the settings."""
        text = self.project.config.read_text()
        assert old in text
        self.project.write_settings(text.replace(old, new))

    def run(self, **options: bool) -> IndexOutcome:
        """Run the index; an error becomes the outcome that the flow makes of it."""
        try:
            return run_plain(self.project, **options)
        except RagIndexError as error:
            return failed_to_start("notes", error)

    def held(self) -> dict[str, list[str]]:
        """Run the index, which must complete, and return what it holds."""
        outcome = self.run()
        assert outcome.state == "completed", outcome.message
        return self.project.texts()

    def listed(self) -> dict[str, int]:
        """Return how often each listed document was tried."""
        settings = self.project.settings
        return {one.document_id: one.tries for one in failed(settings, settings.indexes)}


def line(beginning: str) -> Callable[..., Callable[[Stage, FakeQdrant], int]]:
    def add(scene: Callable[[Stage, FakeQdrant], int]) -> Callable[[Stage, FakeQdrant], int]:
        SCENES[beginning] = scene
        return scene

    return add


def fails(outcome: IndexOutcome, *words: str) -> int:
    """Check that the index ended as failed and says this, and return the exit code."""
    assert outcome.state == "failed"
    assert all(word in outcome.message for word in words), outcome.message
    return RunReport([outcome]).exit_code


def does_the_rest(stage: Stage, *, sure: int = 1) -> None:
    """Check that the next run completes without what was committed, of which there are `sure`
    documents."""
    outcome = stage.run()
    assert outcome.state == "completed", outcome.message
    assert outcome.unchanged >= sure
    assert len(stage.project.texts()) == outcome.documents


def embeds(stage: Stage, words: str) -> bool:
    return any(words in text for request in stage.fake.embeds() for text in request.texts)


# Settings and source


@line("A setting, a table or a column is missing")
def wrong_settings(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    stage.project.execute("DELETE FROM note WHERE id = 1")
    right = stage.project.config.read_text()
    codes = set()
    for old, new, words in (
        ('table = "note"', 'table = "nothing"', "table 'nothing' cannot be read"),
        ('"body"]', '"nothing"]', "nothing"),
        (
            'table = "note"',
            'query = "SELECT nullif(id, 3) AS id, title, body, author, priority FROM note"',
            "NULL",
        ),
    ):
        stage.set(old, new)
        codes |= {fails(stage.run(), words) for _ in range(2)}
        assert stage.project.texts() == before
        stage.project.write_settings(right)
    stage.project.fill(20, first=DOCUMENTS + 1)
    stage.set(
        'table = "note"', 'query = "SELECT * FROM note UNION ALL SELECT * FROM note WHERE id = 60"'
    )
    pages_of(stage, 20)
    codes |= {fails(stage.run(), "60") for _ in range(2)}
    assert stage.project.texts().items() >= before.items(), "nothing was deleted"
    stage.project.write_settings(right)
    assert stage.run().deleted == 1
    [code] = codes
    return code


def pages_of(stage: Stage, rows: int) -> None:
    """Read pages of so many rows."""
    read = SqlSource.page
    stage.patch.setattr(SqlSource, "page", lambda source, cursor, _: read(source, cursor, rows))


@line("The source does not answer at the start")
def source_away(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    right = stage.project.config.read_text()
    stage.set("sqlite:///source.db", "postgresql://nobody@127.0.0.1:9/nothing")
    code = fails(stage.run(), "127.0.0.1:9", "does not answer")
    assert stage.project.texts() == before
    stage.project.write_settings(right)
    does_the_rest(stage, sure=DOCUMENTS)
    return code


@line("A query of the source hangs")
def source_hangs(stage: Stage, _: FakeQdrant) -> int:
    stage.held()
    stage.project.execute("DELETE FROM note WHERE id = 1")
    stage.project.fill(40, first=DOCUMENTS + 1)
    right = stage.project.config.read_text()
    columns = f"id, title, CASE WHEN id > 70 THEN {ENDLESS} ELSE body END AS body, author, priority"
    stage.set('table = "note"', f'query = "SELECT {columns} FROM note"')
    stage.set('source.db"', 'source.db"\ntimeout = 0.5')
    pages_of(stage, 20)
    code = fails(stage.run(), "did not answer a query within 0.5 s", "[source] timeout")
    assert "1" in stage.project.texts(), "nothing was deleted"
    assert len(stage.project.texts()) > DOCUMENTS
    stage.project.write_settings(right)
    does_the_rest(stage, sure=DOCUMENTS)
    return code


# The embedder


@line("The embedder does not answer at the start")
def embedder_away(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    assert stage.project.settings.embedder.timeout == 120
    stage.fake.stop_listening()
    code = fails(stage.run(), stage.fake.url.removeprefix("http://"))
    stage.fake.restart(model="another")
    assert (fails(stage.run(), "ollama pull fake-embed"), stage.project.texts()) == (code, before)
    stage.fake.model = "fake-embed"
    does_the_rest(stage, sure=DOCUMENTS)
    return code


@line("The model's weights change in the middle")
def weights_change(stage: Stage, _: FakeQdrant) -> int:
    stage.fake.seconds_per_text, digest = 0.02, stage.fake.digest
    with when(lambda: embeds(stage, "ticket 21 "), lambda: stage.fake.restart(digest="ee" * 32)):
        code = fails(stage.run(), "with weights eeeeeeeeeeee")
    assert stage.project.texts()
    assert fails(stage.run(), "rebuild notes") == code
    stage.fake.restart(digest=digest)
    does_the_rest(stage)
    return code


@line("A chunk gets no context")
def no_context(stage: Stage, _: FakeQdrant) -> int:
    table = f'[indexes.context]\nmodel = "{stage.fake.model}"\nhosts = ["{stage.fake.url}"]\n'
    stage.project.write_settings(stage.project.config.read_text() + table)
    stage.fake.fault("generated", path="/api/generate", marker="ticket 40 ", response="")
    outcome = stage.run()
    assert (outcome.failed, outcome.incomplete) == (0, 1)
    assert f"{outcome.work.contexts_missing} chunks are without context" in outcome.message
    assert (stage.listed().keys(), len(stage.project.texts())) == ({"40"}, DOCUMENTS)
    assert stage.run().nothing_to_do
    return RunReport([outcome]).exit_code


# Store, ledger and disk


@line("Qdrant does not answer")
def qdrant_away(stage: Stage, qdrant: FakeQdrant) -> int:
    stage.project = stage.make("server", f'[store]\nurl = "{qdrant.url}"\n')
    stage.set(
        "shard_documents = 10", "shard_documents = 2"
    )  # on a busy machine the stop comes some writes later
    # a shard puts its points and its commit's mark, and the mark of one goes beside the points of
    # the next
    with when(lambda: qdrant.requests("PUT /collections/test_notes__1/points") >= 5, qdrant.stop):
        code = fails(stage.run(), qdrant.url.removeprefix("http://"))
    qdrant.start()
    does_the_rest(stage, sure=2)
    return code


@line("Qdrant refuses points")
def refused_points(stage: Stage, qdrant: FakeQdrant) -> int:
    stage.project = stage.make("server", f'[store]\nurl = "{qdrant.url}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fakes.qdrant.POISON", "author")
        stage.project.execute("UPDATE note SET author = NULL WHERE id <> 25")
        code = fails(stage.run(), "refuse")
    points = {payload["_rag"]["document_id"] for payload, _ in stage.project.points().values()}
    assert points == {str(number) for number in range(1, 31) if number != 25}, (
        "the others of the shard are written"
    )
    does_the_rest(stage, sure=20)
    return code


@line("Qdrant refuses a request")
def read_only(stage: Stage, qdrant: FakeQdrant) -> int:
    stage.project = stage.make("server", f'[store]\nurl = "{qdrant.url}"\n')
    stage.held()
    stage.project.fill(10, first=DOCUMENTS + 1)
    qdrant.read_only = True
    code = fails(stage.run(), "give the key more access", "[store] api_key")
    qdrant.read_only = False
    does_the_rest(stage, sure=DOCUMENTS)
    return code


@line("Ledger and store do not belong together")
def lost(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    kept, codes = stage.project.folder / ".rag-index", set()
    for what in ("ledger.db", "qdrant"):
        (kept / what).rename(kept / f"lost {what}")
        codes |= {fails(stage.run(), "rag-index rebuild") for _ in range(2)}
        assert (stage.run(full=True, allow_loss=True).state, stage.project.texts()) == (
            "completed",
            before,
        )
    [code] = codes
    return code


# Changes that need a person


@line("Model, prefix or chunk size")
def other_settings(stage: Stage, _: FakeQdrant) -> int:
    before, codes = stage.held(), set()
    right = stage.project.config.read_text()
    for old, new, both in (
        ("chunk_chars = 200", "chunk_chars = 100", ("/200/20", "/100/20")),
        ("[parallel]", 'document_prefix = "passage: "\n[parallel]', ("fake-embed", "passage: ")),
    ):
        stage.project.write_settings(right)
        stage.set(old, new)
        codes |= {fails(stage.run(), *both, "rebuild notes") for _ in range(2)}
        assert stage.project.texts() == before
    stage.set("[parallel]", 'query_prefix = "query: "\n[parallel]')
    with Retriever(stage.project.settings) as retriever:
        assert retriever.search_sync("a question").hits
    assert embeds(stage, "a question")
    assert not embeds(stage, "query: a question")
    stage.project.write_settings(right)
    does_the_rest(stage, sure=DOCUMENTS)
    [code] = codes
    return code


@line("A rebuild fails")
def rebuild_fails(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    stage.set("chunk_chars = 200", "chunk_chars = 100")
    stage.fake.clear()
    stage.fake.seconds_per_text = 0.02
    with when(lambda: embeds(stage, "ticket 30 "), stage.fake.stop_listening):
        code = fails(stage.run(full=True), stage.fake.url.removeprefix("http://"))
    assert stage.project.texts() == before
    stage.fake.listen()
    resumed = stage.run(full=True)
    assert (resumed.state, resumed.unchanged > 0) == ("completed", True)
    assert stage.project.texts() != before
    return code


@line("A rebuild has failed documents")
def rebuild_lacks(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    stage.project.execute("UPDATE note SET body = 'POISON' WHERE id = 9")
    stage.fake.fault("status", code=400, marker="POISON")
    outcome = stage.run(full=True)
    assert "1 documents failed, so the rebuilt test_notes__2 was not published" in outcome.message
    assert stage.project.texts() == before
    stage.fake.clear()
    assert (stage.run(full=True).state, stage.project.texts()["9"]) == (
        "completed",
        ["Note 9\nPOISON"],
    )
    return RunReport([outcome]).exit_code


@pytest.mark.parametrize("what", LINES)
def test_each_line_has_one_scene_or_a_test_that_provokes_it(what):
    assert len([one for one in (*SCENES, *ELSEWHERE) if what.startswith(one)]) == 1


@pytest.mark.long
@pytest.mark.parametrize("beginning", SCENES)
def test_the_line_is_what_happens(beginning, tmp_path, monkeypatch):
    [line] = [line for what, line in LINES.items() if what.startswith(beginning)]
    with FakeOllama() as fake, FakeQdrant() as qdrant:
        code = SCENES[beginning](Stage(tmp_path, fake, monkeypatch), qdrant)
    assert line[-1] == str(code)


@pytest.mark.parametrize("beginning", ELSEWHERE)
def test_the_test_of_a_line_exists(beginning):
    [line] = [line for what, line in LINES.items() if what.startswith(beginning)]
    code, file, name = ELSEWHERE[beginning]
    assert line[-1] == str(code)
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(f"test_{name}")
    ]
