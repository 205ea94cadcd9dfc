"""Refusals and the greeting at start-up: everything that can be known to be wrong before the first rollout."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import Any

from packaging.specifiers import SpecifierSet

from .. import __version__
from ..console import say, warn_once
from ..errors import BridgeError, OptionError
from ..methods import METHODS
from . import bases
from .configuration import get, options_of, section, select

SUPPORTED_VERL = ">=0.9.1,<0.10"  # as in pyproject.toml
LOSS_MODE = "actor_rollout_ref.actor.policy_loss.loss_mode"


def install(config_module: Any) -> None:
    """Have verl's own `validate_config`, which runs before Ray starts, check our part as well."""
    verl_validate = config_module.validate_config

    @functools.wraps(verl_validate)
    def validate_config(config, *args, **kwargs):
        check(config)
        return verl_validate(config, *args, **kwargs)

    config_module.validate_config = validate_config


def check_trainer(config: Any, missing: list[str]) -> None:
    """Called as verl builds its trainer: check again (other launchers skip validation), and say what will run."""
    import verl

    method = check(config)
    if method is None:
        return
    if missing:
        raise BridgeError(
            f"algorithm.adv_estimator={method.name}: this verl ({verl.__version__}) lacks {'; '.join(missing)}, which "
            f"the entropy bridge needs; install verl{SUPPORTED_VERL}"
        )
    options = options_of(method, config.algorithm)
    say(
        f"egsw-plugin {__version__} on verl {verl.__version__}: adv_estimator={method.name} {options.describe()}; "
        f"policy loss {select(config, LOSS_MODE, 'vanilla')}"
    )


def check(config: Any):
    """Refuse a configuration that cannot work; return the method that it asks for, or None.

    Raises `OptionError` with the key, the value and the fix.
    """
    algorithm = get(config, "algorithm")
    if algorithm is None:
        return None  # not a configuration of reinforcement learning
    name = algorithm.adv_estimator
    _check_sections(config, name)
    loss = select(config, LOSS_MODE, "vanilla")
    method = METHODS.get(name)
    if method is None:
        _check_name(name)
        if loss in METHODS:
            raise OptionError(LOSS_MODE, loss, f"this loss needs algorithm.adv_estimator={loss}, which is {name!r}")
        return None
    _check_version(name)
    options = options_of(method, algorithm)
    _check_trainer_mode(config, name)
    _check_base(config, method, options)
    _check_channel(options, method, loss)
    bypass = "algorithm.rollout_correction.bypass_mode"
    if select(config, bypass, False) and "entropy" in method.needs(options):
        raise OptionError(
            bypass,
            True,
            f"verl then computes no entropy; set it to False, or algorithm.{name}.entropy=surprisal, which uses "
            "-log_prob of the sampled tokens",
        )
    return method


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
    """A section of options that nobody reads is refused if it is misspelt or misplaced, else warned of."""
    from verl.trainer.config import AlgoConfig

    options = {field.name for field in dataclasses.fields(METHODS[name].options_type)} if name in METHODS else set()
    for key in config.algorithm:
        if key not in METHODS and (near := _near(key)):
            raise OptionError(f"algorithm.{key}", section(config.algorithm, key), f"did you mean algorithm.{near}?")
        if key in options and key not in AlgoConfig.__dataclass_fields__:
            value = section(config.algorithm, key)
            raise OptionError(f"algorithm.{key}", value, f"did you mean algorithm.{name}.{key}?")
        if key in METHODS and key != name:
            warn_once(f"algorithm.{key} is set, but algorithm.adv_estimator is {name}: these options have no effect")
    for place in ("", "data", "actor_rollout_ref", "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "trainer"):
        for method in METHODS:
            key = f"{place}.{method}" if place else method
            value = select(config, key)
            if value is not None:
                raise OptionError(key, value, f"these options belong under algorithm.{method}")


def _near(name: Any) -> str | None:
    """The method whose name looks like `name`, whatever the case."""
    near = difflib.get_close_matches(str(name).lower(), METHODS, 1, cutoff=0.7)
    return near[0] if near else None


def _check_name(name: str) -> None:
    """verl itself notices an estimator that it does not have only after the first rollout."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    if name not in ADV_ESTIMATOR_REGISTRY and (near := _near(name)):
        raise OptionError("algorithm.adv_estimator", name, f"verl has no such estimator; did you mean {near!r}?")


def _check_trainer_mode(config: Any, name: str) -> None:
    if not select(config, "trainer.use_v1", True):
        raise OptionError(
            "trainer.use_v1",
            False,
            f"the old trainer hands no entropy to adv_estimator={name}; set trainer.use_v1=True",
        )


def _check_base(config: Any, method: Any, options: Any) -> None:
    key = f"algorithm.{method.name}.base"
    bases.check(options.base, key, in_trainer=True)
    if options.base != bases.GAE:
        return
    if not select(config, "critic.enable", False):
        raise OptionError(
            key, options.base, "verl starts a critic by itself only for adv_estimator=gae; set critic.enable=True"
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


def _check_channel(options: Any, method: Any, loss: str) -> None:
    key = f"algorithm.{method.name}.channel"
    if options.channel == "loss" and loss != method.name:
        raise OptionError(key, "loss", f"policy loss {loss!r} would ignore the weights; set {LOSS_MODE}={method.name}")
    if options.channel != "loss" and loss == method.name:
        raise OptionError(LOSS_MODE, loss, f"this loss takes weights that travel beside the advantages; set {key}=loss")
