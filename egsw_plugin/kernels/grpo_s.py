"""GRPO-S (arXiv 2508.04349): one reward a response, shaped by its mean entropy, normalised for each polarity.

    r+_i =  beta1 + beta2 * Hm_i * n / sum_k Hm_k                over the n successes of the group
    r-_j = -beta1 - beta2 * (1 / Hm_j) * m / sum_k (1 / Hm_k)    over its m failures,       Hm_k = mean_t H[k, t]

Shape letters: R rows, T tokens.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import hardshrink

from ..errors import TensorError
from .groups import Groups, participants
from .normalization import ROUNDING, Normalization, normalize
from .rows import Rows, spread_rows
from .shaped import Shaped
from .shaping import Shaping, entropy_sums, entropy_weights, overlong_penalty
from .tiles import UNCHANGED, Tally


def grpo_s(
    entropy: torch.Tensor,
    rows: Rows,
    group_ids: torch.Tensor,
    success: torch.Tensor,
    shaping: Shaping,
    normalization: Normalization,
    *,
    entropy_scope: str = "group",
    norm_scope: str = "group",
    unmixed: str = "drop",
    gamma1: float | None = None,
) -> Shaped:
    """Advantages, one value a response, spread over its policy tokens.

    Args: as of `gtpo`; sums, mean and standard deviation run over responses instead of tokens.

    Raises:
        TensorError: an entropy of a policy token that is not finite.

    Source: arXiv 2508.04349 v5 and v6, the GRPO-S reward and advantage.

    >>> rows, H = Rows.measure(torch.tensor([[1, 1], [1, 0], [1, 0]])), torch.tensor([[0.9, 0.9], [0.3, 0], [0.5, 0]])
    >>> ids, success = torch.tensor([0, 0, 0]), torch.tensor([True, True, False])
    >>> grpo_s(H, rows, ids, success, Shaping(), Normalization(norm_set="none")).values
    tensor([[ 1.1500,  1.1500],
            [ 1.0500,  0.0000],
            [-1.1000, -0.0000]])
    """
    dtype = torch.promote_types(entropy.dtype, torch.float32)
    # A set without zeros or the other polarity may spread by no more than the rounding of float32.
    exact = normalization.norm_set == "own_set" or unmixed == "keep"
    taking_part = participants(rows, group_ids, success, unmixed)
    tally = Tally(rows)
    tally.entropy_total, clamped, clipped = entropy_sums(entropy, rows, torch.float64 if exact else dtype, shaping.clip)
    if not bool(tally.entropy_total.isfinite().all()):
        tally.entropy_total, clamped, clipped = entropy_sums(entropy, rows, torch.float64, shaping.clip)
    if not bool(tally.entropy_total.isfinite().all()):
        raise TensorError("the entropy of a policy token is not finite")
    mean = clamped / rows.count.clamp(min=1)
    entries, slope = torch.zeros_like(mean), torch.zeros_like(mean)
    ids = torch.zeros_like(group_ids) if entropy_scope == "batch" else group_ids
    for polarity in (True, False):
        if not polarity and shaping.failure == "zero":
            continue
        slope.masked_fill_(success == polarity, shaping.side(polarity)[1])
        for members, count in Groups.of(ids, taking_part & (success == polarity), rows.count).classes:
            there, alive = members.clamp(max=len(mean) - 1), count.clamp(max=1).double()
            part = mean[there] * alive
            weights = entropy_weights(part, alive, inverse=not polarity, mean=shaping.mean, floor=shaping.floor)
            tally.share(weights.sum(1), weights.square().sum(1), alive.sum(1))
            tally.range(weights, weights - alive)
            entries[members[count > 0]] = weights[count > 0] - 1
    if not (math.isfinite(tally.share_total) and bool(entries.isfinite().all())):
        raise TensorError("the mean entropies of the responses lie too far apart to compare")
    tally.changed = rows.count * (entries.abs() * slope.ne(0) > UNCHANGED)
    entries = hardshrink(entries, ROUNDING) * slope
    level = shaping.levels(success)
    penalised = torch.zeros_like(success)
    if gamma1 is not None:
        penalty = overlong_penalty(rows.count, success, group_ids, taking_part, gamma1)
        level, penalised = level + penalty, penalty < 0
    scale, offset = normalize(
        normalization,
        level,
        taking_part,
        entries,
        entries.square(),
        success,
        torch.zeros_like(group_ids) if norm_scope == "batch" else group_ids,
        taking_part,
    )
    advantage = entries * scale + offset
    values = spread_rows(rows, advantage.to(dtype))
    negative, positive = rows.count * (advantage < 0), rows.count * (advantage > 0)
    return Shaped(values, taking_part, tally, negative, positive, clipped, penalised)
