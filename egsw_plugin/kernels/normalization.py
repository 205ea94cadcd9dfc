"""Centring and scaling of shaped rewards, on sums over rows: no tensor of tokens is read here.

A row holds `number` entries level + e_k (a response's tokens, or the response itself as one entry), of which only the
sums of e and e^2 are needed. Shape letters: R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# A deviation below this part of the largest level is rounding: it would be 0 in exact arithmetic.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Normalization:
    """Which entries share a mean and a standard deviation, and how the latter is taken.

    norm_set: all_with_zeros (each polarity's mean runs over all entries of the scope, those of the other polarity as
    zeros), own_set (over its own entries), joint (one mean for both) or none. std: population or sample. eps is added
    to the standard deviation; where the sum of both is 0, so is the result.

    Source: arXiv 2508.04349 v5, section 2.4.2 and App. B.3 (all_with_zeros); the others are other readings.
    """

    norm_set: str = "all_with_zeros"
    std: str = "population"
    eps: float = 1e-6


def normalize(
    normalization: Normalization,
    level: torch.Tensor,
    number: torch.Tensor,
    total: torch.Tensor,
    square: torch.Tensor,
    success: torch.Tensor,
    scope_ids: torch.Tensor,
    taking_part: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and offset of each row, float64 [R]: its entries become e * scale + offset, both 0 for rows left out.

    Args:
        level: what all entries of a row have in common, [R].
        number, total, square: entries of a row, and the sums over them of e and of e^2, [R].
        success: polarity of the row, bool [R].
        scope_ids: dense ids of the sets that are normalised together, int64 [R].
        taking_part: bool [R].

    Two successes and two failures with a level of 1 and -1 become what GRPO gives them:

    >>> yes, no, one = torch.tensor([True, True, False, False]), torch.zeros(4), torch.ones(4)
    >>> level, ids = torch.tensor([1.0, 1, -1, -1]), torch.zeros(4, dtype=torch.int64)
    >>> normalize(Normalization(eps=0), level, one, no, no, yes, ids, one > 0)[1].tolist()
    [1.0, 1.0, -1.0, -1.0]
    """
    level, number, total, square = (x.double() * taking_part for x in (level, number, total, square))
    if normalization.norm_set == "none":
        return taking_part.double(), level
    scopes = int(scope_ids.max()) + 1 if scope_ids.numel() else 0
    side = torch.zeros_like(scope_ids) if normalization.norm_set == "joint" else success.to(scope_ids.dtype)
    key = 2 * scope_ids + side

    def over_sets(x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(2 * scopes).index_add_(0, key, x)

    own = over_sets(number)
    entries = own
    if normalization.norm_set == "all_with_zeros":
        entries = own.view(-1, 2).sum(1, keepdim=True).expand(-1, 2).flatten()
    mean = over_sets(number * level + total) / entries.clamp(min=1)
    centred = level - mean[key]
    spread = over_sets(square + 2 * centred * total + number * centred.square()) + (entries - own) * mean.square()
    spread = (spread / (entries - float(normalization.std == "sample")).clamp(min=1)).clamp(min=0).sqrt()
    # Where the deviation is 0, all entries equal their mean, and so does e * scale + offset = 0.
    equal = spread <= ROUNDING * (level.abs().max() if level.numel() else 0)
    scale = (1 / (spread + normalization.eps)).masked_fill(equal, 0)[key] * taking_part
    return scale, centred * scale
