"""Records of the advantage step: which rows, and what of them, for `egsw_plugin.records`."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..console import warn_once
from ..errors import OptionError
from ..fields import Field
from ..kernels.groups import dense_group_ids
from ..kernels.rows import Rows
from ..methods.chain import Link, Result
from ..options import Options, documented, option, parse
from ..options.checks import whole
from ..records.store import FOLDER, Record, Recorder, weights_of
from . import bases, checks
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


def check(config: Any, old_trainer: str | None = None) -> None:
    """Refuse options that cannot be, before anything starts. Raises `OptionError`.

    old_trainer: the class that is being built, where it is verl's old trainer or derives from it.
    """
    options = options_of(config.algorithm)
    if options is None:
        return
    if not config.trainer.get("use_v1", True):
        raise OptionError("trainer.use_v1", False, f"{KEY} needs verl's V1 trainer; set it to True, or leave out {KEY}")
    if old_trainer is not None:
        fix = f"it needs verl's V1 trainer, which {old_trainer} is not; start verl.trainer.main_ppo, or leave out {KEY}"
        raise OptionError(f"{KEY}.every", options.every, fix)


def record(step: TrainerStep) -> None:
    """Record this step if its time has come; what goes wrong is said once, and training goes on."""
    trainer = step.trainer
    options = options_of(trainer.config.algorithm)
    if options is None:
        return
    number = int(trainer.global_steps)
    if number % options.every and number != 1:
        return
    if getattr(trainer, "egsw_plugin_recorded", None) == number:
        warn_once("verl takes a step in several mini-batches, each with its own advantages: the first one is recorded")
        return
    trainer.egsw_plugin_recorded = number
    start = time.perf_counter()
    try:
        recorder = getattr(trainer, "egsw_plugin_recorder", None)
        if recorder is None:
            folder = Path(trainer.config.trainer.default_local_dir) / FOLDER
            recorder = trainer.egsw_plugin_recorder = Recorder(folder)
        recorder.write(partial(_record, **_gather(step, options.groups), step=number))
    except Exception as error:
        warn_once(f"step {number} cannot be recorded: {type(error).__name__}: {error}; training goes on")
    step.metrics["timing_s/record"] = time.perf_counter() - start  # of the driver; the rest is its thread's


def _gather(step: TrainerStep, groups: int) -> dict[str, Any]:
    """Copies of what `_record` needs of the chosen rows."""
    batch, result = step.data.batch, step.result
    mask = batch["response_mask"] if step.mask is None else step.mask  # the second is of our own estimators
    uids = [str(uid) for uid in step.data.non_tensor_batch["uid"]]
    rewards, scores = (batch[name].sum(1) for name in ("token_level_rewards", "token_level_scores"))
    real = [row for row, tag in enumerate(step.tags) if not tag.get("is_padding", False)]
    chosen = [real[place] for place in _chosen([uids[r] for r in real], rewards[real].tolist(), groups)]
    keys = [step.keys[row] for row in chosen]
    names = ["prompts", "responses", "entropy"]
    stored = step.queue.kv_batch_get(keys=keys, partition_id=step.partition_id, select_fields=names)
    columns = {
        "policy": mask.ne(0),
        "old_log_prob": batch.get("old_log_probs"),
        "base": batch["advantages"] if result is None else _base(step, result, rewards, mask),
        "weight": None if result is None else result.fields.get(Field.WEIGHT),
        "advantage": batch["advantages"] if result is None else result.advantages,
    }
    if "entropy" in stored:
        checks.entropy_dtype(stored["entropy"])
    tokenizer = step.trainer.tokenizer
    prompts, responses = ([ids.tolist() for ids in stored[name].unbind()] for name in names[:2])
    success = scores > 0.5 if step.success is None else step.success
    return {
        "uids": [uids[row] for row in chosen],
        "sessions": [key.rsplit("_", 2)[1] for key in keys],
        "prompts": list(zip(prompts, map(tokenizer.decode, prompts), strict=True)),
        "responses": list(zip(responses, map(tokenizer.decode, responses), strict=True)),
        # Here and not in the thread: a tokenizer that is used at two places at once may refuse one of them.
        "texts": {token: _text(tokenizer, token) for token in set().union(*responses)},
        "entropy": [numbers.float() for numbers in stored["entropy"].unbind()] if "entropy" in stored else None,
        "columns": {name: None if tensor is None else tensor[chosen] for name, tensor in columns.items()},
        "outcomes": [
            {"reward": reward, "score": score, "success": right}
            for reward, score, right in zip(*(x[chosen].tolist() for x in (rewards, scores, success)), strict=True)
        ],
        "weighed": result is not None,
        "about": {
            "egsw_plugin": __version__,
            "groups": len({uids[row] for row in real}),
            "algorithm": section(step.trainer.config, "algorithm"),
            "model": str(step.trainer.config.actor_rollout_ref.model.path),
            "special_ids": sorted(getattr(tokenizer, "all_special_ids", ())),
        },
    }


def _text(tokenizer: Any, token: int) -> str:
    """The text of a token behind another one: SentencePiece's tokenizers take the space from the first of a text."""
    alone, twice = (tokenizer.decode([token] * times) for times in (1, 2))
    return twice[len(alone) :] if twice.startswith(alone) else alone


def _base(step: TrainerStep, result: Result, rewards: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The base's advantages; of a method that makes its own from the rewards, GRPO's, with which one compares it."""
    if step.plan is None or step.plan.chain is None or not isinstance(step.plan.chain.base, Link):
        return result.base
    batch, index = step.data.batch, step.data.non_tensor_batch["uid"]
    rows = Rows.measure(mask)
    tensors = (batch["token_level_rewards"], rows.mask, index, dense_group_ids(index))
    return bases.advantages("grpo", {}, *tensors, step.trainer.config.algorithm, KEY, rewards, step.sessions(rows))[0]


def _record(
    step: Any,
    uids: Any,
    sessions: Any,
    prompts: Any,
    responses: Any,
    texts: Any,
    entropy: Any,
    columns: Any,
    outcomes: Any,
    weighed: Any,
    about: Any,
) -> Record:
    """Plain numbers and text of what was gathered."""
    rows = []
    for row, (ids, response) in enumerate(responses):
        own: dict[str, Any] = {
            name: None if tensor is None else tensor[row].expand(max(len(ids), tensor.shape[1]))[: len(ids)].tolist()
            for name, tensor in columns.items()
        }
        own["base"] = [base if policy else 0.0 for base, policy in zip(own["base"], own["policy"], strict=True)]
        own["weight"] = weights_of(own["weight"], own["base"], own["advantage"]) if weighed else None
        prompt_ids, prompt = prompts[row]
        rows.append(
            {
                "step": step,
                "uid": uids[row],
                "session": sessions[row],
                "prompt": prompt,
                "response": response,
                "prompt_ids": prompt_ids,
                "ids": ids,
                "tokens": [texts[token] for token in ids],
                "entropy": None if entropy is None else entropy[row].tolist(),
                **own,
                **outcomes[row],
            }
        )
    return Record(rows, about)


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
