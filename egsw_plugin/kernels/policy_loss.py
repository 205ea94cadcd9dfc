"""Clipped surrogate objectives, one value a token; aggregation over the batch is the caller's."""

import torch

MAX_LOG_RATIO = 20.0  # exp(20) is 5e8: beyond it a ratio says nothing, and exp(89) overflows float32


def clipped_surrogate(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The negated objective -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) of each token, without a dual clip.

    Args: log_prob (with gradient), old_log_prob and advantages, all [rows, tokens]. r = exp(log_prob - old_log_prob).

    Returns: losses [rows, tokens]; was the clipped branch taken, bool [rows, tokens]; the log-ratio [rows, tokens].

    Source: PPO's objective (arXiv 1707.06347, Eq 7) with separate bounds (arXiv 2503.14476, Eq 8).

    >>> losses, clipped, _ = clipped_surrogate(torch.tensor([[0.5]]), torch.zeros(1, 1), torch.ones(1, 1), 0.2, 0.28)
    >>> losses, clipped
    (tensor([[-1.2800]]), tensor([[True]]))
    """
    log_ratio = (log_prob - old_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    free = -advantages * ratio
    held = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(free, held), held > free, log_ratio
