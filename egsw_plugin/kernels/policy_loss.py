"""Clipped surrogate objectives, one value a token; aggregation over the batch is the caller's. R rows, T tokens."""

from __future__ import annotations

import torch

MAX_LOG_RATIO = 20.0  # exp(20) is 5e8: beyond it a ratio says nothing, and exp(89) overflows float32


def token_log_ratio(log_prob: torch.Tensor, old_log_prob: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """log pi / pi_old of each policy token, [R, T], held within MAX_LOG_RATIO; 0 elsewhere. mask: bool [R, T].

    In at least float32: bfloat16 has steps of a percent where a ratio is clipped.

    >>> token_log_ratio(torch.tensor([[-1.0, -9.0]]), torch.tensor([[-1.5, 0.0]]), torch.tensor([[True, False]]))
    tensor([[0.5000, 0.0000]])
    """
    dtype = torch.promote_types(log_prob.dtype, torch.float32)
    difference = log_prob.to(dtype) - old_log_prob.to(dtype)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).masked_fill(~mask, 0)


def sequence_ratio(log_ratio: torch.Tensor, mask: torch.Tensor, mean: str) -> torch.Tensor:
    """Importance ratio of each response, [R, 1], from the log-ratios of its tokens, [R, T].

    Args:
        log_ratio: zero where the mask is. mask: bool [R, T].
        mean: arithmetic, the mean of the ratios (arXiv 2508.04349 v6, Eq 11); geometric, exp of the mean log-ratio
            (v5's algorithm, and GSPO, arXiv 2507.18071). Means nothing for a response without policy tokens.

    >>> log_ratio, mask = torch.tensor([[1.5, 1.0, 1.0]]).log(), torch.tensor([[True, True, False]])
    >>> sequence_ratio(log_ratio, mask, "arithmetic"), sequence_ratio(log_ratio, mask, "geometric")
    (tensor([[1.2500]]), tensor([[1.2247]]))
    """
    length = mask.sum(1, keepdim=True).clamp(min=1)
    if mean == "geometric":
        return (log_ratio.sum(1, keepdim=True) / length).exp()
    return (log_ratio.exp() * mask).sum(1, keepdim=True) / length


def clipped_surrogate(
    ratio: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float | torch.Tensor,
    clip_high: float | torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The negated objective -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) of each token, without a dual clip.

    Args: ratio (with gradient), r of tokens [R, T] or of responses [R, 1]; advantages [R, T]; clip_low and clip_high,
    numbers, or tensors that fit [R, T].

    Returns: losses [R, T]; was the clipped branch taken, bool [R, T].

    Source: PPO's objective (arXiv 1707.06347, Eq 7) with separate bounds (arXiv 2503.14476, Eq 8).

    >>> clipped_surrogate(torch.tensor([[1.5]]), torch.ones(1, 1), 0.2, 0.28)
    (tensor([[-1.2800]]), tensor([[True]]))
    """
    free = -advantages * ratio
    low, high = 1 - clip_low, 1 + clip_high
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):  # torch clamps by two of a kind
        clipped = ratio.clamp(*(torch.as_tensor(bound, device=ratio.device) for bound in (low, high)))
    else:
        clipped = ratio.clamp(low, high)
    held = -advantages * clipped
    return torch.maximum(free, held), held > free


def dual_clipped(losses: torch.Tensor, advantages: torch.Tensor, limit: float) -> torch.Tensor:
    """Losses [R, T] of `clipped_surrogate`, held at limit * |A| where A < 0; limit > 1.

    Source: dual-clip PPO (arXiv 1912.09729, Eq 5).

    >>> A = torch.tensor([[-1.0, 1.0]])
    >>> dual_clipped(torch.tensor([[7.0, 7.0]]), A, 3.0)
    tensor([[3., 7.]])
    """
    return torch.where(advantages < 0, torch.minimum(losses, -limit * advantages), losses)


def token_mean(values: torch.Tensor, mask: torch.Tensor, empty: float = 0.0) -> float:
    """Mean of [R, T] over policy tokens, `empty` if there are none; mask: bool [R, T].

    >>> token_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    2.0
    """
    total, count = torch.stack([values.detach().masked_fill(~mask, 0).sum().double(), mask.sum().double()]).tolist()
    return total / count if count else empty


def discounted_future(values: torch.Tensor, gamma: float, block: int = 64) -> torch.Tensor:
    """F[t] = sum over k >= t of gamma^(k - t) values[k], float64 [R, T], in time and memory linear in T.

    Within a block of columns by one product of matrices, from block to block by what the later ones leave.

    Args: values [R, T]; gamma, 0 to 1.

    Source: arXiv 2603.19835 (FIPO), whose code multiplies by a matrix of T x T.

    >>> discounted_future(torch.tensor([[1.0, 2.0, 4.0]]), 0.5)
    tensor([[3., 4., 4.]], dtype=torch.float64)
    """
    rows, tokens = values.shape
    block = min(block, max(tokens, 1))
    padded: torch.Tensor = torch.nn.functional.pad(values.double(), (0, -tokens % block)).unflatten(1, (-1, block))
    place = torch.arange(block, device=values.device)
    distance = place - place.unsqueeze(1)
    powers = torch.where(distance >= 0, gamma ** distance.clamp(min=0).double(), 0.0)
    future = padded @ powers.T
    decay = gamma ** (block - place).double()  # from a token to the first one of the next block
    later = future.new_zeros(rows, 1)
    for number in range(future.shape[1] - 1, -1, -1):
        future[:, number] += later * decay
        later = future[:, number, :1]
    return future.flatten(1)[:, :tokens]
