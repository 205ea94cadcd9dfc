"""verl's configuration as a launch composes it, quickly: composed once, and each test's overrides applied by hydra."""

import copy
from functools import cache

from hydra import compose, initialize_config_module
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
    config = copy.deepcopy(_composed())
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(list(overrides)), config)
    return config
