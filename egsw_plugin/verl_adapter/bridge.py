"""The bridge between verl's V1 trainer and the methods: entropy in; metrics and weights out.

verl 0.9 computes the old policy's entropy and stores it in TransferQueue, but neither fetches it for the advantage
step nor hands it to an estimator. So, in the trainer's process, `_compute_advantage` runs inside a `TrainerStep`, and
an estimator that was not passed a tensor asks the step for it. A tensor that verl passes itself is used as it is: the
bridge then fetches nothing. In a worker's process the weights of ``channel: loss`` arrive beside the loss's own fields
and are set aside for the policy loss.
"""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import inspect
from typing import Any

import torch

from ..errors import BridgeError, TensorError
from ..kernels.rows import Rows
from ..kernels.sessions import Sessions
from ..methods import METHODS, Outcome
from .configuration import select

WEIGHTS_FIELD = "egsw_plugin_weights"  # per-token weights in TransferQueue, for channel: loss
WEIGHTS_WITH_KL_FIELD = "egsw_plugin_weights_with_kl"  # the same, where they weigh the KL loss as well

_STEP: contextvars.ContextVar[TrainerStep | None] = contextvars.ContextVar("egsw_plugin_step", default=None)
_WEIGHTS: contextvars.ContextVar[MicroBatchWeights | None] = contextvars.ContextVar("egsw_plugin_weights", default=None)


def current_step() -> TrainerStep | None:
    """The advantage step that verl's trainer is in, or None outside of one."""
    return _STEP.get()


def current_weights() -> torch.Tensor | None:
    """Weights [rows, tokens] of the micro-batch whose loss is being computed, or None if none arrived."""
    arrived = _WEIGHTS.get()
    return None if arrived is None else arrived.weights


@dataclasses.dataclass
class MicroBatchWeights:
    """Weights [rows, tokens], whether they are for the KL loss too, and whether it has been weighed."""

    weights: torch.Tensor
    weigh_kl: bool
    kl_weighed: bool = False

    @classmethod
    def of(cls, data: Any) -> MicroBatchWeights | None:
        """The weights among a micro-batch's fields, or None."""
        for field in (WEIGHTS_FIELD, WEIGHTS_WITH_KL_FIELD):
            if field in data:
                return cls(data[field].to_padded_tensor(0.0), field == WEIGHTS_WITH_KL_FIELD)
        return None


def why_missing(name: str, method: str, step: TrainerStep | None) -> str:
    """What to tell a user when a method needs a tensor that is nowhere to be had."""
    if step is None:
        return (
            f"{method} needs {name}, which was not passed, and no trainer is running to take it from: pass {name}= "
            "[rows, tokens], or train with verl's V1 trainer (trainer.use_v1=True), or with the old one patched by "
            "patches/apply.py"
        )
    message = f"{method} needs {name}, which verl's trainer does not have for this batch in partition "
    message += repr(step.partition_id)
    if name == "entropy":
        message += "; with algorithm.rollout_correction.bypass_mode=True verl computes none: set it to False"
        if method == "egsw":
            message += ", or algorithm.egsw.entropy=surprisal"
    return message


class TrainerStep:
    """One call of verl's `PPOTrainer._compute_advantage`: which rows it is about, and where results go."""

    def __init__(self, trainer: Any, batch: Any, metrics: dict[str, float], queue: Any):
        self.trainer, self.queue, self.metrics = trainer, queue, metrics
        self.keys, self.tags, self.partition_id = batch.keys, batch.tags, batch.partition_id
        self.data: Any = None  # verl's padded DataProto of the same rows, once the trainer has fetched it
        self.finished: str | None = None

    def tensor(self, name: str) -> torch.Tensor | None:
        """Per-token tensor of exactly this step's rows, right-padded like verl's, or None."""
        if self.data is not None and name in self.data.batch:
            return self.data.batch[name]
        return self._fetch(name) if name == "entropy" else None

    def sessions(self, rows: Rows) -> Sessions | None:
        """How rows join into sessions, or None if each session has one output."""
        parts = [key.rsplit("_", 2) for key in self.keys]  # verl's keys are {uid}_{session}_{output}
        odd = [key for key, part in zip(self.keys, parts, strict=True) if len(part) != 3 or not part[2].isdigit()]
        if odd:
            raise BridgeError(
                f"a key in TransferQueue is not {{uid}}_{{session}}_{{output}} but {odd[0]!r}: which outputs belong to "
                "one session cannot be told; this verl is not 0.9's"
            )
        names = [(uid, session) for uid, session, _ in parts]
        if len(set(names)) == len(names):
            return None
        return Sessions.of(names, [int(output) for *_, output in parts], rows)

    def reward_extra_info(self, name: str) -> dict[str, list[Any]]:
        """What the reward function returned beside its score, one value a row: all fields, and None where one lacks."""
        fields = ["extra_fields", name]
        data = self.queue.kv_batch_get(keys=self.keys, partition_id=self.partition_id, select_fields=fields)
        extra = _plain(data["extra_fields"]) if "extra_fields" in data else []
        infos = [(one or {}).get("reward_extra_info") or {} for one in extra]
        if any(infos):
            return {key: [info.get(key) for info in infos] for key in dict.fromkeys(k for info in infos for k in info)}
        # A reward model that shares the actor's devices stores each field under its own name. Not looked at above: the
        # columns of the data set are stored in the same way.
        return {name: _plain(data[name])} if name in data else {}

    def vocabulary_size(self) -> int | None:
        """Number of tokens that the actor's logits range over, or None if its configuration does not say."""
        return _vocabulary_size(self.trainer)

    def finish(self, method: str, outcome: Outcome) -> None:
        """Take a method's metrics, and its weights if they go to the policy loss."""
        self.finished = method
        self.metrics.update(outcome.metrics)
        if outcome.weights is not None:
            self._publish(WEIGHTS_WITH_KL_FIELD if outcome.weigh_kl else WEIGHTS_FIELD, outcome.weights)

    def _fetch(self, name: str) -> torch.Tensor | None:
        nested = self.queue.kv_batch_get(keys=self.keys, partition_id=self.partition_id, select_fields=[name])
        if name not in nested:
            return None
        nested = nested[name]
        if not nested.is_nested:
            raise TensorError(f"{name} in TransferQueue is not a tensor with one length a row; this verl is not 0.9's")
        lengths, expected = nested.offsets().diff().tolist(), self._response_lengths()
        if lengths != expected:
            row = next(i for i, pair in enumerate(zip(lengths, expected, strict=True)) if pair[0] != pair[1])
            raise TensorError(
                f"{name} of row {row} has {lengths[row]} tokens, its response {expected[row]}: it is not this batch's"
            )
        return nested.to_padded_tensor(0.0)

    def _response_lengths(self) -> list[int]:
        """Tokens of each row's response, tool tokens included: from the tags, which verl's agent loop writes."""
        if all("response_len" in tag for tag in self.tags):
            return [tag["response_len"] for tag in self.tags]
        fields = ["response_mask"]
        data = self.queue.kv_batch_get(keys=self.keys, partition_id=self.partition_id, select_fields=fields)
        return data["response_mask"].offsets().diff().tolist()

    def _publish(self, name: str, tensor: torch.Tensor) -> None:
        from tensordict import TensorDict

        lengths = torch.tensor(self._response_lengths())
        real = torch.arange(tensor.shape[1]) < lengths.unsqueeze(1)
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        nested = torch.nested.nested_tensor_from_jagged(tensor.cpu()[real], offsets)
        fields = TensorDict({name: nested}, batch_size=len(self.keys))
        self.queue.kv_batch_put(keys=self.keys, partition_id=self.partition_id, fields=fields)


def _plain(stack: Any) -> list[Any]:
    """The entries of a field of TransferQueue without their wrappers."""
    from tensordict import NonTensorData

    return [value.data if isinstance(value, NonTensorData) else value for value in stack]


def install_in_trainer(trainer_base: Any) -> None:
    """Wrap the trainer's construction, its advantage step, and the call in which it hands its batch on."""
    from . import startup

    trainer_class = trainer_base.PPOTrainer
    missing = missing_in_trainer(trainer_base)

    construct = trainer_class.__init__

    @functools.wraps(construct)
    def __init__(self, config, *args, **kwargs):
        startup.check_trainer(config, missing)
        construct(self, config, *args, **kwargs)

    trainer_class.__init__ = __init__
    if missing:
        return

    compute = trainer_class._compute_advantage
    hand_on = trainer_base.compute_advantage_for_multi_trajectories

    @functools.wraps(compute)
    def _compute_advantage(self, batch, metrics):
        name = self.config.algorithm.adv_estimator
        if name not in METHODS:
            return compute(self, batch, metrics)
        step = TrainerStep(self, batch, metrics, trainer_base.tq)
        token = _STEP.set(step)
        try:
            result = compute(self, batch, metrics)
        finally:
            _STEP.reset(token)
        if step.finished != name:
            raise BridgeError(
                f"algorithm.adv_estimator={name}: the trainer computed advantages without calling it; another plugin "
                "may have replaced it in verl's registry"
            )
        return result

    @functools.wraps(hand_on)
    def compute_advantage_for_multi_trajectories(data, *args, **kwargs):
        if (step := _STEP.get()) is not None:
            step.data = data
        return hand_on(data, *args, **kwargs)

    trainer_class._compute_advantage = _compute_advantage
    trainer_base.compute_advantage_for_multi_trajectories = compute_advantage_for_multi_trajectories


def install_in_old_trainer(ray_trainer: Any) -> None:
    """Wrap the construction of verl's old trainer; a patched verl hands over tensors and takes metrics by itself."""
    from . import startup

    trainer_class = ray_trainer.RayPPOTrainer
    construct = trainer_class.__init__

    @functools.wraps(construct)
    def __init__(self, config, *args, **kwargs):
        startup.check_trainer(config, missing=[])
        construct(self, config, *args, **kwargs)

    trainer_class.__init__ = __init__


def install_in_worker(losses: Any) -> None:
    """Wrap verl's `ppo_loss`, which drops every field that it does not name, to set the weights aside first; and the KL
    penalty that it calls, so that they can weigh it."""
    verl_loss, verl_kl = losses.ppo_loss, losses.kl_penalty

    @functools.wraps(verl_loss)
    def ppo_loss(config, model_output, data, dp_group=None):
        arrived = MicroBatchWeights.of(data)
        token = _WEIGHTS.set(arrived)
        try:
            result = verl_loss(config, model_output, data, dp_group)
        finally:
            _WEIGHTS.reset(token)
        if arrived is not None and arrived.weigh_kl and not arrived.kl_weighed:
            raise BridgeError(
                "algorithm.egsw.weigh_kl=True: verl computed no KL loss to be weighed; set "
                "actor_rollout_ref.actor.use_kl_loss=True"
            )
        return result

    @functools.wraps(verl_kl)
    def kl_penalty(*args, **kwargs):
        divergence = verl_kl(*args, **kwargs)
        arrived = _WEIGHTS.get()
        if arrived is None or not arrived.weigh_kl:
            return divergence
        arrived.kl_weighed = True
        return divergence * arrived.weights.to(divergence.device)

    losses.ppo_loss, losses.kl_penalty = ppo_loss, kl_penalty


def missing_in_trainer(trainer_base: Any) -> list[str]:
    """Which of the parts of verl's trainer that the bridge touches are not as in verl 0.9."""
    expected = {
        "PPOTrainer._compute_advantage": ["self", "batch", "metrics"],
        "compute_advantage_for_multi_trajectories": ["data", "batch_keys", "adv_estimator"],
        "tq.kv_batch_get": ["keys", "partition_id", "select_fields"],
        "tq.kv_batch_put": ["keys", "partition_id", "fields"],
    }
    return _missing(trainer_base, expected)


def missing_in_worker(losses: Any) -> list[str]:
    """The same for verl's losses, in the actor's workers."""
    expected = {"ppo_loss": ["config", "model_output", "data", "dp_group"], "kl_penalty": ["logprob", "ref_logprob"]}
    return _missing(losses, expected)


def _missing(module: Any, expected: dict[str, list[str]]) -> list[str]:
    missing = []
    for path, parameters in expected.items():
        part = module
        for name in path.split("."):
            part = getattr(part, name, None)
        if part is None or any(name not in inspect.signature(part).parameters for name in parameters):
            missing.append(f"{path}({', '.join(parameters)})")
    return missing


@functools.lru_cache(maxsize=1)
def _vocabulary_size(trainer: Any) -> int | None:
    from transformers import AutoConfig
    from verl.utils.fs import copy_to_local

    model = trainer.config.actor_rollout_ref.model
    path = copy_to_local(select(model, "hf_config_path") or model.path, use_shm=bool(select(model, "use_shm", False)))
    config = AutoConfig.from_pretrained(path, trust_remote_code=bool(select(model, "trust_remote_code", False)))
    return getattr(config.get_text_config(), "vocab_size", None)


__all__ = [
    "TrainerStep",
    "current_step",
    "current_weights",
    "install_in_old_trainer",
    "install_in_trainer",
    "install_in_worker",
    "missing_in_trainer",
    "missing_in_worker",
    "why_missing",
]
