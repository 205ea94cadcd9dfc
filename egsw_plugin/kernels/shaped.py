"""What GTPO and GRPO-S give back. R rows, T tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .groups import Groups
from .tiles import Tally, count_signs


@dataclass
class Shaped:
    """Advantages and what diagnostics need of them.

    values: [R, T], zero outside the mask. taking_part: bool [R], rows with policy tokens whose group is not dropped.
    tally: of the weights; entropy_total is before entropy_clip, and a column of GRPO-S is a group. negative, positive:
    int64 [R], policy tokens whose advantage is below and above 0. clipped: int64 [R], policy tokens that entropy_clip
    changes. penalised: bool [R], responses with a length penalty.
    """

    values: torch.Tensor
    taking_part: torch.Tensor
    tally: Tally
    negative: torch.Tensor
    positive: torch.Tensor
    clipped: torch.Tensor
    penalised: torch.Tensor


def rescale(
    values: torch.Tensor, groups: Groups, offset: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn the value v of each policy token of `groups` into v * scale + offset, in place.

    values: [R + 1, T], zero elsewhere. offset, scale: [R]. Returns: how many of each row are then below 0 and above 0,
    int64 [R].
    """
    offset, scale = offset.to(values.dtype), scale.to(values.dtype)
    negative = torch.zeros_like(offset, dtype=torch.int64)
    positive = negative.clone()
    for tile in groups.tiles(values.dtype):
        part = tile.gather(values).mul_(tile.of_rows(scale)).addcmul_(tile.of_rows(offset), tile.alive)
        for counter, counts in zip((negative, positive), count_signs(part), strict=True):
            tile.add(counter, counts)
        tile.write(values, part)
    return negative, positive
