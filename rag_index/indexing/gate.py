"""The gate of a rebuild, as a run asks it. What it compares, and how it decides, is in `rag_index.evaluation.gate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError
from rag_index.evaluation.gate import ask_both, judge

if TYPE_CHECKING:
    from rag_index.indexing.run import IndexRun
    from rag_index.ledger import Collection

NOTHING_LIVE = "the gate had nothing to compare with, because no collection was live"
NOT_ASKED = "the gate was not asked (--allow-loss)"
OTHER_REMEDIES = (": put it back, or rebuild", ": put the settings back, or rebuild", ": rebuild the index")
"""How errors of searches tell a person to rebuild, which is what this run does already."""


def refused_by_gate(run: IndexRun, rebuilt: Collection) -> str:
    """Ask the gate of the index, and return why the rebuilt collection is not published; "" if it may be.

    The verdict goes into the outcome. If the collections cannot be asked, that is a reason too.
    """
    gate, index, outcome = run.index.gate, run.index.name, run.outcome
    if gate is None:
        return ""
    if run.options.allow_loss:
        outcome.say(NOT_ASKED)
        return ""
    live = run.store.aliases().get(run.alias)
    if live is None:
        outcome.say(NOTHING_LIVE)
        return ""
    run.progress.say(f"asking {len(run.golden):,} golden queries")
    try:
        with run.stopwatch.stage("gate"):
            found = ask_both(run.settings, run.index, run.golden, run.store, live=live, rebuilt=rebuilt.name)
    except RagIndexError as error:
        return (
            f"the gate could not compare {live} with the rebuilt {rebuilt.name}, which was not published "
            f"({_cause(error)}): make both searchable and run again, or run `rag-index rebuild {index} --allow-loss`"
        )
    outcome.gate = verdict = judge(gate, run.golden, *found)
    if not verdict.passed:
        return verdict.refusal(rebuilt.name, index)
    outcome.verified += f"; {verdict.sentence()}"
    for note in verdict.notes():
        outcome.say(note)
    return ""


def note_first(run: IndexRun) -> None:
    """Say that the first collection of an index with a gate went live without a comparison."""
    if run.index.gate is not None:
        run.outcome.say(NOTHING_LIVE)


def _cause(error: RagIndexError) -> str:
    """Return what went wrong, without a remedy for somebody who only searches."""
    cause = str(error)
    for remedy in OTHER_REMEDIES:
        cause = cause.partition(remedy)[0]
    return cause
