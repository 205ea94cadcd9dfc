"""verl's estimators as bases: any that verl's V1 trainer can feed, called with what verl itself would pass it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf

from ..errors import OptionError, TensorError, VaryingAdvantagesError
from ..kernels.group_relative import group_relative
from ..kernels.sessions import Sessions
from ..options.checks import finite, flag
from . import checks
from .configuration import get, is_ours

GAE = "gae"
# From this many elements on, returns that only a critic would read are not worth a tensor of their own.
VIEW = 1 << 18


@dataclass(frozen=True)
class VerlBase:
    """How one of verl's estimators is called.

    varying: its advantages differ from token to token, and each output of a session is a trajectory of its own, as in
    verl. of_outcome: one advantage a response, from the sum of its rewards alone, spread over its tokens. responses:
    least number of them to a prompt. compares: its baseline is the other responses to the prompt, without which it has
    none.
    """

    varying: bool = False
    of_outcome: bool = False
    responses: int = 1
    compares: bool = False
    supported: bool = True


OF_OUTCOME = VerlBase(of_outcome=True, compares=True)
# Need what verl's trainer has only where adv_estimator is their name.
UNSUPPORTED = VerlBase(supported=False)
# Those that differ from `VerlBase()`: called with rewards, mask, index and config.
VERL_BASES = {
    GAE: VerlBase(varying=True),
    "reinforce_plus_plus": VerlBase(varying=True),
    "grpo": OF_OUTCOME,
    "grpo_vectorized": OF_OUTCOME,
    "rloo": OF_OUTCOME,
    "rloo_vectorized": VerlBase(of_outcome=True, responses=2),  # gives one that is alone 0
    "grpo_passk": VerlBase(of_outcome=True, responses=2),
    "opo": VerlBase(compares=True),
    "gpg": VerlBase(compares=True),
    "remax": UNSUPPORTED,
    "optimal_token_baseline": UNSUPPORTED,
    "tir_optimal_token_baseline": UNSUPPORTED,
    "gdpo": UNSUPPORTED,
}


def check(name: str, key: str) -> None:
    """Refuse a base that verl does not know or that cannot be a base."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    def possible(name: str) -> bool:
        return not is_ours(name) and VERL_BASES.get(name, VerlBase()).supported

    known = sorted(filter(possible, ADV_ESTIMATOR_REGISTRY))
    if name not in known:
        raise OptionError(key, name, f"use a base estimator registered in verl: {', '.join(known)}")


def settings(config: Any) -> tuple[dict[str, float], bool]:
    """The discounts, and whether GRPO divides by the standard deviation; refuse what is of another type."""
    discounts = {discount: _setting(config, discount, 1.0, finite) for discount in ("gamma", "lam")}
    return discounts, _setting(config, "norm_adv_by_std_in_grpo", True, flag)


def varies(name: str, config: Any) -> bool:
    """Whether advantages differ within a response even where the one reward is at its end."""
    spread = settings(config)[0]["gamma"] != 1 or bool(get(config, "use_kl_in_reward", False))
    return name == GAE or (VERL_BASES.get(name, VerlBase()).varying and spread)


def advantages(
    name: str,
    tensors: Any,
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: Any,
    group_ids: torch.Tensor,
    config: Any,
    key: str,
    outcome: torch.Tensor,
    sessions: Sessions | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of base `name` as verl's trainer would compute them, [rows, tokens] each.

    Where verl itself spreads one number over a response, the advantages are that number, [rows, 1]. Returns of more
    than VIEW elements are then a view that repeats it over the row, tokens that are not the policy's included.

    outcome: the sum of each row's rewards, [rows], of the result's dtype.

    With sessions of several outputs, a session counts once in its group: as verl does it for `grpo`, last outputs are
    compared and the result goes to all outputs of the session.
    """
    check(name, key)
    compute = partial(_compute, name, tensors)
    if sessions is None or VERL_BASES.get(name, VerlBase()).varying:
        return compute(token_level_rewards, response_mask, index, group_ids, config, outcome)
    last = sessions.last
    mask, uids, ids = response_mask[last], index[last.tolist()], group_ids[last]
    result, _ = compute(token_level_rewards[last], mask, uids, ids, config, outcome[last])
    try:
        spread = sessions.spread(result.expand(mask.shape))
    except VaryingAdvantagesError as error:
        own = " or ".join(name for name, base in VERL_BASES.items() if base.varying)
        raise OptionError(
            key, name, f"{error}; use a base with one advantage a response such as grpo, or {own}"
        ) from error
    return spread, spread


def spread_returns(level: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns of a base with one number a response, [rows, 1], or of one that has them for each token already."""
    if level.shape[1] != 1:
        return level
    return level.expand(mask.shape) if mask.numel() > VIEW else level * mask.ne(0)


def _compute(
    name: str,
    tensors: Any,
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: Any,
    group_ids: torch.Tensor,
    config: Any,
    outcome: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    from verl.trainer.ppo import core_algos

    compute, base = core_algos.get_adv_estimator_fn(name), VERL_BASES.get(name, VerlBase())
    dtype = torch.promote_types(token_level_rewards.dtype, torch.float32)
    discounts, divide_by_std = settings(config)
    own = compute.__module__ == core_algos.__name__
    of_outcome = base.of_outcome and own
    if name == "grpo_passk" and own and bool((torch.bincount(group_ids) == 1).any()):
        alone = index[int((torch.bincount(group_ids)[group_ids] == 1).nonzero()[0])]
        raise TensorError(f"base grpo_passk compares the best two responses of a group, and group {alone!r} has one")
    if of_outcome:
        if name == "grpo":
            level = group_relative(outcome, group_ids, divide_by_std).unsqueeze(1)
            return level, spread_returns(level, response_mask)
        token_level_rewards, mask = outcome.unsqueeze(1), torch.ones_like(outcome).unsqueeze(1)
    else:
        # verl's estimators multiply by the mask and subtract it from 1, which asks for numbers 0 and 1.
        mask = response_mask.ne(0).long()
        checks.within("token_level_rewards", token_level_rewards, mask)
    if mask.numel() == 0 or not bool(mask.any()):  # some of verl's estimators refuse a batch without policy tokens
        nothing = torch.zeros(response_mask.shape, dtype=dtype, device=response_mask.device)
        return nothing, nothing
    arguments: dict[str, Any] = {"token_level_rewards": token_level_rewards.to(dtype), "response_mask": mask}
    if name == GAE:
        values = _values(tensors, response_mask)
        arguments["values"] = values.masked_fill(mask.eq(0) & ~values.isfinite(), 0)  # 0 times NaN is NaN
        arguments |= discounts
    else:
        # verl's vectorized estimators read uids as numbers where they can, and so merge "1" and 1.
        arguments |= {"index": group_ids.cpu().numpy() if own else index, "config": _with_discount(config)}
    if name == "grpo":
        arguments["config"] = None
        arguments["norm_adv_by_std_in_grpo"] = divide_by_std
    try:
        result, returns = compute(**arguments)
    except (AssertionError, ValueError) as error:
        raise TensorError(f"base {name} refuses this batch: {error}") from error
    if result.shape != mask.shape or not result.is_floating_point():
        raise TensorError(f"base {name} gave advantages of shape {tuple(result.shape)} and dtype {result.dtype}")
    if of_outcome:
        return result, spread_returns(returns, response_mask)
    return _without_nan(result, mask), _without_nan(returns, mask)


def _without_nan(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`tensor` with 0 for the NaN that some of verl's estimators (opo) leave on groups without policy tokens."""
    if not bool(tensor[:, :1].isnan().any()):
        return tensor  # such rows are NaN from their first column on
    return tensor.masked_fill(mask.eq(0) & tensor.isnan(), 0)


def _with_discount(config: Any) -> Any:
    """`config` as verl's estimators read it, by attribute, with verl's defaults for the discounts where it has none."""
    if config is not None and not isinstance(config, Mapping):
        return config
    if isinstance(config, Mapping) and OmegaConf.is_config(config) and "gamma" in config and "lam" in config:
        return config
    return OmegaConf.create({"gamma": 1.0, "lam": 1.0, **(config or {})}, flags={"allow_objects": True})


def _setting(config: Any, name: str, default: Any, check: Callable[[Any], Any]) -> Any:
    """A setting of verl's own, of the right type."""
    value = get(config, name, default)
    try:
        return check(value)
    except ValueError as error:
        raise OptionError(f"algorithm.{name}", value, str(error)) from None


def _values(tensors: Any, response_mask: torch.Tensor) -> torch.Tensor:
    """The critic's values [rows, tokens], finite at policy tokens."""
    values = tensors.get("values")
    if values is None:
        raise TensorError(
            f"base {GAE} needs values, which neither the caller nor the trainer has; set critic.enable=True"
        )
    values = checks.per_token("values", values, response_mask)
    checks.within("values", values, response_mask)
    return values
