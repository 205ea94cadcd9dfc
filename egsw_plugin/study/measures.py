"""One number a run: what the study compares. Success is measured by validation, on the same problems for every cell."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from ..report.metrics import EFFECTIVE_SHARE, ENTROPY, LENGTH, REWARD, STEP_TIME, Metrics, find_metric
from .record import FinishedRun

_SUCCESS = re.compile(r"val-core/.+/acc/mean@\d+")
TOKENS = "perf/total_num_tokens"
DISCARDED = (
    "training/filter_groups/evicted_samples",
    "training/filter_groups/discarded_surplus_samples",
)  # groups that dynamic sampling generated and did not train on
LAST = 6  # steps over which "last" is a mean


@dataclass(frozen=True)
class Measure:
    """A column of a table."""

    title: str
    of: Callable[[FinishedRun], float | None]
    form: str = ".3f"
    scale: float = 1.0


def success_curve(record: FinishedRun) -> dict[int, float]:
    """Validation success, a share in [0, 1], by step."""
    return success_by_step(record.metrics)


def success_by_step(metrics: Metrics) -> dict[int, float]:
    """The same of metrics. Of several data sets it is the mean, in which each counts alike."""
    found = {}
    for row in metrics.training + metrics.validation:
        if values := [value for name, value in row.items() if _SUCCESS.fullmatch(name)]:
            found[row["step"]] = fmean(values)
    return dict(sorted(found.items()))


def final_success(record: FinishedRun) -> float | None:
    """Validation success after the last step, None without a validation there."""
    return success_curve(record).get(record.steps)


def mean_success(record: FinishedRun) -> float | None:
    """Mean of all validations of a run, which rewards learning early."""
    curve = success_curve(record)
    return fmean(curve.values()) if curve else None


def training_success(record: FinishedRun) -> float | None:
    """Mean reward of all that a run sampled; runs of equal seed saw equal prompts, so it is the least noisy measure.

    None under dynamic sampling: what is left of a batch then is no fair sample, and DAPO's reward has a length penalty.
    """
    rows = record.metrics.training
    if any(name in row for row in rows for name in DISCARDED):
        return None
    return over_steps(REWARD)(record)


def start_success(records: list[FinishedRun]) -> float | None:
    """Success of the start model: all that the first step of these runs sampled, before any update.

    On training prompts, and without the runs whose training success means something else.
    """
    rows = [record.metrics.training[0] for record in records if training_success(record) is not None]
    values = [value for row in rows if (value := find_metric(row, REWARD)) is not None]
    return fmean(values) if values else None


def steps_to(level: float, curve: dict[int, float]) -> float | None:
    """The step at which a curve first reaches a level, on straight lines between its points; None if it does not.

    >>> steps_to(0.5, {0: 0.2, 6: 0.4, 12: 0.6, 18: 0.3})
    9.0
    >>> steps_to(0.5, {0: 0.5, 6: 0.7}), steps_to(0.9, {0: 0.5, 6: 0.7})
    (0.0, None)
    """
    points = sorted(curve.items())
    if points and points[0][1] >= level:
        return float(points[0][0])
    for (step, value), (following, reached) in pairwise(points):
        if reached >= level:
            return step + (following - step) * (level - value) / (reached - value)
    return None


def over_steps(name: str, last: int | None = None) -> Callable[[FinishedRun], float | None]:
    """The mean of a training metric over all steps, or the last few."""

    def value(record: FinishedRun) -> float | None:
        rows = record.metrics.training[-last:] if last else record.metrics.training
        values = [found for row in rows if (found := find_metric(row, name)) is not None]
        return fmean(values) if values else None

    return value


def total(*names: str) -> Callable[[FinishedRun], float]:
    """The sum of training metrics over all steps; a metric that is not logged counts as 0."""
    return lambda record: sum(row.get(name, 0.0) for row in record.metrics.training for name in names)


def share_of_step(name: str) -> Callable[[FinishedRun], float | None]:
    """The share of a timing in the time of all steps."""

    def value(record: FinishedRun) -> float | None:
        whole = total(STEP_TIME)(record)
        return total(name)(record) / whole if whole else None

    return value


FINAL = Measure("final success (%)", final_success, ".1f", 100)
MEAN = Measure("mean success (%)", mean_success, ".1f", 100)
TRAINING = Measure("training success (%)", training_success, ".1f", 100)


def measure_of_steps_to(level: float, start: float | None) -> Measure:
    """The step at which validation success reaches a level, from `start` at step 0 on if that is known."""
    before = {} if start is None else {0: start}
    return Measure(f"steps to {level:.0%}", lambda record: steps_to(level, before | success_curve(record)), ".1f")


BEHAVIOUR = [
    Measure("entropy (nats)", over_steps(ENTROPY, LAST)),
    Measure("length (tokens)", over_steps(LENGTH, LAST), ".1f"),
    Measure("cut off (%)", over_steps("response_length/clip_ratio", LAST), ".1f", 100),
    Measure("effective share", over_steps(EFFECTIVE_SHARE)),
    Measure("mixed groups", over_steps("/mixed_groups/mean")),
    Measure("weight, min", over_steps("/weight/min"), ".2f"),
    Measure("weight, max", over_steps("/weight/max"), ".2f"),
    Measure("negative success (%)", over_steps("/negative_success/mean"), ".2f", 100),
    Measure("advantage, mean", over_steps("critic/advantages/mean"), "+.3f"),
    Measure("advantage, max", over_steps("critic/advantages/max"), ".1f"),
    Measure("gradient norm", over_steps("actor/grad_norm")),
    Measure("clipped (%)", over_steps("actor/pg_clipfrac"), ".3f", 100),
]
COST = [
    Measure("training batches, with prompts (1000 tokens)", total(TOKENS), ".0f", 1e-3),
    Measure("groups discarded", total(*DISCARDED), ".0f"),
    Measure("time of steps (s)", total(STEP_TIME), ".0f"),
    Measure("of it advantages (%)", share_of_step("timing_s/adv"), ".1f", 100),
    Measure("of it rollout (%)", share_of_step("timing_s/gen"), ".1f", 100),
    Measure("whole run (s)", lambda record: record.seconds, ".0f"),
]
