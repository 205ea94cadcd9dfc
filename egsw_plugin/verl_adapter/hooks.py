"""The one module that wraps parts of verl: its trainers, its `ppo_loss` and its KL penalty."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

from ..console import warn_once
from ..errors import BridgeError
from ..fields import Arrived, Field, arrived, arriving
from . import contract, recording, startup, step, worker
from .configuration import is_ours


def install_in_trainer(trainer_base: Any) -> None:
    """Wrap the trainer's construction, its advantage step, the call in which it hands its batch on, and checkpoints."""
    trainer_class = trainer_base.PPOTrainer
    construct = trainer_class.__init__

    @functools.wraps(construct)
    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        startup.check_trainer(config, contract.TRAINER)
        if (
            startup.takes_part(config) is not None
            and type(self)._compute_advantage is not trainer_class._compute_advantage
        ):
            warn_once(
                f"{type(self)._compute_advantage.__qualname__} stands in place of verl's: unless it calls that one by "
                "super()._compute_advantage(batch, metrics), estimators get no entropy, the policy loss no options and "
                "weights, and nothing is recorded"
            )
        construct(self, config, *args, **kwargs)

    trainer_class.__init__ = __init__
    if contract.broken(trainer_base):
        return  # `check_trainer` refuses what asks for us

    compute = trainer_class._compute_advantage
    hand_on = trainer_base.compute_advantage_for_multi_trajectories
    save, load = trainer_class._save_checkpoint, trainer_class._load_checkpoint

    @functools.wraps(compute)
    def _compute_advantage(self: Any, batch: Any, metrics: Any) -> Any:
        plan = startup.takes_part(self.config)
        if plan is None:
            return compute(self, batch, metrics)
        name = self.config.algorithm.adv_estimator
        with step.entered(step.TrainerStep(self, batch, metrics, trainer_base.tq, plan)) as entered:
            result = compute(self, batch, metrics)
            recording.record(entered)
        if is_ours(name) and entered.finished != name:
            raise BridgeError(
                f"algorithm.adv_estimator={name}: the trainer computed advantages without calling it; another plugin "
                "may have replaced it in verl's registry"
            )
        entered.publish_loss_options(result)
        return result

    @functools.wraps(hand_on)
    def compute_advantage_for_multi_trajectories(data: Any, *args: Any, **kwargs: Any) -> Any:
        if (current := step.current_step()) is not None:
            current.data = data
        return hand_on(data, *args, **kwargs)

    @functools.wraps(save)
    def _save_checkpoint(self: Any) -> Any:
        step.save_controllers(self)  # before verl's, whose last act is to mark the checkpoint as the latest
        return save(self)

    @functools.wraps(load)
    def _load_checkpoint(self: Any) -> Any:
        result = load(self)
        step.load_controllers(self)
        return result

    trainer_class._compute_advantage = _compute_advantage
    trainer_base.compute_advantage_for_multi_trajectories = compute_advantage_for_multi_trajectories
    trainer_class._save_checkpoint, trainer_class._load_checkpoint = _save_checkpoint, _load_checkpoint


def install_in_old_trainer(ray_trainer: Any) -> None:
    """Wrap the construction of verl's old trainer and of what derives from it, as verl's experimental trainers do
    without calling its own; a patched verl hands over tensors and takes metrics by itself."""

    def install(trainer_class: Any) -> None:
        construct = trainer_class.__init__

        @functools.wraps(construct)
        def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
            if not hasattr(self, "egsw_plugin_checked"):
                self.egsw_plugin_checked = True
                startup.check_trainer(config, contract.OLD_TRAINER, type(self).__name__)
            construct(self, config, *args, **kwargs)

        trainer_class.__init__ = __init__

    def __init_subclass__(cls: type[Any], /, **kwargs: Any) -> None:
        super(ray_trainer.RayPPOTrainer, cls).__init_subclass__(**kwargs)
        own = vars(cls).get("__init__")
        if own is not None and list(inspect.signature(own).parameters)[1:2] == ["config"]:
            install(cls)

    install(ray_trainer.RayPPOTrainer)
    ray_trainer.RayPPOTrainer.__init_subclass__ = classmethod(__init_subclass__)


def install_in_worker(losses: Any) -> None:
    """Wrap verl's `ppo_loss`, which drops every field that it does not name, to set ours aside first; and the KL
    penalty that it calls, so that a field can weigh it."""
    if contract.broken(losses):
        return  # the driver refuses what asks for us
    verl_loss, verl_kl = losses.ppo_loss, losses.kl_penalty

    @functools.wraps(verl_loss)
    def ppo_loss(config: Any, model_output: Any, data: Any, dp_group: Any = None) -> Any:
        worker.prepare(config)
        with arriving(Arrived.of(data)) as fields:
            loss, metrics = verl_loss(config, model_output, data, dp_group)
            bonus = worker.entropy_bonus(config, model_output, data, fields, losses.no_padding_2_padding)
        fields.check_read(f"policy loss {config.policy_loss.get('loss_mode', 'vanilla')}")
        return (loss if bonus is None else loss + bonus), metrics

    @functools.wraps(verl_kl)
    def kl_penalty(*args: Any, **kwargs: Any) -> Any:
        divergence = verl_kl(*args, **kwargs)
        weight = arrived().get(Field.KL_WEIGHT)
        return divergence if weight is None else divergence * weight.to(divergence.device)

    losses.ppo_loss, losses.kl_penalty = ppo_loss, kl_penalty
    for name in contract.LOSS_USERS:  # a package that verl imports before plugins may have imported them
        user: Any = sys.modules.get(name)
        if getattr(user, "ppo_loss", None) is verl_loss:
            user.ppo_loss = ppo_loss
