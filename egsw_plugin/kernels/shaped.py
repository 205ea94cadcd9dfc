"""What GTPO and GRPO-S give back, and how a row's number becomes its tokens' advantages. R rows, T tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from . import groups
from .groups import Rows


@dataclass
class Shaped:
    """Advantages and what diagnostics need of them.

    values: [R, T], zero outside the mask. taking_part: bool [R], rows with policy tokens whose group is not dropped.
    changed, negative, positive: int64 [R], policy tokens whose weight is not 1, whose advantage is below and above 0.
    entropy_total: [R], nats, summed over policy tokens (before entropy_clip). clipped: int64 [R], policy tokens that
    entropy_clip changes. penalised: bool [R], responses with a length penalty. share_total: sum over columns (GRPO-S:
    groups) of each polarity of (sum w)^2 / sum w^2 / number alive; columns: their number. weight_max, weight_min: of w
    (0 and 0 if there is none).
    """

    values: torch.Tensor
    taking_part: torch.Tensor
    changed: torch.Tensor
    negative: torch.Tensor
    positive: torch.Tensor
    entropy_total: torch.Tensor
    clipped: torch.Tensor
    penalised: torch.Tensor
    share_total: float
    columns: int
    weight_max: float
    weight_min: float


def fill_rows(
    values: torch.Tensor, rows: Rows, scale: torch.Tensor, offset: torch.Tensor, tiny: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn each policy token's value v [R, T] into v * scale + offset ([R] each), in place; the others, and
    what is no further from 0 than `tiny`, into 0.

    Returns: how many of each row are then below 0 and above 0, int64 [R].
    """
    scale, offset = (x.to(values.dtype).unsqueeze(1) for x in (scale, offset))
    negative, positive = torch.zeros_like(rows.count), torch.zeros_like(rows.count)
    step = max(1, groups.TILE // max(values.shape[1], 1))
    for start in range(0, len(values), step):
        chunk = slice(start, start + step)
        part = values[chunk].mul_(scale[chunk]).add_(offset[chunk]).masked_fill_(rows.dead(chunk), 0)
        if tiny:
            part.masked_fill_(part.abs() <= tiny, 0)
        negative[chunk] = part.lt(0).sum(1)
        positive[chunk] = part.gt(0).sum(1)
    return negative, positive
