"""What a method is: a name, a class of options, and a function from a batch to advantages, weights and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..kernels.groups import Rows


@dataclass(frozen=True)
class Batch:
    """The tensors of one advantage step, all [rows, tokens] unless said otherwise.

    advantages: the base estimator's. rows: the measured response mask. group_ids: dense, int64 [rows].
    success: bool [rows]. tensors: what `Method.needs` named (entropy in nats, log-probabilities in nats).
    """

    advantages: torch.Tensor
    rows: Rows
    group_ids: torch.Tensor
    success: torch.Tensor
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a method gives back: advantages [rows, tokens], weights for the policy loss or None, metrics."""

    advantages: torch.Tensor
    weights: torch.Tensor | None
    metrics: dict[str, float]


class Method(Protocol):
    """A credit weighting that verl knows under `name`."""

    name: str
    options_type: type

    def needs(self, options: Any) -> tuple[str, ...]:
        """Names of the per-token tensors that the method cannot do without."""

    def apply(self, options: Any, batch: Batch) -> Outcome:
        """Compute advantages, weights and metrics."""
