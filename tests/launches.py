"""verl's configuration as a launch composes it, quickly: composed once, and each test's overrides applied by hydra.

That is what hydra's compose does last; `test_recipes.py` compares the two.
"""

import copy
from functools import cache

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser

# What verl's own validation asks of every configuration.
COMPLETE = [
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    "critic.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.n=4",
]


@cache
def _composed():
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=COMPLETE)


def configuration(*overrides):
    """The configuration of ``python -m verl.trainer.main_ppo OVERRIDES``; no choice of a group."""
    return _with(_composed(), overrides)


def launched(folder, name, overrides):
    """The configuration of ``main_ppo --config-path FOLDER --config-name NAME OVERRIDES``."""
    choices = tuple(one for one in overrides if _is_choice(one))
    # Of hydra's own settings nothing is in what it composes.
    rest = [one for one in overrides if not _is_choice(one) and not one.startswith("hydra.")]
    return _with(_chosen(folder, name, choices), rest)


def _is_choice(override):
    """Whether it names a file of a group, or a place of such: what decides which files are composed."""
    key = override.partition("=")[0]
    return "." not in key or "@" in key or key.startswith("hydra.searchpath")


@cache
def _chosen(folder, name, choices):
    with initialize_config_dir(folder, version_base=None):
        return compose(name, overrides=list(choices))


def _with(composed, overrides):
    config = copy.deepcopy(composed)
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(list(overrides)), config)
    return config
