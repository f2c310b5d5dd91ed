"""A search for the fastest candidate, for measurements that take time and are noisy.

Half of the budget goes to successive halving over a coarse grid (Karnin, Koren and Somekh 2013; Jamieson and
Talwalkar 2016): measure all candidates briefly, then the best third three times as long, until few are left. Then move
one lever at a time from the best candidate (coordinate search), first to faster candidates, then to cheaper ones that
are as fast. The last quarter of the budget repeats the best candidates, and the cheapest of those that come close. They
take turns, forwards and backwards, so that other work on the machine affects all alike. Medians decide. The search
knows nothing about embedders: `probe` measures, and `clock` tells the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rag_index.tuning.candidate import Candidate

ETA = 3
"""Keep 1 of every ETA candidates, and measure the survivors ETA times as long."""
FINALISTS = 4
REPEATS = 3
AS_FAST = 0.95
"""Share of the best rate. A candidate that reaches it counts as equally fast; the cheapest of these is the knee."""
CLOSE = 0.85
"""Share of the best rate so far. Cheaper candidates that reach it are measured again in the last part."""
MIN_GAIN = 1.03
"""A round of steps must gain at least this factor for another round."""
MIN_SECONDS, MAX_SECONDS = 0.25, 5.0
"""Seconds of a probe."""
HALVING_END, REFINING_END, CHEAPENING_END = 0.45, 0.6, 0.75
"""Share of the budget that is spent when each part ends."""


@dataclass(slots=True)
class Trial:
    """A candidate and its measured rates in characters per second, oldest first."""

    candidate: Candidate
    rates: list[float] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)
    """The rates measured in the last part."""

    @property
    def rate(self) -> float:
        """The median rate of the last part, or of all parts if the candidate did not reach the last one."""
        return median(self.finals or self.rates) if self.rates else 0.0


class Search:
    """The search. `probe(candidate, seconds)` returns a rate, 0 if the candidate does not work; `clock` is seconds."""

    def __init__(
        self,
        probe: Callable[[Candidate, float], float],
        *,
        budget: float,
        clock: Callable[[], float],
        neighbours: Callable[[Candidate], Iterable[Candidate]],
    ) -> None:
        self._probe = probe
        self._budget = budget
        self._clock = clock
        self._neighbours = neighbours
        self._started = clock()
        self.trials: dict[Candidate, Trial] = {}

    def run(self, coarse: Sequence[Candidate], always: Sequence[Candidate], first: Sequence[Candidate] = ()) -> Trial:
        """Search and return the knee.

        `first` are measured first, so that it is known how long other candidates take. `always` (the current settings,
        the serial script) are measured to the end, whatever their rate.
        """
        for candidate in dict.fromkeys([*first, *always]):
            self._measure(candidate, MIN_SECONDS)
        self._started = self._clock()  # starting processes and loading models for the first time is not in the budget
        self._halve([*dict.fromkeys([*coarse, *always])])
        self._refine()
        self._cheapen()
        self._decide(always)
        return self.knee

    @property
    def best(self) -> Trial:
        """The fastest trial, among the finalists if there are any."""
        return max(self._finalists() or self.trials.values(), key=lambda one: one.rate)

    @property
    def knee(self) -> Trial:
        """The cheapest trial within 5% of the best, among the finalists if there are any."""
        best = self.best
        return min(
            (one for one in self._finalists() or [best] if one.rate >= AS_FAST * best.rate),
            key=lambda one: (one.candidate.cost, -one.rate),
        )

    @property
    def spent(self) -> float:
        """Seconds of the budget that are spent."""
        return self._clock() - self._started

    def _finalists(self) -> list[Trial]:
        return [one for one in self.trials.values() if one.finals]

    def _has_budget(self, share: float) -> bool:
        return self.spent < share * self._budget

    def _measure(self, candidate: Candidate, seconds: float, *, final: bool = False) -> Trial:
        one = self.trials.setdefault(candidate, Trial(candidate))
        rate = self._probe(candidate, seconds)
        one.rates.append(rate)
        if final:
            one.finals.append(rate)
        return one

    def _halve(self, candidates: list[Candidate]) -> None:
        rounds = 1
        while len(candidates) > FINALISTS * ETA**rounds:
            rounds += 1
        seconds = self._budget * HALVING_END / (len(candidates) * rounds)
        seconds = min(MAX_SECONDS, max(MIN_SECONDS, seconds))
        survivors = candidates
        for _ in range(rounds):
            measured = []
            for candidate in survivors:
                if not self._has_budget(HALVING_END):
                    break
                measured.append(self._measure(candidate, seconds))
            if len(measured) < len(survivors):
                return
            measured = sorted((one for one in measured if one.rates[-1]), key=lambda one: -one.rates[-1])
            survivors = [one.candidate for one in measured[: max(FINALISTS, len(measured) // ETA)]]
            survivors.reverse()  # so that other work on the machine does not favour the same candidates again
            seconds = min(MAX_SECONDS, seconds * ETA)

    def _step_seconds(self) -> float:
        return min(MAX_SECONDS, max(MIN_SECONDS, self._budget / 60))

    def _refine(self) -> None:
        while self._has_budget(REFINING_END):
            best = self.best
            rate = best.rate
            steps = [one for one in self._neighbours(best.candidate) if one not in self.trials]
            for step in steps:
                if not self._has_budget(REFINING_END):
                    return
                self._measure(step, self._step_seconds())
            if not steps or self.best.rate < MIN_GAIN * rate:
                return

    def _cheapen(self) -> None:
        while self._has_budget(CHEAPENING_END):
            limit = AS_FAST * self.best.rate
            fast = [one.candidate for one in self.trials.values() if one.rate >= limit]
            cheapest = min(fast, key=lambda one: one.cost)
            steps = [one for one in self._neighbours(cheapest) if one not in self.trials and one.cost < cheapest.cost]
            for step in steps:
                if not self._has_budget(CHEAPENING_END):
                    return
                self._measure(step, self._step_seconds())
            if not any(self.trials[step].rate >= limit for step in steps):
                return

    def _decide(self, always: Sequence[Candidate]) -> None:
        best = self.best
        ranked = sorted(self.trials.values(), key=lambda one: -one.rate)
        cheaper = [one for one in ranked if one.rate >= CLOSE * best.rate and one.candidate.cost < best.candidate.cost]
        cheaper.sort(key=lambda one: one.candidate.cost)
        chosen = [*ranked[:2], *cheaper[:FINALISTS]]
        finalists = list(dict.fromkeys([*(one.candidate for one in chosen), *always]))
        left = max(0.0, self._budget - self.spent)
        seconds = min(MAX_SECONDS, max(MIN_SECONDS, left / (REPEATS * len(finalists))))
        for number in range(REPEATS):
            for candidate in finalists if number % 2 == 0 else reversed(finalists):
                if number and not self._has_budget(1.0):
                    return
                self._measure(candidate, seconds, final=True)
