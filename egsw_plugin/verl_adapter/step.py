"""The driver's side: one advantage step of verl's V1 trainer, from TransferQueue to TransferQueue.

verl 0.9 computes the old policy's entropy and stores it in TransferQueue, but neither fetches it for the advantage step
nor hands it to an estimator. So, in the trainer's process, `_compute_advantage` runs inside a `TrainerStep`
(`hooks.py`), and an estimator that was not passed a tensor asks the step for it. A tensor that verl passes itself is
used as it is: nothing is then fetched. What a chain publishes for the policy loss is stored beside verl's own fields.
"""

from __future__ import annotations

import contextvars
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..console import one_line, warn_once
from ..controllers import FILE, Controllers
from ..errors import BridgeError, TensorError
from ..fields import Field
from ..kernels.rows import Rows, row_sums
from ..kernels.sessions import Sessions
from ..methods.chain import MEASURED, Link, Result
from ..options import encode
from .configuration import Plan, plan_of, select

_STEP: contextvars.ContextVar[TrainerStep | None] = contextvars.ContextVar("egsw_plugin_step", default=None)


def current_step() -> TrainerStep | None:
    """The advantage step that verl's trainer is in, or None outside of one."""
    return _STEP.get()


@contextmanager
def entered(step: TrainerStep) -> Iterator[TrainerStep]:
    """Have `current_step` be this step meanwhile."""
    token = _STEP.set(step)
    try:
        yield step
    finally:
        _STEP.reset(token)


def why_missing(name: str, link: Link | None, step: TrainerStep | None) -> str:
    """What to tell a user when a member (None: a controller) needs a tensor that is nowhere to be had."""
    who = "a controller" if link is None else link.name
    if step is None:
        return (
            f"{who} needs {name}, which was not passed, and no trainer is running to take it from: pass {name}= "
            "[rows, tokens], or train with verl's V1 trainer (trainer.use_v1=True), whose _compute_advantage a trainer "
            "of your own must call, or with the old one patched by patches/apply.py"
        )
    message = f"{who} needs {name}, which verl's trainer does not have for this batch in partition "
    message += repr(step.partition_id)
    if name == "entropy":
        message += "; with algorithm.rollout_correction.bypass_mode=True verl computes none: set it to False"
        if link is not None and "entropy" in link.requirements.without:
            message += f", or {link.text(link.requirements.without['entropy'])}"
    return message


class TrainerStep:
    """One call of verl's `PPOTrainer._compute_advantage`: which rows it is about, and where results go."""

    def __init__(self, trainer: Any, batch: Any, metrics: dict[str, float], queue: Any, plan: Plan | None = None):
        self.trainer, self.queue, self.metrics = trainer, queue, metrics
        self.keys, self.tags, self.partition_id = batch.keys, batch.tags, batch.partition_id
        self.plan = plan
        self.values: dict[str, float] | None = None  # of the controllers, once they are known
        self.data: Any = None  # verl's padded DataProto of the same rows, once the trainer has fetched it
        self.finished: str | None = None
        self.result: Result | None = None  # of our own estimator
        self.success: torch.Tensor | None = None  # as it judged, bool [rows]
        self.mask: torch.Tensor | None = None  # that it measured the rows by, [rows, tokens]

    def response_mask(self, given: torch.Tensor) -> torch.Tensor:
        """The mask [rows, tokens] as the rollout left it; `given` lacks what verl's rollout correction rejects.

        A rejected token is out of the loss, but the others keep their places, and a response what it is compared with:
        so it is in verl's own GRPO.
        """
        rejecting = select(self.trainer.config, "algorithm.rollout_correction.rollout_rs") is not None
        self.mask = self._fetch("response_mask") if rejecting else None
        if self.mask is None:
            self.mask = given
        return self.mask

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
        # A reward model that shares the actor's devices stores each field under its own name; without one, it is the
        # data set's column.
        config = self.trainer.config
        apart = select(config, "reward.reward_model.enable_resource_pool", False)
        shared = select(config, "reward.reward_model.enable", False) and not apart
        return {name: _plain(data[name])} if shared and name in data else {}

    def vocabulary_size(self) -> int | None:
        """Number of tokens that the actor's logits range over, or None if its configuration does not say."""
        return _vocabulary_size(self.trainer)

    def control(self, totals: Callable[[str], torch.Tensor], rows: Rows) -> dict[str, float]:
        """The values of this step's controllers; `totals` sums the tensor of a name over each row's policy tokens."""
        controllers = controllers_of(self.trainer)
        count = float(rows.count.sum())
        needed = {rule.measure: MEASURED[rule.measure] for rule in controllers.rules.values()}
        measured = {
            measure: (float(totals(name).sum()) * (1 if name == measure else -1), count)
            for measure, name in needed.items()
        }
        step = int(self.trainer.global_steps)
        # As verl decides whether it updates the actor or the critic alone.
        frozen = select(self.trainer.config, "trainer.critic_warmup", 0) > step
        self.values = controllers.step(measured, step, frozen)
        for name, value in self.values.items():
            metric, target = name.replace(".", "/"), controllers.states[name].target
            self.metrics[f"{metric}/mean"] = value
            if target is not None:
                self.metrics[f"{metric}_target/mean"] = target
        return self.values

    def finish(self, name: str, result: Result, success: torch.Tensor) -> None:
        """Take the metrics of an estimator's chain, and what it publishes for the policy loss."""
        self.finished, self.result, self.success = name, result, success
        self.metrics.update(result.metrics)
        self.metrics["credit/incomplete_groups/mean"] = self._incomplete_groups()
        for field, tensor in result.fields.items():
            self._publish(field, tensor)

    def _incomplete_groups(self) -> float:
        """Share of the groups that lack responses; verl says nothing of these beyond its log, and goes on without."""
        real = [
            key.rsplit("_", 2)[:2] for key, tag in zip(self.keys, self.tags, strict=True) if not tag.get("is_padding")
        ]
        sizes = Counter(uid for uid, _ in set(map(tuple, real)))
        wanted = select(self.trainer.config, "actor_rollout_ref.rollout.n")
        small = sum(size < wanted for size in sizes.values())
        if small:
            warn_once(
                f"{small} of {len(sizes)} groups have fewer responses than actor_rollout_ref.rollout.n={wanted}: verl "
                "goes on without those whose reward function or agent loop failed, and without groups that lost all. "
                "Look for `Error in _run_prompt` in the log, unless your prompts bring numbers of their own "
                "(__rollout_n__); credit/incomplete_groups/mean counts them in each step",
                key="incomplete groups",
            )
        return small / len(sizes) if sizes else 0.0

    def publish_loss_options(self, batch: Any) -> None:
        """Send the policy loss's options along with `batch`: its workers have no `algorithm` section.

        One row of numbers for every row of the batch: so they go wherever verl's micro-batches take the rows. Workers
        fetch the fields that `batch` names, which are those that were stored before verl's own last one.
        """
        loss = None if self.plan is None else self.plan.loss
        if loss is None:
            return
        if loss.controlled and self.values is None:  # verl's own estimator has run, and measured nothing
            rows = Rows.measure(self.data.batch["response_mask"])
            self.control(lambda name: row_sums(self._required(name), rows), rows)
        if not (numbers := encode(loss.resolved(self.values).options)):
            return
        self._publish(Field.LOSS_OPTIONS, torch.tensor(numbers, dtype=torch.float64).expand(len(self.keys), -1))
        name = Field.LOSS_OPTIONS.queue_name
        if batch.fields is not None and name not in batch.fields:
            batch.fields = [*batch.fields, name]

    def _required(self, name: str) -> torch.Tensor:
        if (tensor := self.tensor(name)) is None:
            raise TensorError(why_missing(name, None, self))
        return tensor

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

    def _publish(self, field: Field, tensor: torch.Tensor) -> None:
        """Store a field with the rows: one number for a row [rows, 1] or per row [rows, number] as it is, a token's
        [rows, tokens] as long as each response."""
        from tensordict import TensorDict

        stored = tensor.cpu().contiguous()
        if not field.spec.per_row and tensor.shape[1] != 1:
            lengths = torch.tensor(self._response_lengths())
            real = torch.arange(tensor.shape[1]) < lengths.unsqueeze(1)
            offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
            stored = torch.nested.nested_tensor_from_jagged(stored[real], offsets)
        fields = TensorDict({field.queue_name: stored}, batch_size=len(self.keys))
        self.queue.kv_batch_put(keys=self.keys, partition_id=self.partition_id, fields=fields)


def _plain(stack: Any) -> list[Any]:
    """The entries of a field of TransferQueue without their wrappers."""
    from tensordict import NonTensorData

    return [value.data if isinstance(value, NonTensorData) else value for value in stack]


def controllers_of(trainer: Any) -> Controllers:
    """The controllers of a trainer's run, made from its configuration when they are first asked for."""
    if not hasattr(trainer, "egsw_plugin_controllers"):
        trainer.egsw_plugin_controllers = Controllers(plan_of(trainer.config).controlled)
    return trainer.egsw_plugin_controllers


def save_controllers(trainer: Any) -> None:
    """Write the controllers' states into the folder of the checkpoint that verl is about to fill."""
    controllers = controllers_of(trainer)
    if controllers.rules:
        controllers.save(Path(trainer.config.trainer.default_local_dir) / f"global_step_{trainer.global_steps}")


def load_controllers(trainer: Any) -> None:
    """Take the states of the checkpoint that verl has loaded, if it has loaded one."""
    controllers = controllers_of(trainer)
    if not trainer.global_steps:
        return
    folder = Path(trainer.config.trainer.default_local_dir) / f"global_step_{trainer.global_steps}"
    if trainer.config.trainer.resume_mode == "resume_path":
        folder = Path(trainer.config.trainer.resume_from_path)
    if not controllers.rules:
        if (folder / FILE).exists():
            warn_once(
                f"{folder / FILE} holds the state of controllers; this configuration has none and leaves it alone"
            )
    elif not controllers.load(folder):
        names = ", ".join(controllers.rules)
        warn_once(f"{folder} has no {FILE}: the run goes on, and {names} from the first value")


@functools.lru_cache(maxsize=1)
def _vocabulary_size(trainer: Any) -> int | None:
    from transformers import AutoConfig
    from verl.utils.fs import copy_to_local

    model = trainer.config.actor_rollout_ref.model
    path = copy_to_local(select(model, "hf_config_path") or model.path, use_shm=bool(select(model, "use_shm", False)))
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=bool(select(model, "trust_remote_code", False)))
    except Exception as error:  # verl has other ways to read a model that transformers does not know
        warn_once(
            "the size of the vocabulary is not known, so no entropy is refused for being above its logarithm: "
            f"{type(error).__name__}: {one_line(str(error))}"
        )
        return None
    return getattr(config.get_text_config(), "vocab_size", None)
