"""What GTPO and GRPO-S give back. R rows, T tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .tally import Tally


@dataclass
class Shaped:
    """Advantages and what diagnostics need of them.

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
