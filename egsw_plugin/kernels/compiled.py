"""The way to the compiled loops, which numba is needed for: arrays as they take them, and whether they can be had."""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np
import torch

DTYPES = {torch.float32: np.float32, torch.float64: np.float64}  # that loops compute in


def loops_for(tensor: torch.Tensor) -> ModuleType | None:
    """The compiled loops, or None where torch serves: on an accelerator, and without a numba that works."""
    return attempt()[0] if tensor.device.type == "cpu" else None


@functools.cache
def attempt() -> tuple[ModuleType | None, str]:
    """The compiled loops, or None and why not."""
    try:
        from . import loops

        loops.alive(0, 0, 1, np.ones(1, np.int64))  # compiles something
    except Exception as error:  # numba refuses in many ways: ImportError, SystemError, its own
        return None, f"{type(error).__name__}: {error}"
    return loops, ""


def flat(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's memory as an array of one dimension; a copy where it is not contiguous, float32 of a float16."""
    if tensor.is_floating_point():
        tensor = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    return tensor.contiguous().view(-1).numpy()


def zeros(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Zeros that the operating system provides: memory that no response reaches is never written."""
    return torch.from_numpy(np.zeros(tuple(shape), DTYPES[dtype]))
