"""Rows of a batch as groups: the one place that orders rows, so that kernels never see a uid.

Shapes: a batch is [rows, tokens]; a block is [groups, size], row numbers of `groups` groups that have `size` rows each.
A row takes part in a group if it has at least one policy token.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch

# Elements of a [groups, size, columns] tile. A tile of float32 and its few temporaries then fit a core's cache.
TILE = 1 << 17
# Elements of mask read at a time while rows are measured.
CHUNK = 1 << 21


def dense_group_ids(index: Sequence[Hashable]) -> torch.Tensor:
    """Number the distinct entries of `index` 0, 1, ... in order of appearance; int64 [rows].

    verl's uids may be strings or numbers of any size, and the rows of a group need not be neighbours.

    >>> dense_group_ids(["b", "a", "b", 7])
    tensor([0, 1, 0, 2])
    """
    entries = index.tolist() if hasattr(index, "tolist") else index
    ids: dict[Hashable, int] = {}
    return torch.tensor([ids.setdefault(entry, len(ids)) for entry in entries], dtype=torch.int64)


@dataclass(frozen=True)
class Rows:
    """What the response mask says about each row, all int64 [rows]; `mask` itself is [rows, tokens].

    count: number of policy tokens. width: position after the last of them. They differ where a tool or an environment
    wrote tokens in the middle of the response.
    """

    mask: torch.Tensor
    count: torch.Tensor
    width: torch.Tensor

    @classmethod
    def measure(cls, response_mask: torch.Tensor) -> Rows:
        """Read the mask once, in chunks of rows, so that no second tensor of its size is made."""
        rows, tokens = response_mask.shape
        count = response_mask.new_zeros(rows, dtype=torch.int64)
        width = torch.zeros_like(count)
        position = torch.arange(1, tokens + 1, device=response_mask.device, dtype=torch.int32)
        step = max(1, CHUNK // max(tokens, 1))
        for start in range(0, rows, step):
            chunk = response_mask[start : start + step].ne(0)
            count[start : start + step] = chunk.sum(1)
            if tokens:
                width[start : start + step] = (chunk * position).amax(1)
        return cls(response_mask, count, width)


@dataclass(frozen=True)
class Groups:
    """Rows with policy tokens, ordered by group.

    group_ids: dense ids of all rows, int64 [rows]. order: the rows that take part, those of a group together.
    sizes: rows of each group that take part, int64 [groups].
    """

    group_ids: torch.Tensor
    order: torch.Tensor
    sizes: torch.Tensor

    @classmethod
    def of(cls, group_ids: torch.Tensor, rows: Rows) -> Groups:
        """Order the rows of `rows` that have a policy token by their group id."""
        alive = rows.count.gt(0).nonzero().squeeze(1)
        ids = group_ids.to(alive.device)
        order = alive[ids[alive].argsort(stable=True)]
        sizes = torch.bincount(ids[alive], minlength=int(ids.max()) + 1 if ids.numel() else 0)
        return cls(ids, order, sizes)

    @classmethod
    def whole(cls, rows: Rows) -> Groups:
        """All rows with a policy token as a single group."""
        return cls.of(torch.zeros_like(rows.count), rows)

    def blocks(self, columns: int) -> Iterator[torch.Tensor]:
        """Yield int64 [groups, size] row numbers: groups of one size, as many as a tile of `columns` columns holds."""
        ends = self.sizes.cumsum(0)
        for size in self.sizes.unique().tolist():
            if size == 0:
                continue
            starts = (ends - size)[self.sizes == size]
            members = self.order[starts.unsqueeze(1) + torch.arange(size, device=starts.device)]
            yield from members.split(max(1, TILE // (size * max(columns, 1))))
