"""Entropy-shaped rewards (arXiv 2508.04349), what GTPO and GRPO-S have in common.

    r+[i] =  base + weight * w[i]     over successes,      w[i] = H[i] * d / sum_k H[k]
    r-[j] = -base - weight * w[j]     over failures,       w[j] = (1 / H[j]) * h / sum_k (1 / H[k])

d and h are the numbers of summands, so w is 1 where all entropies are equal. Shape letters: R rows, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .tally import Tally, set_sums


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


@dataclass
class Shaped:
    """What GTPO and GRPO-S give back: advantages and what diagnostics need of them.

    values: [R, T], zero outside the mask, or [R, 1] where those of a response are one number. taking_part: bool [R],
    rows with policy tokens whose group is not dropped. tally: of the weights; entropy_total is before entropy_clip, and
    a column of GRPO-S is a group. negative, positive: int64 [R], policy tokens whose advantage is below and above 0.
    clipped: int64 [R], policy tokens that entropy_clip changes. penalised: bool [R], responses with a length penalty.
    moved, size, equal: float64 [R], sums over policy tokens of |A - B|, |A| and |B|, where B is A with equal entropies.
    """

    values: torch.Tensor
    taking_part: torch.Tensor
    tally: Tally
    negative: torch.Tensor
    positive: torch.Tensor
    clipped: torch.Tensor
    penalised: torch.Tensor
    moved: torch.Tensor
    size: torch.Tensor
    equal: torch.Tensor


def entropy_weights(
    entropy: torch.Tensor,
    alive: torch.Tensor,
    key: torch.Tensor,
    success: torch.Tensor,
    *,
    mean: str = "arithmetic",
    floor: float = 1e-6,
) -> torch.Tensor:
    """w of each entry [R, C], whose mean over the rows of a set that are alive in a column is 1; 0 where not alive.

    Args:
        entropy: H [R, C] in nats, 0 where not alive; a negative one (rounding) counts as 0.
        alive: bool [R, C].
        key: the set of each row, int64 [R]; all rows of a set are successes, or all failures.
        success: bool [R]; for failures, w grows with 1/H.
        mean: arithmetic; or geometric, where w = H / (product of the d entropies)^(1/d) and every H is floored.
        floor: lower bound of H in 1/H. Entries share equally if none of their H is above it.

    Source: arXiv 2508.04349, the GTPO and GRPO-S rewards; geometric: v6, App. C.

    >>> H, key = torch.tensor([[0.9], [0.1], [0.9], [0.1]]), torch.tensor([0, 0, 1, 1])
    >>> entropy_weights(H, H > 0, key, key == 0).squeeze(1)
    tensor([1.8000, 0.2000, 0.2000, 1.8000])
    """
    sets, success = int(key.max()) + 1 if key.numel() else 0, success.unsqueeze(1)

    def over_sets(x: torch.Tensor) -> torch.Tensor:
        return set_sums(torch.where(alive, x, 0), key, sets)[key]

    number = over_sets(torch.ones_like(entropy))
    if mean == "geometric":
        level = entropy.clamp(min=floor).log()
        level = torch.where(success, level, -level)
        weights = (level - over_sets(level) / number).exp()
    else:
        share = torch.where(success, entropy.clamp(min=0), 1 / entropy.clamp(min=floor))
        # Equal entropies are what "nobody stands out" means; H / sum H would be 0/0, or the ratio of two errors.
        nobody = success & (over_sets((share > floor).to(share.dtype)) == 0)
        weights = torch.where(nobody, 1, share * (number / over_sets(share)))
    return torch.where(alive, weights, 0)


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
