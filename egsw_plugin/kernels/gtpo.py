"""GTPO (arXiv 2508.04349): token rewards shaped by entropy, normalised for each polarity.

    r+[i, t] =  alpha1 + alpha2 * H[i, t] * d_t / sum_k H[k, t]                over the d_t successes alive at t
    r-[j, t] = -alpha1 - alpha2 * (1 / H[j, t]) * h_t / sum_k (1 / H[k, t])    over the h_t failures alive at t

Not the methods of the same name of arXiv 2508.03772 and 2511.14846. Shape letters: R rows, T tokens.
"""

from __future__ import annotations

import math

import torch

from ..errors import TensorError
from .groups import Block, Groups, Rows, participants
from .normalization import Normalization, normalize
from .shaped import Shaped, fill_rows
from .shaping import UNCHANGED, Shaping, entropy_sums, entropy_weights, overlong_penalty

ROUNDING = 1e-12  # a normalised advantage below it would be 0 in exact arithmetic


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
    dtype = torch.promote_types(entropy.dtype, torch.float32)
    if normalization.norm_set == "own_set" or unmixed == "keep":
        # A set without zeros or the other polarity may spread by no more than the rounding of float32.
        dtype = torch.float64
    taking_part = participants(rows, group_ids, success, unmixed)
    ids = torch.zeros_like(group_ids) if entropy_scope == "batch" else group_ids
    sums = _shape(entropy, rows, ids, success, taking_part, shaping, dtype, 1.0)
    if not sums.finite():
        # H and 1/H far outside what entropies are: the weights do not depend on H's unit, so take a smaller one.
        sums = _shape(entropy, rows, ids, success, taking_part, shaping, torch.float64, 2.0**-64)
    if not sums.finite():
        raise TensorError("the entropy of a policy token is not finite, or too large to compare with the others")
    level = shaping.levels(success)
    penalised = torch.zeros_like(success)
    if gamma1 is not None:
        penalty = overlong_penalty(rows.count, success, group_ids, taking_part, gamma1)
        level, penalised = level + penalty, penalty < 0
    scale, offset = normalize(
        normalization,
        level,
        rows.count,
        sums.total,
        sums.square,
        success,
        torch.zeros_like(group_ids) if norm_scope == "batch" else group_ids,
        taking_part,
    )
    exact = dtype == torch.float64 and normalization.norm_set != "none"
    negative, positive = fill_rows(sums.values, rows, scale, offset, tiny=ROUNDING if exact else 0.0)
    left_out, _, clipped = entropy_sums(entropy, rows, ~taking_part, sums.entropy.dtype, shaping.clip)
    return Shaped(
        values=sums.values.to(torch.promote_types(entropy.dtype, torch.float32)),
        taking_part=taking_part,
        changed=sums.changed,
        negative=negative,
        positive=positive,
        entropy_total=sums.entropy + left_out,
        clipped=sums.clipped + clipped,
        penalised=penalised,
        share_total=sums.share_total,
        columns=sums.columns,
        weight_max=sums.weight_max if sums.columns else 0.0,
        weight_min=sums.weight_min if sums.columns else 0.0,
    )


class _Sums:
    """What a pass over the entropy leaves: e = slope * w in `values`, and its sums over each row."""

    def __init__(self, shape: torch.Size, rows: Rows, dtype: torch.dtype):
        device = rows.count.device
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.total = torch.zeros(shape[0], dtype=torch.float64, device=device)
        self.square, self.entropy = self.total.clone(), self.total.clone()
        self.changed, self.clipped = torch.zeros_like(rows.count), torch.zeros_like(rows.count)
        self.share_total, self.columns = 0.0, 0
        self.weight_max, self.weight_min = -math.inf, math.inf

    def finite(self) -> bool:
        """Whether all weights are."""
        extremes = (self.weight_max, self.weight_min) if self.columns else ()
        sums = (self.square, self.entropy)
        return all(map(math.isfinite, (self.share_total, *extremes))) and all(bool(s.isfinite().all()) for s in sums)


def _shape(entropy, rows, ids, success, taking_part, shaping, dtype, unit) -> _Sums:
    sums = _Sums(entropy.shape, rows, dtype)
    for polarity in (True, False):
        slope = shaping.side(polarity)[1]
        cells = Groups.of(ids, taking_part & (success == polarity))
        for members in cells.blocks(entropy.shape[1]):
            block = Block((entropy,), rows, members, dtype)
            for columns in block.tiles():
                _shape_tile(block, columns, shaping, not polarity, slope, unit, sums)
    return sums


def _shape_tile(block: Block, columns: slice, shaping: Shaping, inverse: bool, slope: float, unit: float, sums: _Sums):
    alive = block.alive(columns)
    (part,) = block.read(columns)
    part.masked_fill_(~alive, 0)
    rows_of = block.flat
    sums.entropy.index_add_(0, rows_of, part.sum(-1).flatten().double())
    if shaping.clip is not None:
        held = part.clamp(*shaping.clip)
        sums.clipped.index_add_(0, rows_of, held.ne(part).logical_and_(alive).sum(-1).flatten())
        part = held
    if inverse and shaping.failure == "zero":
        return  # no weights
    part = part.mul_(unit) if unit != 1 else part
    weights = entropy_weights(part, alive, inverse=inverse, mean=shaping.mean, floor=shaping.floor * unit)
    squares = weights.square()
    number, total = alive.sum(1), weights.sum(1)
    seen = number > 0
    sums.share_total += float((total.square() / squares.sum(1) / number)[seen].double().sum())
    sums.columns += int(seen.sum())
    difference = torch.where(alive, weights, 1).sub_(1)
    low, high = difference.aminmax()
    sums.weight_max = max(sums.weight_max, 1 + float(high))
    sums.weight_min = min(sums.weight_min, 1 + float(low))
    if slope:
        sums.changed.index_add_(0, rows_of, difference.abs_().gt(UNCHANGED).sum(-1).flatten())
        sums.total.index_add_(0, rows_of, weights.sum(-1).flatten().double() * slope)
        sums.square.index_add_(0, rows_of, squares.sum(-1).flatten().double() * slope**2)
        block.write(sums.values, weights.mul_(slope), columns)
