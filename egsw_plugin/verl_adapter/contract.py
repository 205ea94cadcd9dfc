"""What the plugin needs of verl: its names, and the parameters by which they are called.

Checked in every run as verl builds its trainer: a run is refused for what verl lacks, never for its version's number.
tests/test_contract.py adds the facts of verl's source on which the plugin relies and that no look at names can see.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

CORE = "verl.trainer.ppo.core_algos"
VALIDATION = "verl.utils.config"
TRAINER = "verl.trainer.ppo.v1.trainer_base"
OLD_TRAINER = "verl.trainer.ppo.ray_trainer"
LOSSES = "verl.workers.utils.losses"
# Those that take `ppo_loss` from there by name, as they are imported.
LOSS_USERS = ("verl.trainer.distillation.losses", "verl.workers.engine_workers")

# By module: each part, and the parameters that it is called with (None: it is no function).
NEEDED: dict[str, dict[str, list[str] | None]] = {
    CORE: {
        "ADV_ESTIMATOR_REGISTRY": None,
        "POLICY_LOSS_REGISTRY": None,
        "register_adv_est": ["name_or_enum"],
        "register_policy_loss": ["name"],
        "agg_loss": ["loss_mat", "loss_mask", "loss_agg_mode"],
    },
    TRAINER: {
        "PPOTrainer.__init__": ["self", "config"],
        "PPOTrainer._compute_advantage": ["self", "batch", "metrics"],
        "PPOTrainer._save_checkpoint": ["self"],
        "PPOTrainer._load_checkpoint": ["self"],
        "compute_advantage_for_multi_trajectories": ["data", "batch_keys", "adv_estimator"],
        "tq.kv_batch_get": ["keys", "partition_id", "select_fields"],
        "tq.kv_batch_put": ["keys", "partition_id", "fields"],
    },
    OLD_TRAINER: {"RayPPOTrainer.__init__": ["self", "config"]},
    LOSSES: {
        "ppo_loss": ["config", "model_output", "data", "dp_group"],
        "kl_penalty": ["logprob", "ref_logprob"],
        "no_padding_2_padding": ["tensor", "data"],
    },
}


def broken(*modules: str | ModuleType) -> list[str]:
    """Which parts of these modules of verl, by name or imported, are not as needed; imports those that are named.

    >>> stranger = ModuleType(LOSSES)
    >>> stranger.ppo_loss = lambda config, model_output, data: None
    >>> broken(stranger)[0]
    'verl.workers.utils.losses.ppo_loss(config, model_output, data, dp_group)'
    """
    found = []
    for one in modules:
        name = one if isinstance(one, str) else one.__name__
        try:
            module = importlib.import_module(one) if isinstance(one, str) else one
        except ImportError as error:
            found.append(f"{name} ({error})")
            continue
        for path, parameters in NEEDED[name].items():
            if not _fits(module, path, parameters):
                found.append(f"{name}.{path}" + ("" if parameters is None else f"({', '.join(parameters)})"))
    return found


def leads_to(function: Any, ours: Any) -> bool:
    """Whether a function is ours, or wraps it.

    >>> from functools import wraps
    >>> leads_to(wraps(broken)(lambda *modules: broken(*modules)), broken), leads_to(print, broken)
    (True, False)
    """
    return inspect.unwrap(function, stop=lambda part: part is ours) is ours


def where(function: Any) -> str:
    """A function's name, and the place of its code, which `functools.wraps` leaves alone."""
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def _fits(part: Any, path: str, parameters: list[str] | None) -> bool:
    for name in path.split("."):
        part = getattr(part, name, None)
    if part is None or parameters is None:
        return part is not None
    return callable(part) and set(parameters) <= set(inspect.signature(part).parameters)
