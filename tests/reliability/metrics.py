"""The figures of many kills: for a person, for docs/reliability.md, and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.reliability.cases import NAMES

if TYPE_CHECKING:
    from tests.reliability.cases import Trial

__all__ = ["line", "merged", "summary", "table"]

COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "kills": sum,
    "documents_lost": sum,
    "documents_stale": sum,
    "embedded_again_beyond_a_window": sum,
    "gone_seconds_at_most": max,
}
"""What is told of each target and of all, and how it is made of parts."""


def summary(trials: list[Trial], *, seed: int, seconds: float) -> dict[str, Any]:
    """The figures of a long run."""
    targets = {target: [trial for trial in trials if trial.case.target == target] for target in NAMES}
    by_target = {target: _metrics(some) for target, some in targets.items() if some}
    return {
        **_all(by_target),
        "seeds": [seed],
        "seconds": round(seconds),
        "by_target": by_target,
        "problems": [f"{trial.case}: {problem}" for trial in trials for problem in trial.problems],
    }


def merged(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Several long runs as one."""
    by_target = {}
    for target in NAMES:
        some = [one["by_target"][target] for one in summaries if target in one["by_target"]]
        if some:
            by_target[target] = {name: how([one[name] for one in some]) for name, how in COLUMNS.items()}
    return {
        **_all(by_target),
        "seeds": [seed for one in summaries for seed in one["seeds"]],
        "seconds": sum(one["seconds"] for one in summaries),
        "by_target": by_target,
        "problems": [problem for one in summaries for problem in one["problems"]],
    }


def table(figures: dict[str, Any]) -> str:
    """For docs/reliability.md: a line a target."""
    lines = [
        "| killed | kills | documents lost | stale | embedded again beyond a window | last process gone after |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in [*((NAMES[target], found) for target, found in figures["by_target"].items()), ("all", figures)]:
        *counts, gone = (found[column] for column in COLUMNS)
        lines.append(f"| {name} | {' | '.join(map(str, counts))} | {gone:.1f} s |")
    return "\n".join(lines)


def line(number: int, trial: Trial) -> str:
    """What is printed of a trial."""
    gone = "" if trial.gone_seconds is None else f", gone after {trial.gone_seconds:.1f} s"
    said = "; ".join(trial.problems) or "as it should be"
    return (
        f"{number}. {trial.case}: {trial.committed:.0%} committed, {trial.pending} pending, exit {trial.exit_code} "
        "after "
        f"{trial.ended_seconds:.1f} s{gone}, next run {trial.next_seconds:.1f} s, {trial.again} again: {said}"
    )


def _metrics(trials: list[Trial]) -> dict[str, Any]:
    return {
        "kills": len(trials),
        "documents_lost": sum(trial.lost for trial in trials),
        "documents_stale": sum(trial.stale for trial in trials),
        "embedded_again_beyond_a_window": sum(trial.beyond for trial in trials),
        "gone_seconds_at_most": round(max(trial.gone_seconds or 0.0 for trial in trials), 2),
    }


def _all(by_target: dict[str, Any]) -> dict[str, Any]:
    return {name: how([found[name] for found in by_target.values()]) for name, how in COLUMNS.items()}
