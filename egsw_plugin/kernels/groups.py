"""Rows of a batch as groups: the one place that orders rows, so that kernels never see a uid.

A row without a policy token (padding, or rejected) takes part in no group.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..errors import TensorError
from . import rows as rows_
from .rows import Rows, first
from .tiles import Tile


def dense_group_ids(index: Sequence[Hashable]) -> torch.Tensor:
    """Number the distinct entries of `index` 0, 1, ... in order of appearance; int64 [rows].

    verl's uids may be strings or numbers of any size, and the rows of a group need not be neighbours.

    Raises:
        TensorError: an entry that cannot be compared with the others: a list, a tensor, NaN.

    >>> dense_group_ids(["b", "a", "b", 7])
    tensor([0, 1, 0, 2])
    """
    entries = index.tolist() if hasattr(index, "tolist") else index
    try:
        # Tensors are hashed by identity, and NaN differs from itself: each row would silently be a group of its own.
        ids = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
        odd = next((entry for entry in ids if isinstance(entry, torch.Tensor) or entry != entry), None)
    except TypeError as error:
        raise TensorError(f"index has an entry that cannot be a uid: {error}; use strings or numbers") from error
    if odd is not None:
        raise TensorError(f"index has the entry {odd!r}, which equals no other; use strings or numbers as uids")
    return torch.tensor([ids[entry] for entry in entries], dtype=torch.int64)


def mixed_groups(group_ids: torch.Tensor, success: torch.Tensor, taking_part: torch.Tensor) -> torch.Tensor:
    """Which groups hold a success and a failure, bool [groups].

    group_ids: int64 [rows]; success and taking_part: bool [rows]. Rows that do not take part do not count.

    >>> ids, yes, no = torch.tensor([0, 0, 1, 1]), True, False
    >>> mixed_groups(ids, torch.tensor([yes, no, yes, yes]), torch.tensor([yes, yes, yes, yes]))
    tensor([ True, False])
    """
    number = int(group_ids.max()) + 1 if group_ids.numel() else 0
    successes = torch.bincount(group_ids[success & taking_part], minlength=number)
    failures = torch.bincount(group_ids[~success & taking_part], minlength=number)
    return (successes > 0) & (failures > 0)


def participants(rows: Rows, group_ids: torch.Tensor, success: torch.Tensor, unmixed: str) -> torch.Tensor:
    """Rows that a method looks at, bool [rows]: with policy tokens, and with `drop` only those of mixed groups."""
    taking_part = rows.count > 0
    if unmixed == "drop":
        taking_part = taking_part & mixed_groups(group_ids, success, taking_part)[group_ids]
    return taking_part


@dataclass(frozen=True)
class Groups:
    """Rows that take part, group by group.

    classes: for groups of similar size, their members, int64 [groups, size], a group's longest response first, with
    `rows` in place of the members that smaller groups lack; and the members' numbers of policy tokens, with 0 there.
    """

    rows: int
    classes: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @classmethod
    def of(cls, group_ids: torch.Tensor, taking_part: torch.Tensor, count: torch.Tensor) -> Groups:
        """Gather the rows that take part, bool [rows], by their group id; count: policy tokens, int64 [rows].

        >>> Groups.of(torch.tensor([1, 0, 1]), torch.tensor([True, True, True]), torch.tensor([3, 4, 5])).classes
        ((tensor([[1, 3],
                [2, 0]]), tensor([[4, 0],
                [5, 3]])),)
        """
        order = taking_part.nonzero().squeeze(1)
        order = order[count[order].argsort(descending=True, stable=True)]
        order = order[group_ids[order].argsort(stable=True)]
        _, group, sizes = group_ids[order].unique_consecutive(return_inverse=True, return_counts=True)
        place = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[group]
        classes, least, rows = [], 0, len(group_ids)
        while len(sizes) and least < int(sizes.max()):
            # Sizes up to 16 together, then up to 256, ...: one huge group must not widen the table of all others.
            greatest = max(16, 16 * least)
            ours = (sizes > least) & (sizes <= greatest)
            least = greatest
            if not bool(ours.any()):
                continue
            members = order.new_full((int(ours.sum()), int(sizes[ours].max())), rows)
            chosen = ours[group]
            members[(ours.cumsum(0) - 1)[group[chosen]], place[chosen]] = order[chosen]
            classes.append((members, torch.cat([count, count.new_zeros(1)])[members]))
        return cls(rows, tuple(classes))

    def tiles(self, dtype: torch.dtype, whole: bool = False) -> Iterator[Tile]:
        """Yield tiles that cover every policy token of every group.

        whole: a group's responses stay in its tiles after their end, and all groups of a tile are of one size.
        """
        for members, count in self.classes:
            width = int(count.max())
            # More and narrower tiles leave out more of the responses that have ended, and cost more calls.
            pieces = min(8, max(1, width // 1024), max(1, members.numel() * width // rows_.TILE))
            step = max(1, -(-width // pieces))
            step = max(1, min(step, rows_.TILE // members.shape[1]))
            for start in range(0, width, step):
                columns = slice(start, min(start + step, width))
                reach = (count > start).sum(1)
                if whole:
                    reach = (count > 0).sum(1) * (reach > 0)
                ranked, group = reach.sort(descending=True)
                begin, end = 0, int((reach > 0).sum())
                while begin < end:
                    height = int(ranked[begin])
                    stop = min(end, begin + max(1, rows_.TILE // (height * step)))
                    if whole:
                        stop = begin + int((ranked[begin:stop] == height).sum())
                    chosen, begin = group[begin:stop], stop
                    alive = first(count[chosen, :height], columns, dtype)
                    yield Tile(members[chosen, :height], self.rows, columns, alive)
