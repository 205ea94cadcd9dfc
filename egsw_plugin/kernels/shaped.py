"""What GTPO and GRPO-S give back, and how a row's number becomes its tokens' advantages. R rows, T tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .rows import Rows, chunks
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


def fill_rows(
    rows: Rows, offset: torch.Tensor, scale: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn each policy token's value v of `values` [R, T], which is zero elsewhere, into v * scale + offset in place.

    offset, scale: [R]. Returns: how many of each row are then below 0 and above 0, int64 [R].
    """
    negative, positive = torch.zeros_like(rows.count), torch.zeros_like(rows.count)
    offset, scale = (x.to(values.dtype).unsqueeze(1) for x in (offset, scale))
    for chunk in chunks(*values.shape):
        part = values[chunk].mul_(scale[chunk]).addcmul_(offset[chunk], rows.alive(chunk, values.dtype))
        negative[chunk], positive[chunk] = count_signs(part)
    return negative, positive
