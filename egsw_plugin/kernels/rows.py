"""What the response mask says about the rows of a batch, and sums over them. Shapes: a batch is [rows, tokens]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import compiled

if TYPE_CHECKING:
    from types import ModuleType

    from .loops import Layout


@dataclass(frozen=True)
class Rows:
    """The measured response mask; `mask` itself is [rows, tokens], of any dtype, a token being the policy's if not 0.

    count: number of policy tokens. width: position after the last of them, both int64 [rows]. They differ where a tool
    or an environment wrote tokens in the middle of the response.
    """

    mask: torch.Tensor
    count: torch.Tensor
    width: torch.Tensor

    @classmethod
    def measure(cls, response_mask: torch.Tensor) -> Rows:
        """Read the mask once.

        >>> rows = Rows.measure(torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]]))
        >>> rows.count.tolist(), rows.width.tolist()
        ([2, 2], [2, 3])
        """
        loops = compiled.loops_for(response_mask)
        if loops is None:
            position = torch.arange(1, response_mask.shape[1] + 1, device=response_mask.device)
            policy = response_mask.ne(0)
            width = (policy * position).amax(1) if len(position) else policy.sum(1)
            return cls(response_mask, policy.sum(1), width)
        mask = response_mask if response_mask.dtype == torch.int64 else response_mask.ne(0).view(torch.uint8)
        count, width = torch.empty(2, len(mask), dtype=torch.int64)
        loops.measure_mask(compiled.flat(mask), mask.shape[1], count.numpy(), width.numpy())
        return cls(response_mask, count, width)

    @cached_property
    def broken(self) -> bool:
        """Whether a row has tokens of a tool or an environment between its policy tokens."""
        return bool((self.width != self.count).any())

    @cached_property
    def policy(self) -> torch.Tensor:
        """True at policy tokens, bool [rows, tokens]."""
        return self.mask.ne(0)

    @cached_property
    def order(self) -> torch.Tensor:
        """Positions of each row's policy tokens in order, then those of the others, int64 [rows, tokens]."""
        return self.policy.logical_not().byte().argsort(dim=1, stable=True)

    def columns(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` with each row's policy tokens in front, so that the t-th ones of all rows are in one column, and 0
        after them.

        >>> rows = Rows.measure(torch.tensor([[1, 0, 1], [0, 1, 0]]))
        >>> rows.columns(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        tensor([[1., 3., 0.],
                [5., 0., 0.]])
        """
        if self.broken:
            tensor = tensor.gather(1, self.order)
        return torch.where(self.alive, tensor, 0)

    def places(self, columns: torch.Tensor) -> torch.Tensor:
        """The inverse of `columns`, 0 where no policy token is."""
        columns = torch.where(self.alive, columns, 0)
        return torch.zeros_like(columns).scatter_(1, self.order, columns) if self.broken else columns

    @property
    def alive(self) -> torch.Tensor:
        """Which columns a row reaches, bool [rows, tokens]."""
        return torch.arange(self.mask.shape[1], device=self.count.device) < self.count.unsqueeze(1)

    def every(self, step: int, which: torch.Tensor, *tensors: torch.Tensor) -> tuple[Rows, list[torch.Tensor]]:
        """Every `step`-th policy token of the rows that `which` names, bool [rows]: their own rows, without holes, and
        the tensors at them. A tensor [rows, 1] keeps its one column.

        The first is in the middle of `step`, or of the longest row: the first tokens of a group have one entropy.

        >>> rows = Rows.measure(torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0]]))
        >>> some, [tensor] = rows.every(2, torch.tensor([True, False]), torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0] * 4]))
        >>> some.count.tolist(), tensor
        ([1], tensor([[2.]]))
        """
        count = self.count[which]
        longest = int(count.max())
        places = slice(min(step // 2, (longest - 1) // 2), longest, step)
        columns = torch.arange(longest, device=which.device)[places]
        some = Rows.measure(columns < count.unsqueeze(1))
        if self.broken:  # without sorting whole rows, most of which may be a tool's
            position = self.mask[which].nonzero()[:, 1]
            taken = (count.cumsum(0) - count).unsqueeze(1) + columns
            cells = which.nonzero(), position[taken.clamp(max=len(position) - 1)]

        def thin(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.shape[1] == 1:
                return tensor[which]
            return tensor[cells] if self.broken else tensor[:, places][which]

        return some, [thin(tensor) for tensor in tensors]

    def layout(self, loops: ModuleType, ids: torch.Tensor | None = None, which: torch.Tensor | None = None) -> Layout:
        """The rows that `which` names (bool [rows], None: those with policy tokens) as sets of equal `ids` (None: one
        set), for compiled loops."""
        members = (self.count > 0 if which is None else which).nonzero().squeeze(1)
        start = torch.tensor([0, len(members)])
        if ids is not None:
            key = ids[members]
            members = members[key.argsort(stable=True)]
            sizes = torch.bincount(key)
            start = torch.cat([start[:1], sizes[sizes > 0].cumsum(0)])
        arrays = (x.numpy() for x in (members, start, self.count))
        layout: Layout = loops.Layout(*arrays, self._holes, self.mask.shape[1])
        return layout

    @cached_property
    def _holes(self) -> np.ndarray:
        return compiled.flat(self.policy.view(torch.uint8)) if self.broken else np.empty(0, np.uint8)


def row_sums(values: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Sum over the policy tokens of each row, float64 [rows].

    >>> row_sums(torch.tensor([[1.0, 2.0, torch.nan]]), Rows.measure(torch.tensor([[1, 1, 0]])))
    tensor([3.], dtype=torch.float64)
    """
    return clamped_sums(values, rows)[0]


def clamped_sums(
    values: torch.Tensor,
    rows: Rows,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    which: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over the policy tokens of each row, or of those that `which` names (bool [rows]) and 0 for the others.

    Returns: those of the values; those of the values clamped to `bounds`, float64 [rows] both; how many tokens the
    bounds change, int64 [rows].

    >>> clamped_sums(torch.tensor([[1.0, 2.0, torch.nan]]), Rows.measure(torch.tensor([[1, 1, 0]])), (0.0, 1.5))
    (tensor([3.], dtype=torch.float64), tensor([2.5000], dtype=torch.float64), tensor([1]))
    """
    loops = compiled.loops_for(values)
    if loops is None:
        alive = rows.policy if which is None else rows.policy & which.unsqueeze(1)
        values = torch.where(alive, values.double(), 0)
        held = torch.where(alive, values.clamp(*bounds), 0)
        return values.sum(1), held.sum(1), held.ne(values).sum(1)
    layout, source = rows.layout(loops, which=which), compiled.flat(values)
    total, clamped = torch.zeros(2, len(rows.count), dtype=torch.float64)
    changed = torch.zeros_like(rows.count)
    work, _ = loops.work_space(layout, source.dtype, 1)
    low, high = (source.dtype.type(bound) for bound in bounds)
    loops.row_sums(source, layout, low, high, work, total.numpy(), clamped.numpy(), changed.numpy())
    return total, clamped, changed


def spread_rows(rows: Rows, values: torch.Tensor) -> torch.Tensor:
    """One value a response [rows] on all of its policy tokens, 0 elsewhere, [rows, tokens].

    >>> spread_rows(Rows.measure(torch.tensor([[1, 0, 1], [0, 0, 0]])), torch.tensor([2.0, 3.0]))
    tensor([[2., 0., 2.],
            [0., 0., 0.]])
    """
    loops = compiled.loops_for(values)
    if loops is None or values.dtype not in compiled.DTYPES:
        return torch.where(rows.policy, values.unsqueeze(1), 0)
    out = compiled.zeros(rows.mask.shape, values.dtype)
    loops.spread(compiled.flat(values), rows.layout(loops), compiled.flat(out))
    return out
