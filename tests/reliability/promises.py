"""What is promised, which tests show each of it, and what figure of theirs says how well it was tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["PROMISES", "Promise", "Tried"]


@dataclass(frozen=True, slots=True)
class Tried:
    """What the tests of a promise came to: how many cases, and the numbers that they noted."""

    cases: int
    noted: dict[str, list[float]]
    kills: dict[str, Any]
    """The summary of the harness."""

    def total(self, name: str) -> int:
        """The sum of a number over all tests that noted it."""
        return int(sum(self.noted.get(name, [])))


def cases(words: str) -> Callable[[Tried], str]:
    """So many, all as they should be."""
    return lambda tried: f"{tried.cases} {words}"


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise, the tests that show it (a file, or a file and one test), and its figure in words."""

    words: str
    tests: tuple[str, ...]
    figure: Callable[[Tried], str]


def _killed(tried: Tried) -> str:
    kills = tried.kills
    return (
        f"{kills['kills']} kills of processes and {tried.total('deaths'):,} deaths at a write: documents lost: "
        f"{kills['documents_lost']}, stale: {kills['documents_stale']}, embedded again beyond a window of shards: "
        f"{kills['embedded_again_beyond_a_window']}"
    )


def _rebuilt(tried: Tried) -> str:
    seconds = max(tried.noted.get("rollback_seconds", [0.0]))
    return (
        f"{tried.cases} cases; {tried.total('searches'):,} searches meanwhile, 0 failed or empty; "
        f"a rollback in {seconds:.2f} s"
    )


FAILURES = "tests/flows/test_failures.py"
FAULTS = "tests/embedders/test_ollama_faults.py"

PROMISES = (
    Promise(
        "Kill anything, at any moment of a first or second run: one more run makes exactly what a clean run makes, and "
        "nothing that was acknowledged is embedded again beyond one window of shards",
        (
            "tests/reliability/test_kill.py", "tests/reliability/test_every_step.py",
            f"{FAILURES}::test_a_worker_that_is_killed_as_it_starts_does_not_stop_the_run",
            "tests/ledger/test_ledger.py",
        ),
        _killed,
    ),
    Promise(
        "An embedder that misbehaves: retried or not as the fault asks, nothing lost, nothing wrong written, an end in "
        "bounded time",
        (FAULTS, "tests/flows/test_embedder_faults.py"),
        cases("cases of faults, documents lost: 0"),
    ),
    Promise(
        "A dead or wedged embedder does not burn the night: its host rests and is probed, others take the work, with "
        "none the run waits, says so, and ends with all kept that was done",
        (
            "tests/hosts/test_pool.py",
            f"{FAILURES}::test_an_embedder_that_dies_ends_the_run_in_time_and_keeps_what_was_done",
            "tests/flows/test_embedder_faults.py::test_what_is_waited_for_is_said",
        ),
        cases("cases"),
    ),
    Promise(
        "One bad document hurts no other: it is found by halving, listed with its reason and tries, also where it "
        "kills its worker",
        (FAILURES, f"{FAULTS}::test_the_text_at_fault_is_found_and_no_other_suffers", "tests/indexing/test_embed.py"),
        cases("cases"),
    ),
    Promise(
        "Deleting is guarded",
        (
            "tests/flows/test_index_all.py::test_a_table_that_was_emptied_does_not_empty_the_index",
            "tests/flows/test_index_all.py::test_texts_that_were_emptied_count_for_the_guard",
            "tests/flows/test_rebuild.py::test_a_rebuild_of_a_source_that_was_emptied_is_not_shown",
        ),
        cases("cases, documents deleted without leave: 0"),
    ),
    Promise(
        "Another model, dimension, prefix or chunker never mixes; a rebuild is made beside, verified, shown in one "
        "step, and can be gone back from",
        ("tests/flows/test_rebuild.py", "tests/indexing/test_publish.py"),
        _rebuilt,
    ),
    Promise("The doctor finds each damage and mends it", ("tests/doctor/test_doctor.py",), cases("cases of damage")),
    Promise(
        "Never the same text twice: within a shard, through a rebuild, into another store; copied vectors are "
        "bit-equal",
        ("tests/indexing/test_embed.py", "tests/flows/test_rebuild.py", "tests/transfer/test_move.py"),
        cases("cases"),
    ),
    Promise(
        "One run of an index at a time, over machines too; the lock of a dead one is taken over",
        (
            "tests/reliability/test_lock.py", f"{FAILURES}::test_a_second_run_is_told_who_holds_the_index",
            f"{FAILURES}::test_a_lock_of_another_machine_is_kept_for_a_minute_and_then_taken_over",
            "tests/live/test_postgres_ledger.py::test_one_run_at_a_time_over_several_machines",
        ),
        cases("cases"),
    ),
    Promise(
        "The source may change under the run",
        ("tests/reliability/test_source_changes.py",),
        cases("cases, rows missed: 0"),
    ),
    Promise(
        "A full disk, a locked or newer ledger, folders that cannot be written, a clock set back: words, and nothing "
        "spoilt",
        ("tests/reliability/test_disk_and_clock.py", "tests/stores/test_edge.py"),
        cases("cases, documents lost: 0"),
    ),
    Promise(
        "A ledger of each earlier version is brought up to date", ("tests/ledger/test_migrations.py",), cases("cases")
    ),
    Promise(
        "An export is every point, exactly, sorted, in bounded memory",
        ("tests/transfer/test_export.py",),
        cases("cases"),
    ),
)  # fmt: skip
"""In the order of docs/reliability.md."""
