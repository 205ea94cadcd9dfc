"""The way to the compiled loops, which numba is needed for: arrays as they take them, and whether they can be had."""

from __future__ import annotations

import functools
import os
import traceback
from types import ModuleType

import numpy as np
import torch

DTYPES = {torch.float32: np.float32, torch.float64: np.float64}  # that loops compute in


def loops_for(tensor: torch.Tensor) -> ModuleType | None:
    """The compiled loops, or None where torch serves: on an accelerator, and without a numba that works."""
    return attempt()[0] if tensor.device.type == "cpu" else None


def attempt() -> tuple[ModuleType | None, str]:
    """The compiled loops, or None and why not."""
    return (None, _REFUSED[0]) if _REFUSED else _imported()


_REFUSED: list[str] = []  # what numba said of a loop that it could not compile after all


def give_up(error: Exception) -> bool:
    """Whether an error is of a loop of ours that numba could not compile; if so, torch serves from here on.

    >>> give_up(ValueError("of a member"))
    False
    """
    caller = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__"))
        if name.startswith("numba."):
            break
        caller = name
    else:
        return False
    # A member may have loops of its own; ours are called from beside this file.
    if _REFUSED or caller.rpartition(".")[0] != __name__.rpartition(".")[0]:
        return False
    _REFUSED.append(_said(error))
    return True


@functools.cache
def _imported() -> tuple[ModuleType | None, str]:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return None, "NUMBA_DISABLE_JIT is set"  # the loops, as Python, take a thousand times as long as torch
    try:
        from . import loops

        loops.alive(0, 0, 1, np.ones(1, np.int64))  # compiles something
    except Exception as error:  # numba refuses in many ways: ImportError, SystemError, its own
        return None, _said(error)
    return loops, ""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def flat(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's memory as an array of one dimension; a copy where it is not contiguous, float32 of a float16."""
    if tensor.is_floating_point():
        tensor = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    return tensor.contiguous().view(-1).numpy()


def zeros(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Zeros that the operating system provides: memory that no response reaches is never written."""
    return torch.from_numpy(np.zeros(tuple(shape), DTYPES[dtype]))
