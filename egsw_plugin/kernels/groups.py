"""Rows of a batch as groups, so that kernels never see a uid.

A row without a policy token (padding, or rejected) takes part in no group.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from ..errors import TensorError
from .rows import Rows


def dense_group_ids(index: Sequence[Hashable]) -> torch.Tensor:
    """Number the distinct entries of `index` 0, 1, ... in order of appearance; int64 [rows].

    verl's uids may be strings or numbers of any size, and the rows of a group need not be neighbours.

    Raises:
        TensorError: an entry that cannot be compared with the others: a list, a tensor, NaN; or is None.

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
    if None in ids:
        raise TensorError(
            "index has the entry None, which would make one group of all such rows; give each prompt a uid"
        )
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
