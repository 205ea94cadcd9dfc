"""What diagnostics need of weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

UNCHANGED = 1e-6  # a weight closer to 1 than this is 1 up to rounding


@dataclass
class Tally:
    """Of weights that are compared in columns: the t-th policy tokens of a set's responses, or its responses.

    changed: policy tokens whose weight is not 1, int64 [R]. entropy_total: nats, summed over policy tokens, float64
    [R]. share_total: sum over columns of (sum w)^2 / sum w^2 / number alive. columns: their number. weight_max,
    weight_min: over all policy tokens (0 and 0 if there are none).
    """

    changed: torch.Tensor
    entropy_total: torch.Tensor
    numbers: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, -math.inf, math.inf]))

    @classmethod
    def of(cls, count: torch.Tensor) -> Tally:
        """An empty one for rows with these numbers of policy tokens, int64 [R]."""
        return cls(torch.zeros_like(count), torch.zeros_like(count, dtype=torch.float64))

    @property
    def share_total(self) -> float:
        return float(self.numbers[0])

    @property
    def columns(self) -> int:
        return int(self.numbers[1])

    @property
    def weight_max(self) -> float:
        return float(self.numbers[2]) if self.columns else 0.0

    @property
    def weight_min(self) -> float:
        return float(self.numbers[3]) if self.columns else 0.0

    def unused(self) -> None:
        """No coefficient gives the weights that were added a part in anything: as if each were 1."""
        self.changed = torch.zeros_like(self.changed)
        self.numbers[0] = self.numbers[1]
        if self.columns:
            self.numbers[2:] = 1.0

    def add(self, weights: torch.Tensor, alive: torch.Tensor, key: torch.Tensor, sets: int) -> None:
        """Add the weights [R, C] of the rows that are alive in each column, bool [R, C]; a row's set is key, [R]."""
        weights = torch.where(alive, weights, 0)
        total, squares, number = (set_sums(x, key, sets) for x in (weights, weights.square(), alive.to(weights.dtype)))
        there = number > 0
        self.numbers[0] += float((total.square() / (squares * number))[there].sum(dtype=torch.float64))
        self.numbers[1] += int(there.sum())
        if bool(there.any()):
            self.numbers[2] = max(self.numbers[2], float(torch.where(alive, weights, -math.inf).amax()))
            self.numbers[3] = min(self.numbers[3], float(torch.where(alive, weights, math.inf).amin()))


def set_sums(values: torch.Tensor, key: torch.Tensor, sets: int) -> torch.Tensor:
    """Sums over the rows of each set, [sets, ...], of `values` [R, ...] whose set is `key`, int64 [R].

    >>> set_sums(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([0, 1, 0]), 2)
    tensor([[6., 8.],
            [3., 4.]])
    """
    return values.new_zeros(sets, *values.shape[1:]).index_add_(0, key, values)
