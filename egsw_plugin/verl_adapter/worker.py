"""The worker's side: our policy losses as verl calls them, one micro-batch at a time; the entropy's coefficient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..errors import BridgeError, OptionError, TensorError
from ..fields import Arrived, Field, arrived
from ..methods import LOSSES
from ..methods.interface import PolicyLoss
from ..methods.places import LOSS_MODE
from ..methods.registry import is_file
from ..methods.rules import token_losses
from ..options import Options, decode
from . import contract

REGISTERED: dict[str, Callable] = {}  # what this process handed to verl, by name


def register(core_algos: Any) -> None:
    """Register every policy loss in verl's registry; none is imported before it is called."""
    LOSSES.take(core_algos.POLICY_LOSS_REGISTRY.keys() - REGISTERED.keys() - LOSSES.own.keys())
    for name in LOSSES:
        register_one(core_algos, name)


def register_one(core_algos: Any, name: str) -> None:
    """Register the policy loss `name`, unless it is there: `check_holder` refuses runs on that of another package."""
    if name not in core_algos.POLICY_LOSS_REGISTRY:
        REGISTERED[name] = make_loss(name)
        core_algos.register_policy_loss(name)(REGISTERED[name])


def check_holder(key: str, name: str, registry: Mapping[str, Callable], ours: Mapping[str, Callable]) -> None:
    """Refuse a name of ours under which verl would call another package's function, unless that wraps ours.

    ours: what we registered.
    """
    holder = registry.get(name)
    if not contract.leads_to(holder, ours.get(name)):
        theirs = contract.where(holder)
        fix = (
            f"verl has {theirs} under this name of egsw-plugin's; to train with ours, leave that package out, or have "
            "it take another name or wrap ours with functools.wraps"
        )
        if theirs.startswith("verl."):
            fix = f"this verl has a function of its own under this name of egsw-plugin's, {theirs}"
        raise OptionError(
            key, name, f"{fix}; to train with that one, leave this plugin out (VERL_USE_EXTERNAL_PLUGINS=none)"
        )


def prepare(config: Any) -> None:
    """Before verl looks for the policy loss that the actor's configuration names: register one of a file, and see that
    the name of one of ours is still ours in this process.

    Raises:
        OptionError: It is another package's here.
    """
    from verl.trainer.ppo import core_algos

    name = config.policy_loss.get("loss_mode", "vanilla")
    if is_file(name):
        register_one(core_algos, name)
    if name in LOSSES:
        check_holder(LOSS_MODE, name, core_algos.POLICY_LOSS_REGISTRY, REGISTERED)


def make_loss(name: str) -> Callable:
    """The function that verl calls for policy loss `name`."""

    def policy_loss(
        old_log_prob: torch.Tensor,
        log_prob: torch.Tensor,
        advantages: torch.Tensor,
        response_mask: torch.Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """A policy loss of egsw-plugin.

        Args: old_log_prob, log_prob, advantages [rows, tokens]; response_mask bool [rows, tokens]; config, the actor's
        (clip_ratio, clip_ratio_low, clip_ratio_high, global_batch_info). Fields come from `arrived`.

        Returns: the loss, aggregated by verl's `agg_loss` over the global batch; metrics.

        Raises: BridgeError if a field that it needs did not arrive, or is of other rows.
        """
        from verl.trainer.ppo.core_algos import agg_loss

        loss = LOSSES[name]
        fields = _fields(loss, log_prob)
        mask = _mask(response_mask, log_prob, old_log_prob, advantages, rollout_is_weights)
        if config is None:
            raise OptionError("config", None, "pass the actor's configuration, which has the bounds of the clip")
        result = token_losses(
            loss.rule(_options(loss)),
            log_prob,
            old_log_prob,
            advantages,
            mask,
            config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low,
            config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high,
            fields,
            rollout_is_weights,
        )
        values = result.values
        # A mean over no token is 0/0 in verl's aggregation; the sum of these losses is 0 and still has a gradient.
        total = agg_loss(values, mask, loss_agg_mode, **config.global_batch_info) if bool(mask.any()) else values.sum()
        return total, result.metrics

    policy_loss.__name__ = policy_loss.__qualname__ = f"{name}_loss"
    return policy_loss


def entropy_bonus(config: Any, model_output: Any, data: Any, fields: Arrived, pad: Callable) -> torch.Tensor | None:
    """What the field entropy_coef adds to the loss: minus the mean current entropy (nats, with gradient) of the tokens,
    each times its row's coefficient, aggregated like the policy loss; None where the field did not arrive.

    pad: verl's function from the model's output to [rows, tokens].

    Raises: BridgeError if verl computed no entropy.
    """
    if Field.ENTROPY_COEF not in fields:
        return None
    from verl.trainer.ppo.core_algos import agg_loss

    entropy = model_output.get("entropy", None)
    if entropy is None:
        raise BridgeError(
            "a coefficient of the entropy arrived, and verl computed no entropy; set "
            "actor_rollout_ref.actor.calculate_entropy=True"
        )
    mask = data["response_mask"]
    mask = (mask.to_padded_tensor(0) if mask.is_nested else mask).bool()
    entropy = pad(entropy, data)
    entropy = entropy.to(torch.promote_types(entropy.dtype, torch.float32))
    weighed = entropy * fields[Field.ENTROPY_COEF].to(entropy)
    return -agg_loss(weighed, mask, config.loss_agg_mode, **config.global_batch_info)


def _fields(loss: PolicyLoss, log_prob: torch.Tensor) -> dict[Field, torch.Tensor]:
    """The fields that a policy loss reads and that arrived, on its device."""
    given = arrived()
    for field, how in loss.needs.items():
        if field not in given:
            mode = f"actor_rollout_ref.actor.policy_loss.loss_mode={loss.name}"
            raise BridgeError(f"{mode}: no {field.value}s arrived with this batch; set {how}")
    fields = {field: given[field].to(log_prob.device) for field in loss.reads if field in given}
    for field, tensor in fields.items():
        if tensor.shape not in (log_prob.shape, (*log_prob.shape[:1], 1)):
            raise BridgeError(
                f"{field.value}s of shape {tuple(tensor.shape)} for log-probabilities of {tuple(log_prob.shape)}"
            )
    return fields


def _options(loss: PolicyLoss) -> Options:
    """The options that travelled with the batch, or the defaults of a loss that has none."""
    given, defaults = arrived(), loss.options_type()
    number = len(dataclasses.fields(defaults))
    if not number:
        return defaults
    if Field.LOSS_OPTIONS not in given:
        raise BridgeError(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={loss.name}: its options did not arrive with this batch; "
            "train with verl's V1 trainer (trainer.use_v1=True), whose _compute_advantage sends them: a trainer of "
            "your own must call it"
        )
    numbers = given[Field.LOSS_OPTIONS]
    if numbers.shape[1:] != (number,):
        shape = tuple(numbers.shape)
        raise BridgeError(f"options of shape {shape} arrived for policy loss {loss.name}, which has {number}")
    return decode(loss.options_type, numbers[0].tolist()) if len(numbers) else defaults


def _mask(response_mask: torch.Tensor, *tensors: torch.Tensor | None) -> torch.Tensor:
    """The mask as booleans; refuse tensors of other shapes, which torch might stretch to fit."""
    shapes = [tuple(tensor.shape) for tensor in tensors if tensor is not None]
    if response_mask.dim() != 2 or any(shape != response_mask.shape for shape in shapes):
        raise TensorError(
            f"log-probabilities, advantages and rollout weights have shapes {shapes}, the "
            f"response mask {tuple(response_mask.shape)}; all must be [rows, tokens]"
        )
    return response_mask.bool()
