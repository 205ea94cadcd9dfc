"""What a method is: a name, a class of options, and a function from a batch to advantages, weights and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..kernels.rows import Rows


@dataclass(frozen=True)
class Success:
    """What makes a response a success: a field of reward_extra_info, or (None) the score, is above the threshold."""

    field: str | None = None
    threshold: float = 0.5


@dataclass(frozen=True)
class Batch:
    """The tensors of one advantage step, all [rows, tokens] unless said otherwise.

    advantages: the base estimator's, [rows, 1] if it has one a response, or None for a method without a base. rows: the
    measured response mask. group_ids: dense, int64 [rows]. success: bool [rows]. outcome: [rows], the sum of the
    token-level rewards, which GRPO would compare. tensors: what `Method.needs` named (entropy in nats,
    log-probabilities in nats).
    """

    advantages: torch.Tensor | None
    rows: Rows
    group_ids: torch.Tensor
    success: torch.Tensor
    outcome: torch.Tensor
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a method gives back: advantages [rows, tokens], weights for the policy loss or None, metrics.

    weigh_kl: the weights are for the KL loss, too.
    """

    advantages: torch.Tensor
    weights: torch.Tensor | None
    metrics: dict[str, float]
    weigh_kl: bool = False


class Method(Protocol):
    """A credit weighting that verl knows under `name`."""

    name: str
    options_type: type

    def base(self, options: Any) -> str | None:
        """Name of the estimator that supplies the advantages to be weighted, or None."""

    def needs(self, options: Any) -> tuple[str, ...]:
        """Names of the per-token tensors that the method cannot do without."""

    def success(self, options: Any) -> Success:
        """What makes a response a success."""

    def apply(self, options: Any, batch: Batch) -> Outcome:
        """Compute advantages, weights and metrics."""
