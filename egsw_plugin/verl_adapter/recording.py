"""Records of the advantage step: which rows, and what of them, for `egsw_plugin.records`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..console import warn_once
from ..errors import OptionError
from ..fields import Field
from ..options import Options, documented, option, parse
from ..options.checks import whole
from ..records.store import FOLDER, Record, Recorder
from .configuration import Sections, section
from .step import TrainerStep

KEY = "algorithm.record"


@documented
@dataclasses.dataclass(frozen=True)
class RecordOptions(Options):
    """What is recorded, section ``algorithm.record``; with any estimator, verl's own included.

    >>> RecordOptions(every=10).describe()
    'every=10 groups=4'
    """

    every: int = option(10, whole(1, 1_000_000), "record each step that is a multiple of it, and the first one")
    groups: int = option(4, whole(1, 10_000), "whole groups a step, those first whose rewards differ")


def options_of(algorithm: Any) -> RecordOptions | None:
    """The section's options, or None where there is no section. Raises `OptionError`."""
    given = Sections(algorithm).get("record")
    return None if given is None else parse(RecordOptions, given, KEY)


def check(config: Any) -> None:
    """Refuse options that cannot be, before anything starts. Raises `OptionError`."""
    if options_of(config.algorithm) is not None and not config.trainer.get("use_v1", True):
        raise OptionError("trainer.use_v1", False, f"{KEY} needs verl's V1 trainer; set it to True, or leave out {KEY}")


def record(step: TrainerStep) -> None:
    """Record this step if its time has come; what goes wrong is said once, and training goes on."""
    trainer = step.trainer
    options = options_of(trainer.config.algorithm)
    if options is None:
        return
    number = int(trainer.global_steps)
    if number % options.every and number != 1:
        return
    try:
        recorder = getattr(trainer, "egsw_plugin_recorder", None)
        if recorder is None:
            folder = Path(trainer.config.trainer.default_local_dir) / FOLDER
            recorder = trainer.egsw_plugin_recorder = Recorder(folder)
        recorder.write(_gather(step, number, options.groups))
    except Exception as error:
        warn_once(f"step {number} cannot be recorded: {type(error).__name__}: {error}; training goes on")


def _gather(step: TrainerStep, number: int, groups: int) -> Record:
    """Everything of the chosen rows, as plain numbers and text."""
    batch = step.data.batch
    uids = [str(uid) for uid in step.data.non_tensor_batch["uid"]]
    rewards = batch["token_level_rewards"].sum(1)
    real = [row for row, tag in enumerate(step.tags) if not tag.get("is_padding", False)]
    chosen = [real[place] for place in _chosen([uids[r] for r in real], rewards[real].tolist(), groups)]
    keys = [step.keys[row] for row in chosen]
    names = ["prompts", "responses", "entropy"]
    stored = step.queue.kv_batch_get(keys=keys, partition_id=step.partition_id, select_fields=names)
    tokenizer, result = step.trainer.tokenizer, step.result
    prompts, responses = ([x.tolist() for x in stored[name].unbind()] for name in names[:2])
    entropy = [x.tolist() for x in stored["entropy"].unbind()] if "entropy" in stored else None
    success = step.success
    scores = batch["token_level_scores"].sum(1)
    rows = []
    for place, row in enumerate(chosen):
        length = len(responses[place])
        uid, session, _ = step.keys[row].rsplit("_", 2)

        def of_row(tensor: torch.Tensor | None, row=row, length=length) -> list[float] | None:
            if tensor is None:
                return None
            own = tensor[row].float()
            return (own.expand(length) if own.numel() == 1 else own[:length]).tolist()

        advantage = of_row(batch["advantages"])
        base = advantage if result is None else of_row(result.base)
        policy = [bit != 0 for bit in of_row(batch["response_mask"])]
        base = [b if p else 0.0 for b, p in zip(base, policy, strict=True)]
        rows.append(
            {
                "step": number,
                "uid": uid,
                "session": session,
                "prompt": tokenizer.decode(prompts[place]),
                "response": tokenizer.decode(responses[place]),
                "prompt_ids": prompts[place],
                "ids": responses[place],
                "tokens": [tokenizer.decode([token]) for token in responses[place]],
                "policy": policy,
                "old_log_prob": of_row(batch.get("old_log_probs")),
                "entropy": None if entropy is None else entropy[place],
                "base": base,
                "weight": None
                if result is None
                else _weights(of_row(result.fields.get(Field.WEIGHT)), base, advantage),
                "advantage": advantage,
                "reward": float(rewards[row]),
                "score": float(scores[row]),
                "success": bool(scores[row] > 0.5) if success is None else bool(success[row]),
            }
        )
    algorithm = section(step.trainer.config, "algorithm")
    model = str(step.trainer.config.actor_rollout_ref.model.path)
    return Record(rows, {"egsw_plugin": __version__, "algorithm": algorithm, "model": model})


def _chosen(uids: list[str], rewards: list[float], groups: int) -> list[int]:
    """Rows of whole groups, side by side: first of those whose rewards differ, in the order of the batch.

    >>> _chosen(["a", "b", "a", "b", "c"], [1.0, 0.0, 1.0, 1.0, 0.0], 2)
    [1, 3, 0, 2]
    """
    members: dict[str, list[int]] = {}
    for row, uid in enumerate(uids):
        members.setdefault(uid, []).append(row)
    ordered = sorted(members.values(), key=lambda rows: len({rewards[row] for row in rows}) == 1)
    return [row for rows in ordered[:groups] for row in rows]


def _weights(published: list[float] | None, base: list[float], advantage: list[float]) -> list[float] | None:
    """The weights that go to the policy loss; else how many times its base an advantage is, 1 where both are 0
    and NaN where the base alone is."""
    if published is not None:
        return published
    return [1.0 if a == b else a / b if b else math.nan for a, b in zip(advantage, base, strict=True)]
