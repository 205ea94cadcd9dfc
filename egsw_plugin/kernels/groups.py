"""Rows of a batch as groups: the one place that orders rows, so that kernels never see a uid.

Shapes: a batch is [rows, tokens]; the members of a block are [groups, size], row numbers of `groups` groups that have
`size` rows each. A row without a policy token (padding, or rejected) takes part in no group.
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

    def dead(self, which: slice | torch.Tensor) -> torch.Tensor:
        """Which places of these rows hold no policy token, bool [chosen rows, tokens]."""
        if bool((self.width != self.count)[which].any()):
            return self.mask[which].eq(0)
        return torch.arange(self.mask.shape[1], device=self.mask.device) >= self.count[which].unsqueeze(1)


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
    """Rows that take part, ordered by group.

    group_ids: dense ids of all rows, int64 [rows]. order: the rows that take part, those of a group together.
    sizes: rows of each group that take part, int64 [groups].
    """

    group_ids: torch.Tensor
    order: torch.Tensor
    sizes: torch.Tensor

    @classmethod
    def of(cls, group_ids: torch.Tensor, taking_part: torch.Tensor) -> Groups:
        """Order the rows that take part, bool [rows], by their group id.

        >>> Groups.of(torch.tensor([1, 0, 1]), torch.tensor([True, True, True])).order
        tensor([1, 0, 2])
        """
        rows = taking_part.nonzero().squeeze(1)
        ids = group_ids.to(rows.device)
        order = rows[ids[rows].argsort(stable=True)]
        sizes = torch.bincount(ids[rows], minlength=int(ids.max()) + 1 if ids.numel() else 0)
        return cls(ids, order, sizes)

    def blocks(self, columns: int) -> Iterator[torch.Tensor]:
        """Yield int64 [groups, size] row numbers: groups of one size, as many as a tile of `columns` columns holds."""
        ends = self.sizes.cumsum(0)
        for size in self.sizes.unique().tolist():
            if size == 0:
                continue
            starts = (ends - size)[self.sizes == size]
            members = self.order[starts.unsqueeze(1) + torch.arange(size, device=starts.device)]
            yield from members.split(max(1, TILE // (size * max(columns, 1))))


class Block:
    """The rows of a few groups of equal size, read tile by tile; columns are policy tokens in order.

    tensors: what is read, [rows, tokens] each. members: int64 [N, G]. count: policy tokens, int64 [N, G].
    """

    def __init__(self, tensors: Sequence[torch.Tensor], rows: Rows, members: torch.Tensor, dtype: torch.dtype):
        self.members, self.flat, self.dtype = members, members.reshape(-1), dtype
        self.count = rows.count[self.flat].view_as(members)
        self.width = int(self.count.max())
        self.tensors = tensors
        self.rows_at, self.columns_at = self.flat, None
        if bool((rows.width != rows.count)[self.flat].any()):
            # Tokens that nobody's policy wrote stand in between: column t is the t-th policy token.
            mask = rows.mask.index_select(0, self.flat).ne(0)
            self.columns_at = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, : self.width]
            self.tensors = [t.index_select(0, self.flat).gather(1, self.columns_at) for t in self.tensors]
            self.rows_at = torch.arange(self.flat.numel(), device=self.flat.device)

    def tiles(self) -> Iterator[slice]:
        """Yield the column ranges of this block's tiles."""
        step = max(1, TILE // self.flat.numel())
        for start in range(0, self.width, step):
            yield slice(start, min(start + step, self.width))

    def alive(self, columns: slice) -> torch.Tensor:
        """Which responses have a policy token in these columns, bool [N, G, C]."""
        position = torch.arange(columns.start, columns.stop, device=self.flat.device)
        return position < self.count.unsqueeze(-1)

    def read(self, columns: slice) -> list[torch.Tensor]:
        """The tensors' tiles [N, G, C], as copies in `dtype`; what stands where nobody is alive means nothing."""
        return [self._gather(tensor, columns).to(self.dtype) for tensor in self.tensors]

    def _gather(self, tensor: torch.Tensor, columns: slice) -> torch.Tensor:
        # index_select moves whole rows at the speed of memory, but on a slice of columns it first copies the slice.
        if 2 * (columns.stop - columns.start) > tensor.shape[1]:
            part = tensor.index_select(0, self.rows_at)[:, columns]
        else:
            part = tensor[:, columns][self.rows_at]
        return part.unflatten(0, self.members.shape)

    def write(self, out: torch.Tensor, values: torch.Tensor, columns: slice) -> None:
        """Put [N, G, C] where it came from in `out` [rows, tokens]; where nobody is alive, `values` are zero."""
        values = values.to(out.dtype).flatten(0, 1)
        if self.columns_at is None:
            out[:, columns].index_copy_(0, self.flat, values)
        else:
            out.index_put_((self.flat.unsqueeze(1), self.columns_at[:, columns]), values)
