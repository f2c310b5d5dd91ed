"""The metrics of many kills: for a person, and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.reliability.cases import NAMES

if TYPE_CHECKING:
    from tests.reliability.cases import Trial

COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "kills": sum,
    "documents_lost": sum,
    "documents_stale": sum,
    "embedded_again_beyond_a_window": sum,
    "gone_seconds_at_most": max,
}
"""The metrics of each target, and how those of all targets follow from them."""


def summary(trials: list[Trial], *, seed: int, seconds: float) -> dict[str, Any]:
    """Return the metrics of a long run."""
    targets = {target: [trial for trial in trials if trial.case.target == target] for target in NAMES}
    by_target = {target: _metrics(some) for target, some in targets.items() if some}
    return {
        **_totals(by_target),
        "seeds": [seed],
        "seconds": round(seconds),
        "by_target": by_target,
        "problems": [f"{trial.case}: {problem}" for trial in trials for problem in trial.problems],
    }


def table(metrics: dict[str, Any]) -> str:
    """Return a table with a line for each target."""
    lines = [
        "| killed | kills | documents lost | stale | embedded again beyond a window | last process gone after |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in [*((NAMES[target], found) for target, found in metrics["by_target"].items()), ("all", metrics)]:
        *counts, gone = (found[column] for column in COLUMNS)
        lines.append(f"| {name} | {' | '.join(map(str, counts))} | {gone:.1f} s |")
    return "\n".join(lines)


def line(number: int, trial: Trial) -> str:
    """Return the line that is printed for a trial."""
    gone = "" if trial.gone_seconds is None else f", gone after {trial.gone_seconds:.1f} s"
    verdict = "; ".join(trial.problems) or "as it should be"
    return (
        f"{number}. {trial.case}: {trial.committed:.0%} committed, {trial.pending} pending, exit {trial.exit_code} "
        f"after {trial.ended_seconds:.1f} s{gone}, next run {trial.next_seconds:.1f} s, "
        f"{trial.embedded_again} embedded again: {verdict}"
    )


def _metrics(trials: list[Trial]) -> dict[str, Any]:
    return {
        "kills": len(trials),
        "documents_lost": sum(trial.lost for trial in trials),
        "documents_stale": sum(trial.stale for trial in trials),
        "embedded_again_beyond_a_window": sum(trial.beyond_window for trial in trials),
        "gone_seconds_at_most": round(max(trial.gone_seconds or 0.0 for trial in trials), 2),
    }


def _totals(by_target: dict[str, Any]) -> dict[str, Any]:
    return {name: how([found[name] for found in by_target.values()]) for name, how in COLUMNS.items()}
