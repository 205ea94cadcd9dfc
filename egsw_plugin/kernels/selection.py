"""Which tokens of a batch are chosen: the largest of all, the largest of each set, or some drawn at random.

None of it depends on the order of the rows, except where that is said.
"""

from __future__ import annotations

import math

import torch


def number_kept(number: int, rho: float, ties: str) -> int:
    """How many of `number` tokens are kept, those that equal the last of them apart.

    A value is at least the (1 - rho) quantile, which lies between two neighbours in order, where it is at least the
    upper of them.

    >>> number_kept(10, 0.2, "keep"), number_kept(3, 0.9, "keep"), number_kept(3, 0.9, "exact")
    (2, 2, 3)
    """
    if ties == "exact":
        return math.ceil(rho * number - 1e-9)
    return number - math.ceil((1 - rho) * (number - 1) - 1e-9) if number and rho > 0 else 0


def largest(values: torch.Tensor, number: int) -> torch.Tensor:
    """Which of `values` [N] are at least the `number`-th largest, bool [N]: those that equal it all count.

    >>> largest(torch.tensor([0.3, 0.1, 0.9, 0.3, 0.2]), 2)
    tensor([ True, False,  True,  True, False])
    """
    if number <= 0 or not len(values):
        return torch.zeros_like(values, dtype=torch.bool)
    number = min(number, len(values))
    return values >= values.kthvalue(len(values) - number + 1).values


def keep_batch(values: torch.Tensor, rho: float, ties: str) -> torch.Tensor:
    """Which of `values` [N] are among the largest, bool [N]; with `exact`, of equal ones the first.

    >>> keep_batch(torch.tensor([0.3, 0.1, 0.9, 0.3, 0.2]), 0.4, "keep")
    tensor([ True, False,  True,  True, False])
    >>> keep_batch(torch.tensor([0.3, 0.1, 0.9, 0.3, 0.2]), 0.4, "exact")
    tensor([ True, False,  True, False, False])
    """
    number = number_kept(len(values), rho, ties)
    kept = largest(values, number)
    if ties == "exact" and number:
        above = values > values[kept].min()
        equal = kept & ~above
        kept = above | (equal & (equal.cumsum(0) <= number - int(above.sum())))
    return kept


def keep_sets(values: torch.Tensor, ids: torch.Tensor, rho: float, ties: str) -> torch.Tensor:
    """`keep_batch` within each set of `ids` (int64 [N]) by itself, bool [N].

    >>> keep_sets(torch.tensor([0.3, 0.1, 0.9, 0.8]), torch.tensor([0, 0, 1, 1]), 0.5, "exact")
    tensor([ True, False,  True, False])
    """
    order = values.argsort(descending=True, stable=True)
    order = order[ids[order].argsort(stable=True)]
    _, group, sizes = ids[order].unique_consecutive(return_inverse=True, return_counts=True)
    if not len(sizes):
        return torch.zeros_like(values, dtype=torch.bool)
    start = sizes.cumsum(0) - sizes
    number = torch.tensor([number_kept(size, rho, ties) for size in sizes.tolist()], device=values.device)
    place = torch.arange(len(order), device=values.device) - start[group]
    chosen = place < number[group]
    if ties == "keep":
        least = values[order][start + number.clamp(min=1) - 1]
        chosen = (values[order] >= least[group]) & (number > 0)[group]
    return torch.zeros_like(chosen).scatter(0, order, chosen)


def draw(which: torch.Tensor, number: int, contents: tuple[torch.Tensor, ...], seed: int) -> torch.Tensor:
    """A uniform draw of `number` of the tokens that `which` names (all, if there are no more), bool [R, T].

    What is drawn follows from the seed and from what stands in the batch, not from the order of its rows or a
    generator's state: the tokens with the least hash of seed, place, their own numbers and those of their row.

    Args: which, bool [R, T]; contents, floating point [R, T] each, of which only what `which` names in the rows with
    such a token is read.

    >>> which, x = torch.ones(3, 4).bool(), torch.rand(3, 4)
    >>> drawn = draw(which, 5, (x,), seed=1)
    >>> int(drawn.sum()), torch.equal(drawn.flip(0), draw(which, 5, (x.flip(0),), seed=1))
    (5, True)
    """
    rows, columns = which.nonzero(as_tuple=True)
    if len(rows) <= number:
        return which.clone()
    own = _mixed(columns + 1) ^ _mixed(torch.full_like(columns, seed) + _SEED)
    for content in contents:
        own = _mixed(own ^ _mixed(content[rows, columns].float().view(torch.int32).long() + _SEED))
    # Tokens of two rows may have everything in common but the rows' other tokens.
    row = torch.zeros(len(which), dtype=torch.int64, device=which.device).index_add_(0, rows, own)
    hashes = _mixed(own ^ _mixed(row)[rows])
    chosen = hashes.argsort(stable=True)[:number]
    drawn = torch.zeros_like(which)
    drawn[rows[chosen], columns[chosen]] = True
    return drawn


_SEED = 0x1E3779B97F4A7C15


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    """A permutation of the 64-bit integers that leaves no pattern (the finalizer of splitmix64)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits = (bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))
