"""Our policy losses in verl's registry. They run in the actor's workers, on one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

import torch

from ..errors import BridgeError, OptionError, TensorError
from ..kernels.policy_loss import clipped_surrogate, sequence_ratio, token_log_ratio, token_mean
from . import bridge

# Mean that makes a response's ratio of its tokens', for the losses that clip a ratio of the whole response.
SEQUENCE_MEAN = {"grpo_s": "arithmetic", "grpo_s_geometric": "geometric"}
LOSS_MODES = ("egsw", "gtpo", *SEQUENCE_MEAN)
REGISTERED: dict[str, Callable] = {}  # what this process handed to verl, by name


def register(core_algos) -> None:
    """Register every loss in verl's registry of policy losses."""
    REGISTERED.update(egsw=egsw_loss, gtpo=gtpo_loss)
    for name, mean in SEQUENCE_MEAN.items():
        REGISTERED[name] = update_wrapper(partial(grpo_s_loss, mean=mean), grpo_s_loss)
    for name, loss in REGISTERED.items():
        core_algos.register_policy_loss(name)(loss)


def gtpo_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Clipped objective of each token, without a dual clip (arXiv 2508.04349, the GTPO objective).

    Args: old_log_prob, log_prob, advantages [rows, tokens]; response_mask bool [rows, tokens]; config, the actor's
    (clip_ratio, clip_ratio_low, clip_ratio_high, global_batch_info).

    Returns: the loss, aggregated by verl's `agg_loss` over the global batch (the paper's mode: token-mean); metrics.
    """
    mask = _mask(response_mask, log_prob, old_log_prob, advantages, rollout_is_weights)
    log_ratio = token_log_ratio(log_prob, old_log_prob, mask)
    return _aggregate(log_ratio.exp(), log_ratio, advantages, mask, loss_agg_mode, config, rollout_is_weights)


def egsw_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Clipped objective of each token times its EGSW weight (arXiv 2503.22456), without a dual clip.

    Args: as of `gtpo_loss`. The weights come from the advantage step.

    Returns: the loss, aggregated by verl's `agg_loss` over the global batch; metrics.

    Raises: BridgeError if no weights arrived, or weights of other rows.
    """
    weights = bridge.current_weights()
    if weights is None:
        raise BridgeError(
            "actor_rollout_ref.actor.policy_loss.loss_mode=egsw: no weights arrived with this batch; set "
            "algorithm.adv_estimator=egsw and +algorithm.egsw.channel=loss"
        )
    if weights.shape != log_prob.shape:
        raise BridgeError(f"weights of shape {tuple(weights.shape)} for log-probabilities of {tuple(log_prob.shape)}")
    mask = _mask(response_mask, log_prob, old_log_prob, advantages, rollout_is_weights)
    weights = weights.to(log_prob.device)
    log_ratio = token_log_ratio(log_prob, old_log_prob, mask)
    factor = weights if rollout_is_weights is None else weights * rollout_is_weights
    loss, metrics = _aggregate(log_ratio.exp(), log_ratio, advantages, mask, loss_agg_mode, config, factor)
    return loss, metrics | {"actor/egsw_weighted/mean": token_mean(weights.ne(1), mask)}


def grpo_s_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "seq-mean-token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
    mean: str = "arithmetic",
) -> tuple[torch.Tensor, dict[str, float]]:
    """Clipped objective of each response, its ratio the mean of its tokens' (arXiv 2508.04349 v6, Eq 11).

    Args: as of `gtpo_loss`; mean: arithmetic or geometric. Each row is a response; where advantages differ from token
    to token, each takes the response's ratio.

    Returns: the loss, aggregated by verl's `agg_loss` over the global batch (the paper's mode: seq-mean-token-mean);
    metrics.
    """
    mask = _mask(response_mask, log_prob, old_log_prob, advantages, rollout_is_weights)
    log_ratio = token_log_ratio(log_prob, old_log_prob, mask)
    ratio = sequence_ratio(log_ratio, mask, mean)
    loss, metrics = _aggregate(ratio, log_ratio, advantages, mask, loss_agg_mode, config, rollout_is_weights)
    return loss, metrics | {"actor/grpo_s_ratio/mean": token_mean(ratio.expand_as(mask), mask)}


def _mask(response_mask: torch.Tensor, *tensors: torch.Tensor | None) -> torch.Tensor:
    """The mask as booleans; refuse tensors of other shapes, which torch might stretch to fit."""
    shapes = [tuple(tensor.shape) for tensor in tensors if tensor is not None]
    if response_mask.dim() != 2 or any(shape != response_mask.shape for shape in shapes):
        raise TensorError(
            f"log-probabilities, advantages and rollout weights have shapes {shapes}, the "
            f"response mask {tuple(response_mask.shape)}; all must be [rows, tokens]"
        )
    return response_mask.bool()


def _aggregate(
    ratio: torch.Tensor,
    log_ratio: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    loss_agg_mode: str,
    config: Any,
    factor: torch.Tensor | None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Clip, multiply each token's loss by `factor`, and let verl aggregate; verl's own metrics of a policy loss."""
    from verl.trainer.ppo.core_algos import agg_loss

    if config is None:
        raise OptionError("config", None, "pass the actor's configuration, which has the bounds of the clip")
    low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
    high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
    # What stands outside the mask means nothing, and NaN times 0 is NaN.
    advantages = advantages.masked_fill(~mask, 0)
    factor = None if factor is None else factor.masked_fill(~mask, 0)
    values, clipped = clipped_surrogate(ratio, advantages, low, high, factor)
    # A mean over no token is 0/0 in verl's aggregation; the sum of these losses is 0 and still has a gradient.
    loss = agg_loss(values, mask, loss_agg_mode, **config.global_batch_info) if bool(mask.any()) else values.sum()
    return loss, {"actor/pg_clipfrac": token_mean(clipped, mask), "actor/ppo_kl": token_mean(-log_ratio, mask)}
