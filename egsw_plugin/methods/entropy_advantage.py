"""A bonus for uncertain tokens, bounded by the advantage itself (arXiv 2506.14758)."""

from __future__ import annotations

import dataclasses

import torch

from .. import measure
from ..options import documented, option
from ..options.checks import in_range
from . import uncertainty
from .interface import Batch, Change, Requirements, Transform


@documented
@dataclasses.dataclass(frozen=True)
class EntropyAdvantageOptions(uncertainty.UncertaintyOptions):
    """Options of the entropy advantage (arXiv 2506.14758), section ``algorithm.credit.entropy_advantage``."""

    alpha: float = option(
        0.4, in_range(0, 1e6, inclusive=True), "weight of the entropy (nats)", "alpha", "0.4 GRPO, 0.1 PPO"
    )
    kappa: float = option(
        2.0,
        in_range(1, 1e6, inclusive=True),
        "the bonus is at most |A| / kappa; above 1 no sign flips (1 in one public port, 5 in another)",
        "kappa",
        "2",
    )
    entropy: str = uncertainty.kind(paper="full, of the current policy")


class EntropyAdvantage(Transform[EntropyAdvantageOptions]):
    """Adds to each advantage its token's entropy times alpha, but at most a part of the advantage's size.

    The paper takes the current policy's entropy, which the old policy's is in the first mini-batch of a step. An
    entropy below 0 (rounding) counts as 0.

    Metrics: `changed/mean` and `distance/mean`; `at_cap/mean`, the share of policy tokens whose bonus is |A| / kappa.

    >>> import torch
    >>> A, H = torch.tensor([[1.0, -1.0, -1.0]]), torch.tensor([[0.5, 0.5, 3.0]])
    >>> A + torch.minimum(0.4 * H, A.abs() / 2)
    tensor([[ 1.2000, -0.8000, -0.5000]])
    """

    name = "entropy_advantage"
    options_type = EntropyAdvantageOptions
    source = "arXiv 2506.14758"
    formula = "A + min(alpha * H, |A| / kappa)"
    favours = "uncertain tokens: more credit in successes, less blame in failures"
    identity = {"alpha": 0.0}
    cost = "one pass over the batch"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: EntropyAdvantageOptions) -> Requirements:
        """The entropy, or what stands in for it."""
        return Requirements(
            **uncertainty.needs(options.entropy),
            per_token=True,
            direction=1,
        )

    def apply(self, options: EntropyAdvantageOptions, batch: Batch) -> Change:
        """Add the bonus."""
        bonus = options.alpha * batch.uncertainty(options.entropy).clamp(min=0)
        cap = batch.advantages.abs() / options.kappa
        advantages = batch.advantages + torch.minimum(bonus, cap)
        at_cap = measure.share_of(batch, (bonus >= cap) & (cap > 0))
        return Change(advantages, metrics=measure.effect(batch, advantages) | {"at_cap/mean": at_cap})
