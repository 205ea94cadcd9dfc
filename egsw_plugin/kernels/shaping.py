"""Entropy-shaped rewards (arXiv 2508.04349), what GTPO and GRPO-S have in common.

    r+[i] =  base + weight * w[i]     over successes,      w[i] = H[i] * d / sum_k H[k]
    r-[j] = -base - weight * w[j]     over failures,       w[j] = (1 / H[j]) * h / sum_k (1 / H[k])

d and h are the numbers of summands, so w is 1 where all entropies are equal. Shape letters: R rows, T tokens, N groups
of G rows with C columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .rows import Rows, chunk_indices, chunks, keep
from .tiles import count_beyond


@dataclass(frozen=True)
class Shaping:
    """How an entropy becomes a reward.

    base, weight: alpha1 and alpha2 of GTPO, beta1 and beta2 of GRPO-S. failure: shaped, zero (r- = 0) or unbased
    (r- = -w). mean: arithmetic or geometric, what w is relative to. floor: lower bound of H (nats) in 1/H. clip: bounds
    (nats) that H is clamped to, or None.
    """

    base: float = 1.0
    weight: float = 0.1
    failure: str = "shaped"
    mean: str = "arithmetic"
    floor: float = 1e-6
    clip: tuple[float, float] | None = None

    def side(self, success: bool) -> tuple[float, float]:
        """Level and slope of the reward: level + slope * w."""
        if success:
            return self.base, self.weight
        if self.failure == "shaped":
            return -self.base, -self.weight
        return 0.0, -1.0 if self.failure == "unbased" else 0.0

    def levels(self, success: torch.Tensor) -> torch.Tensor:
        """Reward of each row at w = 1, float64 [R]."""
        level = torch.full(success.shape, sum(self.side(False)), dtype=torch.float64, device=success.device)
        return level.masked_fill_(success, sum(self.side(True)))


def entropy_weights(
    entropy: torch.Tensor, alive: torch.Tensor, *, inverse: bool, mean: str = "arithmetic", floor: float = 1e-6
) -> torch.Tensor:
    """w of each entry [N, G, ...], whose mean over dimension 1 is 1; 0 where not alive.

    Args:
        entropy: H [N, G, ...] in nats, 0 where not alive; a negative one (rounding) counts as 0. Is overwritten.
        alive: 1 or 0, [N, G, ...], of the same dtype.
        inverse: for failures, w grows with 1/H.
        mean: arithmetic; or geometric, where w = H / (product of the d entropies)^(1/d) and every H is floored.
        floor: lower bound of H in 1/H. Entries share equally if none of their H is above it.

    Source: arXiv 2508.04349, the GTPO and GRPO-S rewards; geometric: v6, App. C.

    >>> one = torch.ones(1, 2)
    >>> entropy_weights(torch.tensor([[0.9, 0.1]]), one, inverse=False)
    tensor([[1.8000, 0.2000]])
    >>> entropy_weights(torch.tensor([[0.9, 0.1]]), one, inverse=True)
    tensor([[0.2000, 1.8000]])
    """
    number = alive.sum(1, keepdim=True)
    if mean == "geometric":
        level = entropy.clamp_min_(floor).log_().mul_(alive)
        level.sub_(level.sum(1, keepdim=True) / number.clamp(min=1)).mul_(alive)
        return (level.neg_() if inverse else level).exp_().mul_(alive)
    weights = entropy.clamp_min_(floor).reciprocal_().mul_(alive) if inverse else entropy.clamp_min_(0)
    total = weights.sum(1, keepdim=True)
    low = (total <= floor * number) & (number > 0)
    if not inverse and bool(low.any()):
        # Equal entropies are what "nobody stands out" means; H / sum H would be 0/0, or the ratio of two errors.
        low &= weights.amax(1, keepdim=True) <= floor
        weights = torch.where(low, alive, weights)
        total = torch.where(low, number, total)
    return weights.div_(total.clamp_min_(torch.finfo(total.dtype).tiny) / number.clamp(min=1))


def overlong_penalty(
    length: torch.Tensor, success: torch.Tensor, group_ids: torch.Tensor, taking_part: torch.Tensor, gamma1: float
) -> torch.Tensor:
    """GROP's length penalty of each response, float64 [R], between -1/2 and 0.

    Args:
        length: policy tokens of each response, int64 [R].
        success, taking_part: bool [R]. group_ids: dense, int64 [R].
        gamma1: share of successes from which a group is easy; one of 1 - gamma1 or less is hard and not penalised.

    Source: arXiv 2508.04349, App. D.

    An easy group: L = max((2 + 8) / 2, 14 / 3) = 5, and the third response is 3 tokens too long.

    >>> yes = torch.tensor([True, True, True, False])
    >>> overlong_penalty(torch.tensor([2, 4, 8, 9]), yes, torch.zeros(4, dtype=torch.int64), yes | ~yes, 0.75).tolist()
    [0.0, 0.0, -0.3, 0.0]
    """
    number = int(group_ids.max()) + 1 if group_ids.numel() else 0
    length = length.double()

    def count(which: torch.Tensor) -> torch.Tensor:
        return torch.bincount(group_ids[which], minlength=number).double()

    correct, wrong = count(success & taking_part), count(~success & taking_part)
    size = (correct + wrong).clamp(min=1)
    easy, hard = correct / size >= gamma1, wrong / size >= gamma1
    measured = taking_part & (success | ~easy[group_ids])
    ids, lengths = group_ids[measured], length[measured]
    shortest, longest, mean = (
        length.new_zeros(number).scatter_reduce_(0, ids, lengths, how, include_self=False)
        for how in ("amin", "amax", "mean")
    )
    limit = torch.maximum((shortest + longest) / 2, mean)[group_ids].clamp(min=1)
    of_successes = (easy | (correct > wrong))[group_ids]
    penalised = taking_part & (success == of_successes) & ~hard[group_ids]
    return ((limit - length) / (2 * limit)).clamp(min=-0.5, max=0).masked_fill(~penalised, 0)


def entropy_sums(
    entropy: torch.Tensor,
    rows: Rows,
    dtype: torch.dtype,
    clip: tuple[float, float] | None = None,
    which: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over the policy tokens of each row, or of those rows that `which` names (bool [R]) with 0 for others.

    Returns: the entropy (nats); the entropy clamped to `clip`, a negative one (rounding) counting as 0, both float64
    [R] from sums in `dtype`; how many tokens `clip` changes, int64 [R].
    """
    total = torch.zeros_like(rows.count, dtype=torch.float64)
    clamped, clipped = total.clone(), torch.zeros_like(rows.count)
    for chunk in chunks(*entropy.shape) if which is None else chunk_indices(which, entropy.shape[1]):
        alive = rows.alive(chunk, dtype)
        part, sums = keep(entropy[chunk].to(dtype), alive)
        total[chunk] = sums.double()
        if clip is not None:
            held = part.clamp(*clip).mul_(alive)
            clipped[chunk] = count_beyond(part.sub_(held), 0.0)
            part = held
        changed = clip is not None or (part.numel() > 0 and float(part.amin()) < 0)
        clamped[chunk] = part.clamp_min_(0).sum(1).double() if changed else total[chunk]
    return total, clamped, clipped
