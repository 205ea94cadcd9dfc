"""Paired differences between two cells, seed by seed: intervals over seeds, and what is left after many comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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
    def p_value(self) -> float | None:
        """Of a two-sided paired t-test that the mean is 0; None where there is no `half_width`.

        Raises:
            ModuleNotFoundError: scipy is not installed.
        """
        if self.half_width is None:
            return None
        return float(_stats().ttest_1samp(list(self.values.values()), 0.0).pvalue)

    @property
    def half_width(self) -> float | None:
        """Of the 95 % t-interval around the mean; None for fewer than three seeds, or equal differences.

        Success is a count, so that two differences are equal by chance now and then, which is no certainty.

        Raises:
            ModuleNotFoundError: scipy is not installed.
        """
        values = np.array(list(self.values.values()))
        if len(values) < 3 or np.ptp(values) == 0:
            return None
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        return float(error * _stats().t.ppf(0.975, len(values) - 1))


def _stats() -> Any:
    try:
        from scipy import stats
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the tables of a study need scipy: pip install 'egsw-plugin[report]'") from error
    return stats


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's correction: each p-value as large as it has to be for all comparisons together.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    corrected, largest = {}, 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p))
        corrected[name] = largest
    return corrected


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
    interval = bootstrap_interval(np.array(list(values.values())), resamples=RESAMPLES)
    return Difference(values, *(interval or (None, None)))


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
        low, high = bootstrap_interval(generator.standard_normal(seeds), resamples=1000) or (np.nan, np.nan)
        held += low <= 0 <= high
    return held / trials
