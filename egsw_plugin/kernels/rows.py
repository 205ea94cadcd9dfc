"""What the response mask says about the rows of a batch. Shapes: a batch is [rows, tokens]."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Elements of a tile, the part of a batch that is worked on at a time: a float32 tile and its few temporaries then stay
# in the processor's caches, and the cost of calling torch does not show.
TILE = 1 << 19
# Bytes up to which the C library hands out memory that it has had before, and need not fault in again.
REUSED = 32 << 20


@dataclass(frozen=True)
class Rows:
    """The measured response mask; `mask` itself is [rows, tokens], of any dtype, a token being the policy's if not 0.

    count: number of policy tokens. width: position after the last of them, both int64 [rows]. They differ where a tool
    or an environment wrote tokens in the middle of the response.
    """

    mask: torch.Tensor
    count: torch.Tensor
    width: torch.Tensor

    @classmethod
    def measure(cls, response_mask: torch.Tensor) -> Rows:
        """Read the mask once, in chunks of rows, so that no second tensor of its size is made.

        >>> rows = Rows.measure(torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]]))
        >>> rows.count.tolist(), rows.width.tolist()
        ([2, 2], [2, 3])
        """
        rows, tokens = response_mask.shape
        keep_freed_memory()
        count = response_mask.new_zeros(rows, dtype=torch.int64)
        width = torch.zeros_like(count)
        for chunk in chunks(rows, tokens):
            alive = response_mask[chunk].ne(0).view(torch.uint8)  # torch sums bytes faster than booleans
            count[chunk] = width[chunk] = alive.sum(1, dtype=torch.int32)
            if tokens > 1 and bool((alive[:, 1:] > alive[:, :-1]).view(torch.uint8).amax()):
                position = torch.arange(1, tokens + 1, device=alive.device, dtype=torch.int32)
                width[chunk] = (alive * position).amax(1)
        return cls(response_mask, count, width)

    @property
    def broken(self) -> bool:
        """Whether a row has tokens of a tool or an environment between its policy tokens."""
        return bool((self.width != self.count).any())

    def alive(self, which: slice | torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """1 at the policy tokens of these rows, 0 elsewhere, [chosen rows, tokens].

        A number and not a boolean, because torch multiplies several times faster than it fills by a mask.
        """
        count = self.count[which]
        if bool((self.width[which] != count).any()):
            return self.mask[which].ne(0).to(dtype)
        return first(count, slice(0, self.mask.shape[1]), dtype)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Each row's policy tokens in order, [rows, most policy tokens of a row] and 0 after them, or `tensor` itself
        where they stand so already.

        >>> rows = Rows.measure(torch.tensor([[1, 0, 1], [0, 1, 0]]))
        >>> rows.pack(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        tensor([[1., 3.],
                [5., 0.]])
        """
        if not self.broken:
            return tensor
        packed = blank(len(tensor), int(self.count.max()), tensor)
        for chunk in chunks(*tensor.shape):
            there = first(self.count[chunk], slice(0, packed.shape[1]), torch.float32).bool()
            packed[chunk][there] = tensor[chunk][self.mask[chunk].ne(0)]
        return packed

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """The inverse of `pack`, [rows, tokens] with 0 where no policy token is."""
        if not self.broken:
            return packed
        tensor = blank(*self.mask.shape, packed)
        for chunk in chunks(*tensor.shape):
            there = first(self.count[chunk], slice(0, packed.shape[1]), torch.float32).bool()
            tensor[chunk][self.mask[chunk].ne(0)] = packed[chunk][there]
        return tensor


def first(count: torch.Tensor, columns: slice, dtype: torch.dtype) -> torch.Tensor:
    """1 in the first `count` columns of each row and 0 in the others, [*count.shape, columns].

    >>> first(torch.tensor([0, 3, 9]), slice(2, 5), torch.float32)
    tensor([[0., 0., 0.],
            [1., 0., 0.],
            [1., 1., 1.]])
    """
    position = torch.arange(columns.start, columns.stop, dtype=dtype, device=count.device)
    return (count.to(dtype).unsqueeze(-1) - position).clamp_(0, 1)


def keep(values: torch.Tensor, alive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`values` [..., C] where `alive` is 1 and zero where it is 0, whatever stands there; and their sums [...]."""
    kept = values * alive
    total = kept.sum(-1)
    if not bool(total.isfinite().all()):  # 0 times NaN is NaN
        kept = values.masked_fill(alive == 0, 0).to(kept.dtype)
        total = kept.sum(-1)
    return kept, total


def keep_freed_memory() -> None:
    """Have the C library keep the memory of tiles when they are freed.

    glibc gives blocks of this size back to the system, and to fault them in again for the next tile takes longer than
    to compute it. It stops doing so once a larger block, of up to 32 MiB, was freed: its mallopt(3) calls the threshold
    dynamic. Other C libraries are not affected.
    """
    torch.empty(REUSED - (4 << 20), dtype=torch.uint8)


def blank(rows: int, tokens: int, like: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor [rows, tokens] of zeros on the device of `like`, of its dtype or `dtype`.

    A large one on the CPU is memory fresh from the operating system, zero without being written: what no response
    reaches is never faulted in. `torch.zeros` would write all of it, which takes about as long as to weigh it.
    """
    dtype = like.dtype if dtype is None else dtype
    size = rows * tokens * dtype.itemsize
    if like.device.type != "cpu" or size <= REUSED:
        return torch.zeros(rows, tokens, dtype=dtype, device=like.device)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=dtype).view(rows, tokens)


def chunks(rows: int, tokens: int) -> Iterator[slice]:
    """Yield ranges of rows with about TILE elements each."""
    step = max(1, TILE // max(tokens, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def chunk_indices(which: torch.Tensor, tokens: int) -> Iterator[torch.Tensor]:
    """Yield numbers of the rows that `which` names (bool [rows]), about TILE elements of them at a time."""
    yield from which.nonzero().squeeze(1).split(max(1, TILE // max(tokens, 1)))


def spread_rows(rows: Rows, values: torch.Tensor) -> torch.Tensor:
    """One value a response [rows] on all of its policy tokens, 0 elsewhere, [rows, tokens]."""
    spread = blank(*rows.mask.shape, values)
    for chunk in chunks(*spread.shape):
        torch.mul(values[chunk].unsqueeze(1), rows.alive(chunk, values.dtype), out=spread[chunk])
    return spread
