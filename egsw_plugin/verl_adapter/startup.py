"""Refusals and the greeting at start-up: everything that can be known to be wrong before the first rollout."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable
from typing import Any

from packaging.specifiers import SpecifierSet

from .. import __version__
from ..console import say, warn_once
from ..errors import BridgeError, OptionError
from ..methods import METHODS, Method
from ..options import walk
from ..versions import SUPPORTED_VERL
from . import bases
from .configuration import get, options_of, section, select
from .policy_losses import LOSS_MODES, SEQUENCE_MEAN

LOSS_MODE = "actor_rollout_ref.actor.policy_loss.loss_mode"
VERL_SEQUENCE_LOSSES = ("gspo", "geo_mean")  # of verl's own, those with one ratio a response
# The paper's objective: policy losses (the first one preferred), aggregation.
PAPER_OBJECTIVE = {
    "gtpo": (("gtpo",), "token-mean"),
    "grpo_s": (tuple(SEQUENCE_MEAN), "seq-mean-token-mean"),
    "grpo_s_geometric": (tuple(SEQUENCE_MEAN), "seq-mean-token-mean"),
}


def install(config_module: Any) -> None:
    """Have verl's own `validate_config`, which runs before Ray starts, check our part as well."""
    verl_validate = config_module.validate_config

    @functools.wraps(verl_validate)
    def validate_config(config, *args, **kwargs):
        check(config)
        return verl_validate(config, *args, **kwargs)

    config_module.validate_config = validate_config


def check_trainer(config: Any, missing: list[str]) -> None:
    """Called as verl builds its trainer: check again (other launchers skip validation), and say what will run.

    Warnings come here and not from `check`, because verl validates in another process as well: each is said once.
    """
    import verl

    method = check(config)
    loss = select(config, LOSS_MODE, "vanilla")
    _warn_of_other_sections(config)
    if method is None:
        _warn_of_pairing(config, None, loss)
        return
    if missing:
        raise BridgeError(
            f"algorithm.adv_estimator={method.name}: this verl ({verl.__version__}) lacks {'; '.join(missing)}, which "
            f"the entropy bridge needs; install verl{SUPPORTED_VERL}"
        )
    options = options_of(method, config.algorithm)
    _warn_of_pairing(config, method, loss)
    if method.base(options) is None:
        _warn_of_what_has_no_effect(config, method, options)
    for caution in options.cautions():
        warn_once(f"algorithm.{method.name}: {caution}")
    say(
        f"egsw-plugin {__version__} on verl {verl.__version__}: adv_estimator={method.name} {options.describe()}; "
        f"policy loss {loss}"
    )


def check(config: Any) -> Method | None:
    """Refuse a configuration that cannot work; return the method that it asks for, or None.

    Raises `OptionError` with the key, the value and the fix.
    """
    algorithm = get(config, "algorithm")
    if algorithm is None:
        return None  # not a configuration of reinforcement learning
    name = algorithm.adv_estimator
    _check_sections(config, name)
    loss = select(config, LOSS_MODE, "vanilla")
    _check_loss_name(loss)
    method = METHODS.get(name)
    if method is None:
        _check_name(name)
        if loss == "egsw":
            raise OptionError(LOSS_MODE, loss, f"this loss needs algorithm.adv_estimator=egsw, which is {name!r}")
        return None
    _check_version(name)
    options = options_of(method, algorithm)
    _check_old_trainer(config, method, options)
    _check_entropy(config, method, options)
    _check_group_size(config, method, options)
    if method.base(options) is not None:
        _check_base(config, method, options)
    _check_channel(config, options, method, loss)
    return method


def _check_group_size(config: Any, method: Method, options: Any) -> None:
    """One response a prompt: nothing to compare it with."""
    key = "actor_rollout_ref.rollout.n"
    if select(config, key, 1) != 1:
        return
    if method.base(options) is None and options.unmixed == "drop":
        raise OptionError(key, 1, "a group of one response is never mixed: every advantage would be 0; set 2 or more")
    if getattr(options, "scope", None) == "group":
        fix = (
            f"the softmax over one response is 1: nothing would change; set it to 2 or more, or algorithm.{method.name}"
        )
        raise OptionError(key, 1, f"{fix}.scope=batch")


def _check_entropy(config: Any, method: Method, options: Any) -> None:
    bypass = "algorithm.rollout_correction.bypass_mode"
    if select(config, bypass, False) and "entropy" in method.needs(options):
        fix = "verl then computes no entropy; set it to False"
        if hasattr(options, "entropy"):
            fix += f", or algorithm.{method.name}.entropy=surprisal, which uses -log_prob of the sampled tokens"
        raise OptionError(bypass, True, fix)


def _check_loss_name(loss: str) -> None:
    """verl itself notices a loss that it does not have only in the workers, after the first rollout."""
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    if loss not in POLICY_LOSS_REGISTRY and (near := _near(loss, LOSS_MODES)):
        raise OptionError(LOSS_MODE, loss, f"verl has no such policy loss; did you mean {near!r}?")


def _warn_of_pairing(config: Any, method: Method | None, loss: str) -> None:
    """Objectives that run, but are not the paper's."""
    key, kl_key = "actor_rollout_ref.actor.loss_agg_mode", "actor_rollout_ref.actor.use_kl_loss"
    aggregation = select(config, key, "token-mean")
    wanted = PAPER_OBJECTIVE.get(method.name if method else loss)
    if wanted is None:
        if method is not None and loss in (*SEQUENCE_MEAN, *VERL_SEQUENCE_LOSSES):
            warn_once(
                f"{LOSS_MODE}={loss} has one ratio a response, {method.name} weights a token; use vanilla or gtpo"
            )
        return
    losses, mode = wanted
    fixes = [] if loss in losses or method is None else [f"{LOSS_MODE}={losses[0]}"]
    fixes += [] if aggregation == mode else [f"{key}={mode}"]
    fixes += [f"{kl_key}=False"] if method is not None and select(config, kl_key, False) else []
    if fixes:
        subject = f"algorithm.adv_estimator={method.name}" if method else f"{LOSS_MODE}={loss}"
        warn_once(
            f"{subject} with policy loss {loss}, {aggregation}{' and a KL loss' if kl_key in fixes[-1] else ''} is not "
            f"the objective of arXiv 2508.04349 ({losses[0]}, {mode}, no dual clip, no KL term); for that set "
            f"{' '.join(fixes)}"
        )


def _warn_of_what_has_no_effect(config: Any, method: Method, options: Any) -> None:
    """A method without a base knows success alone: nothing else in the reward reaches its advantages."""
    name = method.name
    if select(config, "algorithm.use_kl_in_reward", False):
        warn_once(
            f"algorithm.use_kl_in_reward=True: {name} judges success before the KL penalty and uses nothing else of "
            "the reward, so the penalty has no effect; a KL loss (actor_rollout_ref.actor.use_kl_loss=True) "
            "has one, but is not in the paper"
        )
    if not select(config, "algorithm.norm_adv_by_std_in_grpo", True):
        warn_once(f"algorithm.norm_adv_by_std_in_grpo=False has no effect on {name}; see algorithm.{name}.norm_set")
    if select(config, "critic.enable", False):
        warn_once(f"critic.enable=True: {name} uses no critic; it would be fitted to advantages. Set it to False")
    if select(config, "reward.reward_kwargs.overlong_buffer_cfg.enable", False):
        if method.success(options).field is None:
            effect = (
                f"is part of the score, so that a long correct response can count as a failure; set algorithm.{name}."
                "success=acc to judge by correctness alone"
            )
        else:
            effect = "does not reach the advantages, which know success alone"
        warn_once(
            f"reward.reward_kwargs.overlong_buffer_cfg: with {name} this length penalty {effect}; the paper's own is "
            f"algorithm.{name}.overlong.enable=True"
        )


def _check_version(name: str) -> None:
    import verl

    if not SpecifierSet(SUPPORTED_VERL).contains(verl.__version__, prereleases=True):
        raise OptionError(
            "algorithm.adv_estimator",
            name,
            f"egsw-plugin {__version__} supports verl{SUPPORTED_VERL}, and this is verl {verl.__version__}; "
            "install a supported version",
        )


def _check_sections(config: Any, name: str) -> None:
    """A section of options that nobody reads, because it is misspelt or misplaced, is refused."""
    from verl.trainer.config import AlgoConfig

    options = (
        {path.rsplit(".", 1)[-1]: path for path, *_ in walk(METHODS[name].options_type)} if name in METHODS else {}
    )
    for key in config.algorithm:
        if key not in METHODS and (near := _near(key)):
            raise OptionError(f"algorithm.{key}", section(config.algorithm, key), f"did you mean algorithm.{near}?")
        if key in options and key not in AlgoConfig.__dataclass_fields__:
            value = section(config.algorithm, key)
            raise OptionError(f"algorithm.{key}", value, f"did you mean algorithm.{name}.{options[key]}?")
    actor = ("actor_rollout_ref", "actor_rollout_ref.actor", "actor_rollout_ref.rollout")
    for place in ("", *actor, "critic", "data", "reward", "trainer"):
        for method in METHODS:
            key = f"{place}.{method}" if place else method
            value = select(config, key)
            if value is not None:
                raise OptionError(key, value, f"these options belong under algorithm.{method}")


def _warn_of_other_sections(config: Any) -> None:
    algorithm = get(config, "algorithm", {})
    name = get(algorithm, "adv_estimator")
    for key in METHODS:
        if key != name and get(algorithm, key) is not None:
            warn_once(f"algorithm.{key} is set, but algorithm.adv_estimator is {name}: these options have no effect")


def _near(name: Any, names: Iterable[str] = METHODS) -> str | None:
    """The one of our names that looks like `name`, whatever the case."""
    near = difflib.get_close_matches(str(name).lower().replace("-", "_"), names, 1, cutoff=0.7)
    return near[0] if near else None


def _check_name(name: str) -> None:
    """verl itself notices an estimator that it does not have only after the first rollout."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    if name in LOSS_MODES:
        fix = f"this is a policy loss; set {LOSS_MODE}={name} and algorithm.adv_estimator=grpo_s"
        raise OptionError("algorithm.adv_estimator", name, fix)
    if name not in ADV_ESTIMATOR_REGISTRY and (near := _near(name)):
        raise OptionError("algorithm.adv_estimator", name, f"verl has no such estimator; did you mean {near!r}?")


def _check_old_trainer(config: Any, method: Method, options: Any) -> None:
    """The bridge is for the V1 trainer; in the old one there is what a patched verl hands over itself."""
    key, fix = "trainer.use_v1", "set trainer.use_v1=True"
    if select(config, key, True):
        return
    if not _patched():
        raise OptionError(
            key,
            False,
            f"the old trainer hands no entropy to adv_estimator={method.name}; {fix}, or patch verl (patches/apply.py)",
        )
    if getattr(options, "channel", "advantage") == "loss":
        raise OptionError(f"algorithm.{method.name}.channel", "loss", f"the old trainer carries no weights; {fix}")
    if (field := method.success(options).field) is not None:
        success = f"algorithm.{method.name}.success"
        raise OptionError(success, field, f"the old trainer hands over no such field; {fix}, or {success}=score")


def _patched() -> bool:
    """Whether verl hands over the tensors that an estimator names; the last patch of our series adds `metrics`."""
    from verl.trainer.ppo.ray_trainer import compute_advantage

    return "metrics" in inspect.signature(compute_advantage).parameters


def _check_base(config: Any, method: Method, options: Any) -> None:
    key, base = f"algorithm.{method.name}.base", method.base(options)
    bases.check(base, key, in_trainer=True)
    if base != bases.GAE:
        return
    if not select(config, "critic.enable", False):
        raise OptionError(
            key, base, "verl starts a critic by itself only for adv_estimator=gae; set critic.enable=True"
        )
    if select(config, "algorithm.use_pf_ppo", False):
        raise OptionError(
            "algorithm.use_pf_ppo",
            True,
            f"verl reweighs with adv_estimator=gae only, not with {key}=gae; set it to False",
        )
    if options.denominator == "all":
        raise OptionError(
            f"algorithm.{method.name}.denominator", "all", "gae's advantages vary within a response; use alive"
        )


def _check_channel(config: Any, options: Any, method: Method, loss: str) -> None:
    key, channel = f"algorithm.{method.name}.channel", getattr(options, "channel", "advantage")
    if channel == "loss" and loss != method.name:
        raise OptionError(key, "loss", f"policy loss {loss!r} would ignore the weights; set {LOSS_MODE}={method.name}")
    if channel != "loss" and loss == "egsw":
        weighted = "algorithm.adv_estimator=egsw and algorithm.egsw.channel=loss"
        raise OptionError(LOSS_MODE, loss, f"this loss takes weights that travel beside the advantages; set {weighted}")
    if getattr(options, "weigh_kl", False):
        weigh_kl = f"algorithm.{method.name}.weigh_kl"
        if channel != "loss":
            raise OptionError(weigh_kl, True, f"the weights reach the workers with {key}=loss only; set it")
        if not select(config, "actor_rollout_ref.actor.use_kl_loss", False):
            raise OptionError(weigh_kl, True, "there is no KL loss; set actor_rollout_ref.actor.use_kl_loss=True")
