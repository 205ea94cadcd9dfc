"""GRPO-S (arXiv 2508.04349): one reward a response, shaped by its mean entropy, normalised for each polarity.

    r+_i =  beta1 + beta2 * Hm_i * n / sum_k Hm_k                over the n successes of the group
    r-_j = -beta1 - beta2 * (1 / Hm_j) * m / sum_k (1 / Hm_k)    over its m failures,       Hm_k = mean_t H[k, t]

Shape letters: R rows, T tokens.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch.nn.functional import hardshrink

from ..errors import TensorError
from .groups import participants
from .normalization import ROUNDING, Normalization, normalize
from .rows import Rows, clamped_sums
from .shaping import Shaped, Shaping, entropy_weights, overlong_penalty
from .tally import UNCHANGED, Tally


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
    """Advantages, one value a response [R, 1].

    Args: as of `gtpo`; sums, mean and standard deviation run over responses instead of tokens.

    Raises:
        TensorError: an entropy of a policy token that is not finite.

    Source: arXiv 2508.04349 v5 and v6, the GRPO-S reward and advantage.

    >>> rows, H = Rows.measure(torch.tensor([[1, 1], [1, 0], [1, 0]])), torch.tensor([[0.9, 0.9], [0.3, 0], [0.5, 0]])
    >>> ids, success = torch.tensor([0, 0, 0]), torch.tensor([True, True, False])
    >>> grpo_s(H, rows, ids, success, Shaping(), Normalization(norm_set="none")).values
    tensor([[ 1.1500],
            [ 1.0500],
            [-1.1000]])
    """
    dtype = torch.promote_types(entropy.dtype, torch.float32)
    taking_part = participants(rows, group_ids, success, unmixed)
    # Bounds are 0 or more; without them, a negative entropy (rounding) counts as 0.
    total, clamped, clipped = clamped_sums(entropy, rows, shaping.clip or (0.0, math.inf))
    clipped = clipped if shaping.clip else torch.zeros_like(clipped)
    if not bool(total.isfinite().all()):
        raise TensorError("the entropy of a policy token is not finite")
    mean = clamped / rows.count.clamp(min=1)
    ids = torch.zeros_like(group_ids) if entropy_scope == "batch" else group_ids
    key, sets = 2 * ids + success, 2 * (int(ids.max()) + 1) if ids.numel() else 0
    weighed = taking_part & success if shaping.failure == "zero" else taking_part
    alive = weighed.unsqueeze(1)
    weights = entropy_weights(mean.unsqueeze(1), alive, key, success, mean=shaping.mean, floor=shaping.floor)
    tally = Tally.of(rows.count)
    tally.entropy_total = total
    tally.add(weights, alive, key, sets)
    entries = torch.where(weighed, weights.squeeze(1) - 1, 0)
    if not (math.isfinite(tally.share_total) and bool(entries.isfinite().all())):
        raise TensorError("the mean entropies of the responses lie too far apart to compare")
    slope = torch.full_like(mean, shaping.side(False)[1]).masked_fill_(success, shaping.side(True)[1])
    tally.changed = rows.count * (entries.abs() * slope.ne(0) > UNCHANGED)
    entries = hardshrink(entries, ROUNDING) * slope
    level = shaping.levels(success)
    penalised = torch.zeros_like(success)
    if gamma1 is not None:
        penalty = overlong_penalty(rows.count, success, group_ids, taking_part, gamma1)
        level, penalised = level + penalty, penalty < 0
    if not bool(slope.any()):
        tally.unused()
    scopes = torch.zeros_like(group_ids) if norm_scope == "batch" else group_ids
    normal = partial(normalize, normalization, level, taking_part)
    scale, offset = normal(entries, entries.square(), success, scopes, taking_part)
    zeros = torch.zeros_like(entries)
    _, equal = normal(zeros, zeros, success, scopes, taking_part)
    advantage = entries * scale + offset
    values = torch.where(rows.count > 0, advantage, 0).to(dtype).unsqueeze(1)
    negative, positive = rows.count * (advantage < 0), rows.count * (advantage > 0)
    sums = (rows.count * x.abs().double() for x in (advantage - equal, advantage, equal))
    return Shaped(values, taking_part, tally, negative, positive, clipped, penalised, *sums)
