"""A quantile of the group's rewards as the baseline (QAE, arXiv 2509.22611)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from .. import measure
from ..options import Options, documented, option
from ..options.checks import in_range, one_of
from .interface import Base, Batch, Change, Requirements


@documented
@dataclasses.dataclass(frozen=True)
class QAEOptions(Options):
    """Options of QAE (arXiv 2509.22611), section ``algorithm.credit.qae``."""

    K: float = option(
        0.4,
        in_range(0, 1, inclusive=False),
        "the baseline is this quantile of the group's rewards. With rewards 0 and 1 it is 0 where the "
        "share of successes is at most 1 - K (only successes move), and 1 elsewhere (only failures move)",
        "K",
        "0.4 (0.6 against collapse)",
    )
    quantile: str = option(
        "lower",
        one_of("lower", "linear"),
        "`lower`: the least reward x with F(x) >= K; `linear`: interpolated, as the released code's torch.quantile, "
        "where the baseline of 1, 1, 0, 0 is 0.2 and no advantage is 0",
        paper="lower",
    )
    std: str = option(
        "sample",
        one_of("sample", "population", "none"),
        "what R - b is divided by: the standard deviation of the group's rewards with N - 1 (as verl's grpo) or N in "
        "the denominator, or nothing",
        paper="a standard deviation",
    )
    eps: float = option(1e-6, in_range(0, math.inf, inclusive=True), "added to the standard deviation")


class QAE(Base[QAEOptions]):
    """Compares each reward with a quantile of its group's, not with their mean, so that most advantages are 0.

    Responses without a policy token take no part. A group of one has advantage 0.

    Metrics: `zero/mean`, the share of policy tokens whose advantage is 0; `baseline/mean`, over groups.
    """

    name = "qae"
    options_type = QAEOptions
    title = "QAE, quantile advantage"
    source = "arXiv 2509.22611"
    formula = "(R - b) / (std + eps),  b = inf{x : F(x) >= K} over the group"
    favours = "none: all tokens of a response are alike; rare successes and rare failures move, the others do not"
    cost = "none to speak of"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: QAEOptions) -> Requirements:
        """Responses to compare."""
        return Requirements(responses=(2, "a group of one response is its own baseline: every advantage would be 0"))

    def advantages(self, options: QAEOptions, batch: Batch[Any]) -> Change:
        """Compare with the quantile."""
        there = (batch.rows.count > 0).nonzero().squeeze(1)
        rewards, ids = batch.outcome[there].double(), batch.group_ids[there]
        level = torch.zeros(len(batch.outcome), dtype=torch.float64, device=rewards.device)
        baseline = quantiles(rewards, ids, options.K, options.quantile)
        scale = deviations(rewards, ids, options.std) + options.eps
        # Where it is 0, so is every difference.
        level[there] = (rewards - baseline[ids]) / torch.where(scale > 0, scale, 1.0)[ids]
        advantages = level.unsqueeze(1).to(torch.promote_types(batch.outcome.dtype, torch.float32))
        existing = torch.bincount(ids, minlength=len(baseline)) > 0
        metrics = {
            "zero/mean": measure.share_of(batch, advantages == 0),
            "baseline/mean": measure.ratio(baseline[existing].sum(), existing.sum()),
        }
        return Change(advantages, metrics=metrics)


def quantiles(rewards: torch.Tensor, ids: torch.Tensor, K: float, kind: str) -> torch.Tensor:
    """The K-quantile of each group's rewards, float64 [groups]; 0 for a group without one.

    rewards: float64 [N]. ids: int64 [N], the group of each. kind: lower (the least x with F(x) >= K) or linear.

    >>> rewards, ids = torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), torch.zeros(4, dtype=torch.int64)
    >>> quantiles(rewards, ids, 0.4, "lower").tolist(), round(quantiles(rewards, ids, 0.4, "linear").item(), 6)
    ([0.0], 0.2)
    """
    groups = int(ids.max()) + 1 if len(ids) else 0
    result = torch.zeros(groups, dtype=torch.float64, device=rewards.device)
    order = rewards.argsort(stable=True)
    order = order[ids[order].argsort(stable=True)]
    own, sizes = ids[order].unique_consecutive(return_counts=True)
    start, ordered = sizes.cumsum(0) - sizes, rewards[order]
    if kind == "lower":
        place = (K * sizes.double() - 1e-9).ceil().long().clamp(min=1) - 1
        result[own] = ordered[start + place]
    else:
        position = K * (sizes - 1).double()
        below = position.floor().long()
        above = torch.minimum(below + 1, sizes - 1)
        low, high = ordered[start + below], ordered[start + above]
        result[own] = low + (position - below) * (high - low)
    return result


def deviations(rewards: torch.Tensor, ids: torch.Tensor, kind: str) -> torch.Tensor:
    """Standard deviation of each group's rewards, float64 [groups]: sample, population, or none (1).

    >>> deviations(torch.tensor([1.0, 0.0]).double(), torch.tensor([0, 0]), "population").tolist()
    [0.5]
    """
    groups = int(ids.max()) + 1 if len(ids) else 0
    one = torch.ones(groups, dtype=torch.float64, device=rewards.device)
    if kind == "none":
        return one
    size = torch.bincount(ids, minlength=groups).double()
    mean = torch.zeros_like(one).index_add_(0, ids, rewards) / size.clamp(min=1)
    square = torch.zeros_like(one).index_add_(0, ids, (rewards - mean[ids]).square())
    return (square / (size - float(kind == "sample")).clamp(min=1)).sqrt()
