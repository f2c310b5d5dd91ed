"""The weight of meaning against words that fits one's own queries best, chosen with held-out folds.

The queries are divided into folds. For each fold the weight that is best for all other queries is applied to the
queries of the fold, which had no part in choosing it. So the gain over the weight of the settings is what other such
queries can expect. The weight to be written is then the one that is best for all queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.errors import SettingsError
from rag_index.evaluation.significance import SEED, Estimate, estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

WEIGHTS = tuple(round(number / 20, 2) for number in range(21))
"""The weights that are tried: 0, 0.05, …, 1."""
FOLDS = 5
MIN_QUERIES = 20
"""The fewest queries: with fewer, a fold would have less than four."""
SMOOTHING = (1, 2, 3, 2, 1)
"""A weight is judged together with its neighbours, which count as much as this: a peak of one weight alone is luck."""


@dataclass(frozen=True, slots=True)
class WeightChoice:
    """A weight of meaning, and what it is expected to gain on other queries than those that it was chosen with.

    `present` and `best` are the measures of the weight of the settings and of the chosen one; that of the chosen one
    is the held-out one. `gain` is the difference of the two by query.
    """

    metric: str
    queries: int
    folds: int
    present_weight: float
    present: Estimate
    best_weight: float
    best: Estimate
    gain: Estimate

    @property
    def worthwhile(self) -> bool:
        """Whether the gain is larger than what chance explains."""
        return self.best_weight != self.present_weight and self.gain.low > 0

    def to_json(self) -> dict[str, Any]:
        """Return the object that `rag-index evaluate --tune-fusion --json` prints."""
        return {
            "metric": self.metric,
            "queries": self.queries,
            "folds": self.folds,
            "present": {"dense_weight": self.present_weight, **self.present.to_json()},
            "best": {"dense_weight": self.best_weight, **self.best.to_json()},
            "gain": self.gain.to_json(),
            "worthwhile": self.worthwhile,
        }


def choose_weight(values: Callable[[float | None], Sequence[float]], present: float, metric: str) -> WeightChoice:
    """Return the best weight. `values` returns the measure of each query with a weight, or with None as searches are.

    Raises SettingsError if there are fewer queries than MIN_QUERIES.
    """
    now = np.asarray(values(None), dtype=np.float64)
    if len(now) < MIN_QUERIES:
        raise SettingsError(
            f"a weight cannot be chosen with {len(now)} queries: at least {MIN_QUERIES} are needed, and some hundred "
            f"are better"
        )
    measured = np.asarray([values(weight) for weight in WEIGHTS], dtype=np.float64)
    folds = np.arange(len(now)) % FOLDS
    np.random.default_rng(SEED).shuffle(folds)
    held_out = np.empty_like(now)
    for fold in range(FOLDS):
        chosen = _best(measured[:, folds != fold], present)
        held_out[folds == fold] = measured[chosen, folds == fold]
    best = WEIGHTS[_best(measured, present)]
    return WeightChoice(
        metric, len(now), FOLDS, present, estimate(now), best, estimate(held_out), estimate(held_out - now)
    )


def _best(measured: NDArray[np.float64], present: float) -> int:
    """Return the number of the best weight; of equally good ones the one that is nearest to the present weight."""
    means = measured.mean(axis=1)
    smooth = np.convolve(means, SMOOTHING, "same") / np.convolve(np.ones(len(means)), SMOOTHING, "same")
    return min(range(len(WEIGHTS)), key=lambda i: (-round(smooth[i], 9), abs(WEIGHTS[i] - present)))
