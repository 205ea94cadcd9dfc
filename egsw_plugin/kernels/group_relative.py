"""The group-relative advantage of GRPO (arXiv 2402.03300), over all groups at once. R rows."""

from __future__ import annotations

import torch

EPSILON = 1e-6  # as in verl


def group_relative(outcome: torch.Tensor, group_ids: torch.Tensor, divide_by_std: bool = True) -> torch.Tensor:
    """(reward - mean) / (std + 1e-6) over each group, with the sample standard deviation, [R].

    Args:
        outcome: reward of each response, floating point [R].
        group_ids: dense group ids, int64 [R].
        divide_by_std: False leaves out the division (Dr. GRPO, arXiv 2503.20783).

    A group of one is compared with mean 0 and standard deviation 1, as verl's `grpo` does it, whose loop over rows
    takes longer than everything else in an advantage step.

    Source: arXiv 2402.03300, section 4.1.2 (outcome supervision).

    >>> group_relative(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([0, 0, 1]))
    tensor([ 0.7071, -0.7071,  3.0000])
    """
    advantage = torch.empty_like(outcome)
    order = group_ids.argsort(stable=True)
    sizes = torch.bincount(group_ids)
    size_of = sizes[group_ids[order]]
    for size in sizes.unique().tolist():
        ours = order[size_of == size].view(-1, size) if size else order.new_empty(0, 1)
        rewards = outcome[ours]
        mean, deviation = torch.zeros_like(rewards[:, :1]), torch.ones_like(rewards[:, :1])
        if size > 1:
            mean = rewards.mean(1, keepdim=True)
            # In float64 around a float32 mean, as torch does it for a vector: so even the rounding is verl's.
            variance = (rewards.double() - mean.double()).square().sum(1, keepdim=True) / (size - 1)
            deviation = variance.sqrt().to(mean.dtype)
        centred = rewards - mean
        advantage[ours] = centred / (deviation + EPSILON) if divide_by_std else centred
    return advantage
