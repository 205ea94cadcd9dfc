"""Paired differences between two cells, seed by seed, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..report.estimates import bootstrap_interval
from .record import Record

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """A cell minus the baseline."""

    values: dict[int, float]  # by seed
    low: float | None  # ends of the 95 % interval of the mean; None for fewer than two seeds
    high: float | None

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))

    @property
    def higher(self) -> int:
        """The number of seeds at which the cell is above the baseline."""
        return sum(value > 0 for value in self.values.values())

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def paired(cell: list[Record], baseline: list[Record], measure: Callable[[Record], float | None]) -> Difference | None:
    """The difference over the seeds that both have; None if there is none.

    A seed fixes the order of the prompts, so that its two runs drew from the same stream of them.
    """
    theirs = {record.seed: measure(record) for record in baseline}
    values = {
        record.seed: value - other
        for record in cell
        if (value := measure(record)) is not None and (other := theirs.get(record.seed)) is not None
    }
    if not values:
        return None
    low, high = bootstrap_interval(np.array(list(values.values())), resamples=RESAMPLES) or (None, None)
    return Difference(values, low, high)


@lru_cache(maxsize=8)
def coverage(seeds: int, trials: int = 4000) -> float:
    """How often the 95 % bootstrap interval of `seeds` normal differences holds their true mean.

    The percentile bootstrap is too narrow for few values; this says by how much.

    >>> coverage(5) < 0.9 < coverage(40)
    True
    """
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(trials):
        low, high = bootstrap_interval(generator.standard_normal(seeds), resamples=1000)
        held += low <= 0 <= high
    return held / trials
