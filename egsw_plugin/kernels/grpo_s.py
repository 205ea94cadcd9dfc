"""GRPO-S (arXiv 2508.04349): one reward a response, shaped by its mean entropy, normalised for each polarity.

    r+_i =  beta1 + beta2 * Hm_i * n / sum_k Hm_k                over the n successes of the group
    r-_j = -beta1 - beta2 * (1 / Hm_j) * m / sum_k (1 / Hm_k)    over its m failures,       Hm_k = mean_t H[k, t]

Shape letters: R rows, T tokens.
"""

from __future__ import annotations

import math

import torch

from ..errors import TensorError
from .groups import Groups, Rows, participants
from .normalization import Normalization, normalize
from .shaped import Shaped, fill_rows
from .shaping import UNCHANGED, Shaping, entropy_sums, entropy_weights, overlong_penalty


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
            [-1.1000,  0.0000]])
    """
    dtype = torch.promote_types(entropy.dtype, torch.float32)
    taking_part = participants(rows, group_ids, success, unmixed)
    total, clamped, clipped = entropy_sums(entropy, rows, rows.count > 0, torch.float64, shaping.clip)
    if not bool(total.isfinite().all()):
        raise TensorError("the entropy of a policy token is not finite")
    mean = clamped / rows.count.clamp(min=1)
    weights, slope = torch.ones_like(mean), torch.zeros_like(mean)
    share_total, columns = 0.0, 0
    ids = torch.zeros_like(group_ids) if entropy_scope == "batch" else group_ids
    for polarity in (True, False):
        if not polarity and shaping.failure == "zero":
            continue
        slope.masked_fill_(success == polarity, shaping.side(polarity)[1])
        for members in Groups.of(ids, taking_part & (success == polarity)).blocks(1):
            alive = torch.ones_like(members, dtype=torch.bool)
            part = entropy_weights(mean[members], alive, inverse=not polarity, mean=shaping.mean, floor=shaping.floor)
            weights[members.flatten()] = part.flatten()
            share_total += float((part.sum(1).square() / part.square().sum(1) / members.shape[1]).sum())
            columns += members.shape[0]
    if not (math.isfinite(share_total) and bool(weights.isfinite().all())):
        raise TensorError("the mean entropies of the responses lie too far apart to compare")
    level = shaping.levels(success)
    penalised = torch.zeros_like(success)
    if gamma1 is not None:
        penalty = overlong_penalty(rows.count, success, group_ids, taking_part, gamma1)
        level, penalised = level + penalty, penalty < 0
    entry = weights * slope
    scale, offset = normalize(
        normalization,
        level,
        taking_part,
        entry,
        entry.square(),
        success,
        torch.zeros_like(group_ids) if norm_scope == "batch" else group_ids,
        taking_part,
    )
    values = torch.zeros(entropy.shape, dtype=dtype, device=entropy.device)
    negative, positive = fill_rows(values, rows, torch.ones_like(scale), offset + entry * scale)
    seen = weights[taking_part]
    return Shaped(
        values=values,
        taking_part=taking_part,
        changed=rows.count * ((weights - 1).abs() * slope.ne(0) > UNCHANGED),
        negative=negative,
        positive=positive,
        entropy_total=total,
        clipped=clipped,
        penalised=penalised,
        share_total=share_total,
        columns=columns,
        weight_max=float(seen.max()) if columns else 0.0,
        weight_min=float(seen.min()) if columns else 0.0,
    )
