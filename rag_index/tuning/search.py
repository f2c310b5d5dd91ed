"""Searching where a measurement costs time and is noisy.

Half of the budget goes to successive halving over a coarse grid (Karnin, Koren and Somekh 2013; Jamieson and
Talwalkar 2016): all are probed briefly, the better third again for three times as long, until few are left. Then one
lever after the other is moved from the best one (coordinate search), first to what is faster, then to what is cheaper
and as fast. The last quarter of the budget repeats the best, and the cheapest of those that come close, in turn,
forwards and backwards, so that what else the machine does hits all of them alike; medians decide. It knows nothing of
embedders: `probe` measures, `clock` tells the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rag_index.tuning.candidate import Candidate

__all__ = ["Search", "Tried"]

ETA = 3
"""Of so many candidates one stays, which is then probed so many times as long."""
FINALISTS = 4
REPEATS = 3
NEAR = 0.95
"""Of the best rate: what reaches it is as good, and the cheapest of them is the knee."""
CLOSE = 0.85
"""Of the best rate by a first look: what reaches it, and is cheaper, is looked at again."""
BETTER = 1.03
"""A step must gain more than this to be taken."""
SHORTEST, LONGEST = 0.25, 5.0
"""Seconds of a probe."""
HALVING, REFINED, CHEAPENED = 0.45, 0.6, 0.75
"""Shares of the budget that are spent when each part has ended."""


@dataclass(slots=True)
class Tried:
    """A candidate and its rates, characters a second, in the order in which they were measured."""

    candidate: Candidate
    rates: list[float] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)
    """Those of the last part."""

    @property
    def rate(self) -> float:
        """The median of the last part, or of all where it was not in it."""
        return median(self.finals or self.rates) if self.rates else 0.0


class Search:
    """See the module. `probe(candidate, seconds)` gives a rate, 0 where the candidate does not work."""

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
        self.tried: dict[Candidate, Tried] = {}

    def run(self, coarse: Sequence[Candidate], always: Sequence[Candidate], first: Sequence[Candidate] = ()) -> Tried:
        """The knee. `first` are measured first, so that it is known how long others take. `always` are measured to
        the end whatever they reach: what is set now, the serial way."""
        for candidate in dict.fromkeys([*first, *always]):
            self._measure(candidate, SHORTEST)
        self._started = self._clock()  # starting processes and loading models for the first time is beside the budget
        self._halve([*dict.fromkeys([*coarse, *always])])
        self._refine()
        self._cheapen()
        self._decide(always)
        return self.knee

    @property
    def best(self) -> Tried:
        """The fastest, of those that were measured to the end where there are such."""
        finalists = [one for one in self.tried.values() if one.finals]
        return max(finalists or self.tried.values(), key=lambda one: one.rate)

    @property
    def knee(self) -> Tried:
        """The cheapest within 5% of the best, of those that were measured to the end where there are such."""
        best = self.best
        finalists = [one for one in self.tried.values() if one.finals] or [best]
        return min(
            (one for one in finalists if one.rate >= NEAR * best.rate),
            key=lambda one: (one.candidate.cost, -one.rate),
        )

    @property
    def spent(self) -> float:
        """Seconds of the budget that are spent."""
        return self._clock() - self._started

    def _left(self, share: float) -> bool:
        return self.spent < share * self._budget

    def _measure(self, candidate: Candidate, seconds: float, *, final: bool = False) -> Tried:
        one = self.tried.setdefault(candidate, Tried(candidate))
        rate = self._probe(candidate, seconds)
        one.rates.append(rate)
        if final:
            one.finals.append(rate)
        return one

    def _halve(self, candidates: list[Candidate]) -> None:
        rounds = 1
        while len(candidates) > FINALISTS * ETA**rounds:
            rounds += 1
        seconds = self._budget * HALVING / (len(candidates) * rounds)
        seconds = min(LONGEST, max(SHORTEST, seconds))
        survivors = candidates
        for _ in range(rounds):
            measured = []
            for candidate in survivors:
                if not self._left(HALVING):
                    break
                measured.append(self._measure(candidate, seconds))
            if len(measured) < len(survivors):
                return
            measured = sorted((one for one in measured if one.rates[-1]), key=lambda one: -one.rates[-1])
            survivors = [one.candidate for one in measured[: max(FINALISTS, len(measured) // ETA)]]
            survivors.reverse()  # what else the machine does meanwhile shall not favour the same ones
            seconds = min(LONGEST, seconds * ETA)

    def _refine(self) -> None:
        seconds = min(LONGEST, max(SHORTEST, self._budget / 60))
        while self._left(REFINED):
            best = self.best
            known = best.rate
            steps = [one for one in self._neighbours(best.candidate) if one not in self.tried]
            for step in steps:
                if not self._left(REFINED):
                    return
                self._measure(step, seconds)
            if not steps or self.best.rate < BETTER * known:
                return

    def _cheapen(self) -> None:
        seconds = min(LONGEST, max(SHORTEST, self._budget / 60))
        while self._left(CHEAPENED):
            limit = NEAR * self.best.rate
            good = [one.candidate for one in self.tried.values() if one.rate >= limit]
            cheapest = min(good, key=lambda one: one.cost)
            steps = [one for one in self._neighbours(cheapest) if one not in self.tried and one.cost < cheapest.cost]
            for step in steps:
                if not self._left(CHEAPENED):
                    return
                self._measure(step, seconds)
            if not any(self.tried[step].rate >= limit for step in steps):
                return

    def _decide(self, always: Sequence[Candidate]) -> None:
        best = self.best
        ranked = sorted(self.tried.values(), key=lambda one: -one.rate)
        cheaper = [one for one in ranked if one.rate >= CLOSE * best.rate and one.candidate.cost < best.candidate.cost]
        cheaper.sort(key=lambda one: one.candidate.cost)
        chosen = [*ranked[:2], *cheaper[:FINALISTS]]
        finalists = list(dict.fromkeys([*(one.candidate for one in chosen), *always]))
        left = max(0.0, self._budget - self.spent)
        seconds = min(LONGEST, max(SHORTEST, left / (REPEATS * len(finalists))))
        for number in range(REPEATS):
            for candidate in finalists if number % 2 == 0 else reversed(finalists):
                if number and not self._left(1.0):
                    return
                self._measure(candidate, seconds, final=True)
