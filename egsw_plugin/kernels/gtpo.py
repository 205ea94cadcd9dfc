"""GTPO (arXiv 2508.04349): token rewards shaped by entropy, normalised for each polarity.

    r+[i, t] =  alpha1 + alpha2 * H[i, t] * d_t / sum_k H[k, t]                over the d_t successes alive at t
    r-[j, t] = -alpha1 - alpha2 * (1 / H[j, t]) * h_t / sum_k (1 / H[k, t])    over the h_t failures alive at t

Not the methods of the same name of arXiv 2508.03772 and 2511.14846. Shape letters: R rows, T tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import TensorError
from . import compiled
from .groups import participants
from .normalization import ROUNDING, Normalization, normalize
from .rows import Rows, clamped_sums
from .shaping import Shaped, Shaping, entropy_weights, overlong_penalty
from .tally import UNCHANGED, Tally

if TYPE_CHECKING:
    from types import ModuleType

    from .loops import Entries, Layout


def gtpo(
    entropy: torch.Tensor,
    rows: Rows,
    group_ids: torch.Tensor,
    success: torch.Tensor,
    shaping: Shaping,
    normalization: Normalization,
    *,
    entropy_scope: str = "group",
    norm_scope: str = "batch",
    unmixed: str = "drop",
    gamma1: float | None = None,
) -> Shaped:
    """Advantages of each policy token.

    Args:
        entropy: H [R, T] in nats, floating point; computed in at least float32.
        rows: the measured response mask [R, T]; t counts policy tokens.
        group_ids: dense group ids, int64 [R].
        success: bool [R].
        entropy_scope, norm_scope: group or batch, the sets of the sums over k and of mean and standard deviation.
        unmixed: drop groups without a success or without a failure, or keep them.
        gamma1: for the length penalty GROP, which is added to r+ and r-; None for none.

    Raises:
        TensorError: an entropy of a policy token that is not finite.

    Source: arXiv 2508.04349 v5 and v6, the GTPO reward and advantage.

    Equal entropies leave what GRPO gives:

    >>> rows, H = Rows.measure(torch.ones(2, 2, dtype=torch.int64)), torch.full((2, 2), 0.5)
    >>> ids, success = torch.tensor([0, 0]), torch.tensor([True, False])
    >>> gtpo(H, rows, ids, success, Shaping(), Normalization(eps=0)).values
    tensor([[ 1.,  1.],
            [-1., -1.]])
    """
    result_dtype = torch.promote_types(entropy.dtype, torch.float32)
    # A set without zeros or the other polarity may spread by no more than the rounding of float32, and one that takes
    # a part of a column may hold nothing but small weights.
    parts = entropy_scope == "batch" and norm_scope == "group"
    dtype = torch.float64 if parts or normalization.norm_set == "own_set" or unmixed == "keep" else result_dtype
    taking_part = participants(rows, group_ids, success, unmixed)
    ids = torch.zeros_like(group_ids) if entropy_scope == "batch" else group_ids
    sets = _Sets(entropy, rows, 2 * ids + success, success, taking_part, shaping)
    entries = sets.measure(_Entries(dtype))
    if not entries.finite():
        # H and 1/H far outside what entropies are: the weights do not depend on H's unit, so take a smaller one.
        entries = sets.measure(_Entries(torch.float64, unit=2.0**-64))
    if not entries.finite():
        raise TensorError("the entropy of a policy token is not finite, or too large to compare with the others")
    slope = torch.full_like(entries.total, shaping.side(False)[1]).masked_fill_(success, shaping.side(True)[1])
    level, penalised = shaping.levels(success), torch.zeros_like(success)
    if gamma1 is not None:
        penalty = overlong_penalty(rows.count, success, group_ids, taking_part, gamma1)
        level, penalised = level + penalty, penalty < 0
    scopes = torch.zeros_like(group_ids) if norm_scope == "batch" else group_ids
    normal = partial(normalize, normalization, level, rows.count)
    scale, offset = normal(entries.total * slope, entries.square * slope.square(), success, scopes, taking_part)
    zeros = torch.zeros_like(entries.total)
    _, equal = normal(zeros, zeros, success, scopes, taking_part)
    entries.tally.changed *= slope != 0
    if not bool(slope.any()):
        entries.tally.unused()
    values, negative, positive, moved, size = sets.write(entries, slope * scale, offset, equal, result_dtype)
    sums = (moved, size, equal.abs() * rows.count)
    return Shaped(values, taking_part, entries.tally, negative, positive, entries.clipped, penalised, *sums)


@dataclass
class _Entries:
    """e = w - 1 of each policy token of the sets, as computed in a dtype with entropies in `unit` nats.

    In float64, one no further from 0 than rounding is 0. total, square: the sums over each row of e and e^2, float64
    [R]. clipped: tokens that the shaping's clip changes, int64 [R].
    """

    dtype: torch.dtype
    unit: float = 1.0
    tally: Tally = field(init=False)
    total: torch.Tensor = field(init=False)
    square: torch.Tensor = field(init=False)
    clipped: torch.Tensor = field(init=False)

    @property
    def rounding(self) -> float:
        return ROUNDING if self.dtype == torch.float64 else 0.0

    def finite(self) -> bool:
        """Whether all weights are."""
        sums = (self.square, self.tally.entropy_total, torch.from_numpy(self.tally.numbers[:2]))
        return all(bool(s.isfinite().all()) for s in sums)


@dataclass(frozen=True)
class _Sets:
    """The rows whose entropies are compared: those that take part, by their key [R], which says success and group."""

    entropy: torch.Tensor
    rows: Rows
    key: torch.Tensor
    success: torch.Tensor
    taking_part: torch.Tensor
    shaping: Shaping

    def measure(self, entries: _Entries) -> _Entries:
        """Fill in the sums."""
        count, clip = self.rows.count, self.shaping.clip or (-math.inf, math.inf)
        entries.tally, entries.clipped = Tally.of(count), torch.zeros_like(count)
        entries.total, entries.square = torch.zeros(2, len(count), dtype=torch.float64, device=count.device)
        weighed = self.taking_part
        if self.shaping.failure == "zero":  # failures have no weights
            weighed = weighed & self.success
        tally = entries.tally
        if (loops := compiled.loops_for(self.entropy)) is None:
            self._measure(entries, weighed)
        else:
            loops.measure_entries(
                *self._arguments(loops, entries, weighed),
                tally.entropy_total.numpy(),
                entries.total.numpy(),
                entries.square.numpy(),
                tally.changed.numpy(),
                entries.clipped.numpy(),
                tally.numbers,
            )
        if not bool(weighed.all()):
            others = clamped_sums(self.entropy, self.rows, clip, ~weighed)
            tally.entropy_total += others[0]
            entries.clipped += others[2]
        return entries

    def write(
        self, entries: _Entries, scale: torch.Tensor, offset: torch.Tensor, equal: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """A = e * scale + offset, given both [R], at policy tokens, [R, T] of `dtype`; how many of a row are below and
        above 0, int64 [R]; the sums of |A - equal| and |A| over a row, float64 [R]."""
        scale, offset, equal = (x.to(entries.dtype) for x in (scale, offset, equal))
        if (loops := compiled.loops_for(self.entropy)) is None:
            alive = self.rows.alive & self.taking_part.unsqueeze(1)
            values = torch.where(alive, self._entries(entries) * scale.unsqueeze(1) + offset.unsqueeze(1), 0)
            moved = torch.where(alive, values - equal.unsqueeze(1), 0).abs().sum(1, dtype=torch.float64)
            size = values.abs().sum(1, dtype=torch.float64)
            return self.rows.places(values).to(dtype), (values < 0).sum(1), (values > 0).sum(1), moved, size
        values = compiled.zeros(self.rows.mask.shape, dtype)
        negative, positive = self.rows.count.new_zeros(2, len(scale))
        moved, size = torch.zeros(2, len(scale), dtype=torch.float64)
        entropy, layout, success, options, work, columns = self._arguments(loops, entries, self.taking_part)
        loops.write_entries(
            entropy,
            layout,
            success,
            options,
            scale.numpy(),
            offset.numpy(),
            equal.numpy(),
            work,
            columns,
            compiled.flat(values),
            negative.numpy(),
            positive.numpy(),
            moved.numpy(),
            size.numpy(),
        )
        return values, negative, positive, moved, size

    def _arguments(
        self, loops: ModuleType, entries: _Entries, which: torch.Tensor
    ) -> tuple[np.ndarray, Layout, np.ndarray, Entries, np.ndarray, np.ndarray]:
        """What both loops take first."""
        layout, number = self.rows.layout(loops, self.key, which), compiled.DTYPES[entries.dtype]
        low, high = self.shaping.clip or (-math.inf, math.inf)
        options = loops.Entries(
            low=number(low),
            high=number(high),
            unit=number(entries.unit),
            floor=number(self.shaping.floor * entries.unit),
            geometric=self.shaping.mean == "geometric",
            rounding=number(entries.rounding),
            one=number(1),
            unchanged=number(UNCHANGED),
        )
        work, columns = loops.work_space(layout, number, 1)
        return compiled.flat(self.entropy), layout, self.success.numpy(), options, work, columns

    def _measure(self, entries: _Entries, weighed: torch.Tensor) -> None:
        """The sums in torch."""
        e, alive = self._entries(entries), self.rows.alive & weighed.unsqueeze(1)
        e = torch.where(alive, e, 0)
        entries.tally.add(torch.where(alive, e + 1, 0), alive, self.key, int(self.key.max()) + 1 if len(e) else 0)
        entries.tally.changed = (e.abs() > UNCHANGED).sum(1)
        entries.total, entries.square = e.sum(1, dtype=torch.float64), e.square().sum(1, dtype=torch.float64)
        bounds = self.shaping.clip or (-math.inf, math.inf)
        entries.tally.entropy_total, _, entries.clipped = clamped_sums(self.entropy, self.rows, bounds, weighed)

    def _entries(self, entries: _Entries) -> torch.Tensor:
        """e in torch, the rows' policy tokens in front, [R, T]."""
        entropy = self.rows.columns(self.entropy).to(entries.dtype)
        if self.shaping.clip is not None:
            entropy = entropy.clamp(*self.shaping.clip)
        alive, unit = self.rows.alive & self.taking_part.unsqueeze(1), entries.unit
        floor, mean = self.shaping.floor * unit, self.shaping.mean
        weights = entropy_weights(entropy * unit, alive, self.key, self.success, mean=mean, floor=floor)
        e = torch.where(alive, weights - 1, 0)
        return torch.where(e.abs() <= entries.rounding, 0, e) if entries.rounding else e
