"""GTPO (arXiv 2508.04349): token rewards shaped by entropy, normalised for each polarity.

    r+[i, t] =  alpha1 + alpha2 * H[i, t] * d_t / sum_k H[k, t]                over the d_t successes alive at t
    r-[j, t] = -alpha1 - alpha2 * (1 / H[j, t]) * h_t / sum_k (1 / H[k, t])    over the h_t failures alive at t

Not the methods of the same name of arXiv 2508.03772 and 2511.14846. Shape letters: R rows, T tokens.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import hardshrink

from ..errors import TensorError
from .groups import Groups, participants
from .normalization import ROUNDING, Normalization, normalize
from .rows import Rows, blank
from .shaped import Shaped, rescale
from .shaping import Shaping, entropy_sums, entropy_weights, overlong_penalty
from .tiles import UNCHANGED, Tally, Tile, count_beyond


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
    # Where its mean over a set is 0, as that of w - 1 over whole columns is, an entry keeps its precision in float32.
    values_dtype = dtype if parts or shaping.mean == "geometric" else result_dtype
    taking_part = participants(rows, group_ids, success, unmixed)
    ids = torch.zeros_like(group_ids) if entropy_scope == "batch" else group_ids
    arguments = (entropy, rows, ids, success, taking_part, shaping)
    sums = _shape(*arguments, dtype, values_dtype, 1.0)
    if not sums.finite():
        # H and 1/H far outside what entropies are: the weights do not depend on H's unit, so take a smaller one.
        sums = _shape(*arguments, torch.float64, torch.float64, 2.0**-64)
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
    negative, positive = rescale(sums.values, Groups.of(group_ids, taking_part, rows.count), offset, scale)
    values = rows.unpack(sums.values[:-1])
    if not bool(taking_part.all()):
        entropy_total, _, clipped = entropy_sums(entropy, rows, sums.dtype, shaping.clip, ~taking_part)
        sums.tally.entropy_total += entropy_total
        sums.clipped += clipped
    return Shaped(values.to(result_dtype), taking_part, sums.tally, negative, positive, sums.clipped, penalised)


class _Sums:
    """What a pass over the entropy in `dtype` leaves: e = slope * (w - 1) in `values`, and its sums over each row.

    values: [R + 1, packed tokens], the last row is spare. In float64, an e no further from 0 than rounding is made 0.
    """

    def __init__(self, rows: Rows, entropy: torch.Tensor, dtype: torch.dtype, values_dtype: torch.dtype):
        self.dtype = dtype
        self.values = blank(len(entropy) + 1, entropy.shape[1], entropy, values_dtype)
        self.tally = Tally(rows)
        self.total = torch.zeros_like(rows.count, dtype=torch.float64)
        self.square = self.total.clone()
        self.clipped = torch.zeros_like(rows.count)

    def finite(self) -> bool:
        """Whether all weights are."""
        tally = self.tally
        numbers = (tally.share_total, tally.weight_max, tally.weight_min)
        sums = (self.square, tally.entropy_total)
        return all(map(math.isfinite, numbers)) and all(bool(s.isfinite().all()) for s in sums)


def _shape(
    entropy: torch.Tensor,
    rows: Rows,
    ids: torch.Tensor,
    success: torch.Tensor,
    taking_part: torch.Tensor,
    shaping: Shaping,
    dtype: torch.dtype,
    values_dtype: torch.dtype,
    unit: float,
) -> _Sums:
    """Weigh the successes and the failures of each set of `ids`, with entropies in `unit` nats."""
    entropy = rows.pack(entropy)
    sums = _Sums(rows, entropy, dtype, values_dtype)
    for polarity in (True, False):
        for tile in Groups.of(ids, taking_part & (success == polarity), rows.count).tiles(dtype):
            _shape_tile(tile, entropy, shaping, polarity, unit, sums)
    return sums


def _shape_tile(tile: Tile, entropy: torch.Tensor, shaping: Shaping, success: bool, unit: float, sums: _Sums) -> None:
    tally, slope, alive = sums.tally, shaping.side(success)[1], tile.alive
    part, total = tile.read(entropy)
    tile.add(tally.entropy_total, total)
    if shaping.clip is not None:
        held = part.clamp(*shaping.clip).mul_(alive)
        tile.add(sums.clipped, count_beyond(part.sub_(held), 0.0))
        part = held
    if not success and shaping.failure == "zero":
        return  # no weights
    part = part.mul_(unit) if unit != 1 else part
    weights = entropy_weights(part, alive, inverse=not success, mean=shaping.mean, floor=shaping.floor * unit)
    entries = weights - alive
    tally.range(weights, entries)
    if sums.dtype == torch.float64:
        entries = hardshrink(entries, ROUNDING)
    excess, squares, number = entries.sum(1), entries.square(), alive.sum(1)
    tally.share(number + excess, squares.sum(1).add_(excess, alpha=2).add_(number), number)
    if slope:
        tile.add(tally.changed, count_beyond(entries, UNCHANGED))
        tile.add(sums.total, entries.sum(-1).double() * slope)
        tile.add(sums.square, squares.sum(-1).double() * slope**2)
        tile.write(sums.values, entries.mul_(slope))
