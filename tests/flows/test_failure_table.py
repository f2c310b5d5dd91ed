"""docs/troubleshooting.md: each failure of a run in its tables happens as it says."""

import ast

import pytest

from tests.docs.pages import ROOT, page, tables
from tests.fakes.ollama import FakeOllama
from tests.fakes.qdrant import FakeQdrant
from tests.flows import scenes  # noqa: F401  it fills SCENES
from tests.flows.stage import SCENES, Stage

ROWS = [row for rows in tables(page("troubleshooting"), "symptom") for row in rows]
LINES = {row[1]: row for row in ROWS if row[-1].isdigit()}
"""Failures of a run by their cause."""

ELSEWHERE = {
    "The embedder refuses a text": (3, "flows/test_failures.py", "a_refused_text_is_tried_again_by_hand_and_is_no"),
    "The source breaks off in the middle": (1, "etl/test_pipeline.py", "what_is_under_way_when_the_source_fails_is_"),
    "An Ollama server goes down": (1, "flows/test_outages.py", "the_progress_of_a_run_that_failed_says_what_is_kept"),
    "A value in a text column is not text": (3, "etl/test_single.py", "a_failed_document_that_is_mended_or_gone_is_no"),
    "The source lost more than": (3, "etl/test_delete_guard.py", "a_wrong_source_never_empties_the_index_and"),
    "Another run has this index": (1, "etl/test_single.py", "it_waits_for_no_other_run_and_says_who_is_writing"),
    "A collection of the embedded store": (1, "cli/test_commands.py", "a_store_that_another_process_writes_is"),
    "The source gives fewer rows": (1, "components/sources/test_servers.py", "a_run_deletes_nothing_because_"),
    "The disk of `data` has no room": (2, "components/sources/test_sql.py", "a_disk_without_room_for_rows_is_named"),
    "The disk is nearly full": (1, "reliability/test_disk_and_clock.py", "a_disk_that_fills_up_during_a_run_loses"),
    "The ledger's file is removed": (1, "reliability/test_disk_and_clock.py", "a_run_whose_ledger_is_removed"),
    "A rebuild finds less": (3, "etl/test_gate.py", "a_rebuild_that_finds_less_stays_beside_the_live_collection"),
    "A chunk ends its server each time": (3, "etl/test_recovery.py", "one_text_that_ends_its_only_server_costs_ten"),
    "A chunk is too long for the model": (0, "etl/test_embed.py", "what_is_too_long_is_halved_until_it_fits"),
    "A file of a row cannot be read": (0, "components/sources/test_attachments.py", "the_example_of_the_docs_is_ind"),
    "A document kills the worker": (3, "flows/test_code.py", "files_that_kill_or_hang_their_worker_are_found_and"),
    "A document kills the flow's own process": (137, "flows/test_suspects.py", "the_next_run_finds_it_and_indexes"),
    "A Dask worker is killed": (0, "flows/test_failures.py", "a_worker_that_is_killed_as_it_starts_does_not_stop"),
    "A worker hangs at a shard": (3, "flows/test_code.py", "files_that_kill_or_hang_their_worker_are_found_and"),
    "The workers do not start": (0, "flows/test_failures.py", "workers_that_do_not_start_are_started_once_more"),
    "The flow's process is killed": (137, "reliability/test_kill.py", "the_run_after_a_kill_loses_nothing"),
    "You press Ctrl-C": (130, "cli/test_commands.py", "a_signal_stops_the_run_and_its_processes_and_the_next_run"),
    "The worker of a deployed run": (137, "deployments/test_automations.py", "runs_that_lose_their_machine_or_worker"),
    "The pod of a run": (0, "deployments/test_worker.py", "a_job_of_kubernetes_that_is_told_to_end_schedules_its_run"),
    "A run is suspended": (0, "deployments/test_worker.py", "a_run_that_is_suspended_ends_its_processes_and_goes_on"),
    "A run is cancelled on Prefect's page": (130, "flows/test_cancel.py", "a_run_in_a_terminal_that_is_cancelled"),
    "A [part](": (2, "etl/test_parts.py", "a_source_that_lost_many_parts_overwrites_nothing"),
    "Store or ledger was put back": (0, "etl/test_restored.py", "a_store_that_was_put_back_is_mended_by_the_next"),
    "The Prefect server goes away": (0, "deployments/test_worker.py", "a_restart_of_prefects_server_"),
    "The Prefect server that Prefect's settings name": (1, "orchestration/test_launch.py", "a_prefect_server_that"),
    "MariaDB and MySQL show six digits": (2, "components/sources/test_keys.py", "a_key_that_the_database_cannot"),
    "Two projects make one alias": (1, "etl/test_ownership.py", "no_command_touches_what_is_another_projects"),
    "An upgrade reads or chunks": (1, "etl/test_collection.py", "an_index_of_an_older_release_says_why_it_must_be"),
    "The ledger was written by another": (1, "components/ledger/test_ledger.py", "a_ledger_of_another_version_is_ref"),
    "An earlier version kept these": (2, "etl/test_kept_out.py", "every_run_is_refused_until_a_condition_keeps_them"),
    "A migration gives the key another type": (2, "etl/test_key_types.py", "a_key_of_another_type_is_refused_and_a_"),
    "A folder that it writes belongs": (1, "reliability/test_unwritable.py", "a_store_that_cannot_be_written_is_whole"),
}
"""Lines that another test provokes, most of them with other processes: the exit code, and that test."""


@pytest.fixture
def stage(tmp_path, monkeypatch):
    with FakeOllama() as fake:
        yield Stage(tmp_path, fake, monkeypatch)


def of(what: str, among: dict[str, object]) -> list[str]:
    return [beginning for beginning in among if what.startswith(beginning)]


@pytest.mark.parametrize("what", LINES)
def test_each_line_has_one_scene_or_a_test_that_provokes_it(what):
    assert len(of(what, SCENES) + of(what, ELSEWHERE)) == 1


@pytest.mark.long
@pytest.mark.parametrize("beginning", SCENES)
def test_the_line_is_what_happens(beginning, stage):
    [line] = [line for what, line in LINES.items() if what.startswith(beginning)]
    with FakeQdrant() as qdrant:
        code = SCENES[beginning](stage, qdrant)
    assert line[-1] == str(code)


@pytest.mark.parametrize("beginning", ELSEWHERE)
def test_the_test_of_a_line_exists(beginning):
    [line] = [line for what, line in LINES.items() if what.startswith(beginning)]
    code, file, name = ELSEWHERE[beginning]
    assert line[-1] == str(code)
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith(f"test_{name}")]
