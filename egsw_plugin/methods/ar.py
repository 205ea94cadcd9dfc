"""Advantages reweighted by the token's probability (AR, arXiv 2505.12929)."""

from __future__ import annotations

import dataclasses

from .. import measure
from ..kernels.rows import row_sums
from ..options import Options, documented, option
from ..options.checks import in_range
from .interface import Batch, Change, Requirements, Transform


@documented
@dataclasses.dataclass(frozen=True)
class AROptions(Options):
    """Options of AR (arXiv 2505.12929), section ``algorithm.credit.ar``."""

    alpha: float = option(
        0.2,
        in_range(0, 1, inclusive=True),
        "weight of the probability in the factor, which lies between 1 - alpha and 1",
        "alpha",
        "0.2 alone, 0.3 with Lopti (two passes of the update, which this plugin does not have)",
    )


class AR(Transform[AROptions]):
    """Multiplies each advantage by a factor that grows with the token's probability.

    Unlikely tokens, whose gradients are the largest, count less. The probability is the old policy's.

    Metrics: `changed/mean` and `distance/mean`; `factor/mean`, `factor/min`, over policy tokens.

    >>> import torch
    >>> A, l = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 1.0]]).log()
    >>> A * (0.2 * l.exp() + (1 - 0.2))
    tensor([[ 0.9000, -1.0000]])
    """

    name = "ar"
    options_type = AROptions
    title = "AR, advantage reweighting"
    source = "arXiv 2505.12929"
    formula = "A * (alpha * pi_old + 1 - alpha)"
    favours = "likely tokens: rare ones get less credit and less blame"
    identity = {"alpha": 0.0}
    cost = "one pass over the batch"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: AROptions) -> Requirements:
        """Log-probabilities."""
        return Requirements(tensors=("old_log_probs",), per_token=True, direction=-1)

    def apply(self, options: AROptions, batch: Batch) -> Change:
        """Multiply by the factor."""
        factor = options.alpha * batch.old_log_probs.exp() + (1 - options.alpha)
        advantages = batch.advantages * factor
        metrics = measure.effect(batch, advantages)
        if real := int(batch.rows.count.sum()):
            total = float(row_sums(factor, batch.rows).sum())
            metrics |= {"factor/mean": total / real, "factor/min": float(factor[batch.mask].min())}
        return Change(advantages, metrics=metrics)
