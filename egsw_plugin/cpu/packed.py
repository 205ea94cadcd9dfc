"""Attention over rows that stand one after another without padding, where FlashAttention's kernels are not to be had.

It takes the place of transformers' function under verl's sequence parallelism (Ulysses), which exchanges heads for
tokens before it and back after it. No verl here. Shape letters: N tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "egsw_packed"  # of the attention, among those of transformers


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    query_length: int,
    *,
    position_ids: torch.Tensor,
    softmax_scale: float | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Causal attention of every row to itself, called as transformers' `_flash_attention_forward` is.

    Args:
        query: [1, N, heads, width]. key, value: [1, N, key heads, width]; heads is a multiple of key heads.
        position_ids: int64 [1, N]; a row begins where it is 0.

    Returns: [1, N, heads, width].

    >>> ones = torch.ones(1, 3, 1, 1)
    >>> value = torch.tensor([1.0, 3.0, 8.0]).view(1, 3, 1, 1)
    >>> attention(ones, ones, value, None, 3, position_ids=torch.tensor([[0, 1, 0]])).flatten().tolist()
    [1.0, 2.0, 8.0]
    """
    starts = position_ids.flatten().eq(0).nonzero().flatten().tolist()
    lengths = torch.tensor([*starts, query.shape[1]]).diff().tolist()
    if not starts or starts[0] != 0:
        first = int(position_ids.flatten()[0])
        raise ValueError(f"attention {NAME}: a row begins at position 0, and the first one begins at {first}")
    rows = zip(*(tensor.transpose(1, 2).split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    grouped = query.shape[2] != key.shape[2]
    attended = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=softmax_scale, enable_gqa=grouped)
        for q, k, v in rows
    ]
    return torch.cat(attended, dim=2).transpose(1, 2)
