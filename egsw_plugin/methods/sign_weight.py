"""Positive and negative samples with weights of their own: PSR, NSR, W-REINFORCE (arXiv 2506.01347)."""

from __future__ import annotations

import dataclasses

import torch

from .. import measure
from ..options import Options, documented, option
from ..options.checks import in_range
from .interface import Batch, Change, Transform

WEIGHT = in_range(0, 1e6, inclusive=True)


@documented
@dataclasses.dataclass(frozen=True)
class SignWeightOptions(Options):
    """Options of the sign weight (arXiv 2506.01347), section ``algorithm.credit.sign_weight``."""

    positive: float = option(0.1, WEIGHT, "factor of advantages above 0", "lambda", "0.1")
    negative: float = option(1.0, WEIGHT, "factor of advantages below 0", paper="1")

    def cautions(self) -> list[str]:
        """Nothing left to learn from."""
        return ["positive=0 and negative=0 leave no advantage at all"] if self.positive == self.negative == 0 else []


class SignWeight(Transform[SignWeightOptions]):
    """Multiplies advantages above 0 by one factor and those below 0 by another.

    W-REINFORCE is positive=0.1 over the base success_sign; PSR is negative=0, NSR is positive=0.

    Metrics: `changed/mean` and `distance/mean`; `above_zero/mean`, the share of policy tokens whose advantage was above
    0.

    >>> import torch
    >>> A = torch.tensor([[1.0], [-1.0]])
    >>> torch.where(A > 0, 0.1, 1.0) * A
    tensor([[ 0.1000],
            [-1.0000]])
    """

    name = "sign_weight"
    options_type = SignWeightOptions
    source = "arXiv 2506.01347"
    formula = "A * positive where A > 0,  A * negative where A < 0"
    favours = "by default the failures, from which diversity is not lost"
    identity = {"positive": 1.0, "negative": 1.0}
    cost = "none to speak of"
    status = "loop, hand-worked numbers, invariances"

    def apply(self, options: SignWeightOptions, batch: Batch) -> Change:
        """Weigh by sign."""
        above = batch.advantages > 0
        advantages = batch.advantages * torch.where(above, options.positive, options.negative)
        metrics = measure.effect(batch, advantages) | {"above_zero/mean": measure.share_of(batch, above)}
        return Change(advantages, metrics=metrics)
