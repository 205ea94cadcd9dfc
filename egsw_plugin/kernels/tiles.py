"""Groups in tiles: read, weighed, measured and written while they are in the processor's caches.

Shape letters: R rows, T tokens; in a tile N groups of up to G rows with C columns. Column t is the t-th policy token of
a response.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .rows import Rows, keep

UNCHANGED = 1e-6  # a weight closer to 1 than this is 1 up to rounding
FAR = 1e30  # beyond any weight


@dataclass(frozen=True)
class Tile:
    """Some columns of some groups.

    members: row numbers, int64 [N, G], and `rows` where a group has no more members. columns: of a tensor [R, T].
    alive: 1 where a response has a policy token, else 0, [N, G, C], of the dtype to compute in.
    """

    members: torch.Tensor
    rows: int
    columns: slice
    alive: torch.Tensor

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy [N, G, C] of the part of `tensor`, [R, T] or with a spare row of zeros [R + 1, T]; where nobody is
        alive it is anything."""
        index = self._existing() if len(tensor) == self.rows else self.members.flatten()
        part = tensor[:, self.columns].index_select(0, index)
        return part.to(self.alive.dtype).view_as(self.alive)

    def read(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy [N, G, C] of `tensor`'s part, with 0 where nobody is alive; and its sums [N, G]."""
        return keep(self.gather(tensor), self.alive)

    def of_rows(self, values: torch.Tensor) -> torch.Tensor:
        """`values` [R] of this tile's rows, [N, G, 1]; anything where there is no member."""
        return values[self.members.clamp(max=self.rows - 1)].unsqueeze(-1)

    def write(self, out: torch.Tensor, values: torch.Tensor) -> None:
        """Put [N, G, C], zero where nobody is alive, into its place in `out` [R + 1, T], whose last row is spare."""
        out[:, self.columns].index_copy_(0, self.members.flatten(), values.to(out.dtype).flatten(0, 1))

    def add(self, total: torch.Tensor, part: torch.Tensor) -> None:
        """Add [N, G], zero where there is no member, to its place in `total` [R]."""
        total.index_add_(0, self._existing(), part.flatten().to(total.dtype))

    def _existing(self) -> torch.Tensor:
        return self.members.flatten().clamp(max=self.rows - 1)


class Tally:
    """What diagnostics need of weights, gathered tile by tile.

    changed: policy tokens whose weight is not 1, int64 [R]. entropy_total: nats, summed over policy tokens, float64
    [R]. share_total: sum over columns of (sum w)^2 / sum w^2 / number alive. columns: their number. weight_max,
    weight_min: over all policy tokens (0 and 0 if there are none).
    """

    def __init__(self, rows: Rows):
        self.changed = torch.zeros_like(rows.count)
        self.entropy_total = torch.zeros_like(rows.count, dtype=torch.float64)
        self.share_total, self.columns = 0.0, 0
        self._max, self._min = -math.inf, math.inf

    @property
    def weight_max(self) -> float:
        return self._max if self.columns else 0.0

    @property
    def weight_min(self) -> float:
        return self._min if self.columns else 0.0

    def share(self, total: torch.Tensor, squares: torch.Tensor, number: torch.Tensor) -> None:
        """Add columns [...], given the sums of w and w^2 over the responses alive in them, and how many these are."""
        somebody = number.clamp(max=1)
        squares = (squares * number).clamp_min_(torch.finfo(squares.dtype).tiny)  # where nobody is alive, 0 / 0 is 0
        self.share_total += float((total.square() / squares).sum(dtype=torch.float64))
        self.columns += int(somebody.sum(dtype=torch.float64))

    def range(self, weights: torch.Tensor, difference: torch.Tensor) -> float:
        """Add weights [..., C], 0 where not alive, given their difference from 1, 0 where not alive; return the least.

        The least is read off the difference, where the dead are 1: right up to rounding if a weight is 1 or less.
        """
        least = 1 + float(difference.amin())
        self._max = max(self._max, float(weights.amax()))
        self._min = min(self._min, least)
        return least


def count_beyond(values: torch.Tensor, bound: float) -> torch.Tensor:
    """How many of `values` [..., C] are further than `bound` from 0, int64 [...].

    >>> count_beyond(torch.tensor([[0.5, -3.0, 2.0]]), 1.0)
    tensor([2])
    """
    return torch.nn.functional.hardshrink(values, bound).sign_().abs_().sum(-1).long()


def count_signs(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many of `values` [..., C] are below 0 and above 0, int64 [...] each.

    >>> count_signs(torch.tensor([[0.5, -3.0, 2.0, 0.0]]))
    (tensor([1]), tensor([2]))
    """
    sign = values.sign()
    balance = sign.sum(-1)
    number = sign.abs_().sum(-1)
    return ((number - balance) / 2).long(), ((number + balance) / 2).long()
