"""Paired differences between two cells, seed by seed: intervals over seeds, and what is left after many comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Any

import numpy as np

from ..report.estimates import bootstrap_interval
from .record import FinishedRun

RESAMPLES = 10_000
ROUNDING = 1e-9
LEAST_TESTED = 3  # seeds


@dataclass(frozen=True)
class Difference:
    """A cell minus the baseline."""

    values: dict[int, float]  # by seed
    low: float | None  # ends of the 95 % interval of the mean; None for fewer than two seeds
    high: float | None

    @property
    def mean(self) -> float:
        with np.errstate(invalid="ignore"):  # of infinite ones of both signs
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
        """Of the 95 % t-interval around the mean; None for fewer than three seeds, equal or infinite differences.

        Success is a count, so that differences are equal by chance now and then, which is no certainty; and what
        rounding leaves of equal ones is no spread.

        Raises:
            ModuleNotFoundError: scipy is not installed.
        """
        values = np.array(list(self.values.values()))
        if len(values) < LEAST_TESTED or not np.isfinite(values).all() or np.ptp(values) < ROUNDING:
            return None
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        return float(error * _stats().t.ppf(0.975, len(values) - 1))


def _stats() -> Any:
    try:
        from scipy import stats
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the tables of a study need scipy: pip install 'egsw-plugin[report]'") from error
    return stats


def holm(p_values: dict[str, float], comparisons: int | None = None) -> dict[str, float]:
    """Holm's correction: each p-value as large as it has to be for all comparisons together.

    Args:
        comparisons: how many are planned, those that have no p-value yet among them; by default, as many as p-values.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    >>> holm({"a": 0.01}, comparisons=4)
    {'a': 0.04}
    """
    planned = len(p_values) if comparisons is None else comparisons
    corrected, largest = {}, 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (planned - place) * p))
        corrected[name] = largest
    return corrected


def paired(
    cell: list[FinishedRun], baseline: list[FinishedRun], measure: Callable[[FinishedRun], float | None]
) -> Difference | None:
    """The difference over the seeds that both have; None if there is none.

    A seed fixes the order of the prompts, so that its two runs drew from the same stream of them. A measure may be
    infinite; a seed at which both are is left out, and there is no interval where one is.
    """
    theirs = {record.seed: measure(record) for record in baseline}
    values = {
        record.seed: value - other
        for record in cell
        if (value := measure(record)) is not None
        and (other := theirs.get(record.seed)) is not None
        and not value == other == inf
    }
    if not values:
        return None
    all_finite = np.isfinite(list(values.values())).all()
    interval = bootstrap_interval(np.array(list(values.values())), resamples=RESAMPLES) if all_finite else None
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
