"""Refusals at run time: a tensor that is missing, misshapen or out of range is an error, not a guess."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..console import warn_once
from ..errors import TensorError
from ..kernels.rows import Rows

# What torch can compare and count; a mask of floats may hold whole numbers as well.
MASKS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# The square of a reward must fit float32, in which verl's estimators take standard deviations.
LARGEST = 1e15
# How far an entropy (nats) may lie outside [0, log(vocabulary)]. It is the difference of two numbers of the size of
# the logits, so its error is about that size (up to 50, say) times the precision of the type it was computed in.
ROUNDING = {torch.float64: 1e-3, torch.float32: 1e-2, torch.float16: 0.05, torch.bfloat16: 0.25}
FLOATING = "float64, float32, float16, bfloat16"

FLOAT32_ENTROPY = (
    "set actor_rollout_ref.model.use_remove_padding=True with "
    "actor_rollout_ref.actor.entropy_from_logits_with_chunking=True (with model_engine=veomni "
    "actor_rollout_ref.actor.veomni.entropy_from_logits_with_chunking=True, alike with torchtitan) and "
    "actor_rollout_ref.model.use_fused_kernels=False (fused kernels give it in the model's type), or with FSDP "
    "'+actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}'"
)


def rewards(token_level_rewards: torch.Tensor, response_mask: torch.Tensor) -> None:
    """Refuse rewards and a mask that are not two tensors of one [rows, tokens] shape."""
    for name, tensor in (("token_level_rewards", token_level_rewards), ("response_mask", response_mask)):
        _dense(name, tensor)
    if token_level_rewards.dtype not in ROUNDING:
        raise TensorError(f"token_level_rewards has dtype {token_level_rewards.dtype}; it must be one of {FLOATING}")
    if response_mask.dtype not in (*MASKS, *ROUNDING):
        raise TensorError(f"response_mask has dtype {response_mask.dtype}; it must be of whole numbers or booleans")
    if token_level_rewards.device != response_mask.device:
        raise TensorError(
            f"token_level_rewards are on device {token_level_rewards.device}, response_mask on {response_mask.device}; "
            "both must be on one device"
        )
    if response_mask.dim() != 2 or token_level_rewards.shape != response_mask.shape:
        raise TensorError(
            f"token_level_rewards has shape {tuple(token_level_rewards.shape)} and response_mask "
            f"{tuple(response_mask.shape)}; both must be [rows, tokens]"
        )
    if response_mask.is_floating_point() and not bool(response_mask.isfinite().all()):
        raise TensorError("response_mask holds a NaN or an infinity; it must be 1 at policy tokens and 0 elsewhere")


def _dense(name: str, tensor: Any) -> None:
    """Refuse what is not a plain tensor with data."""
    if not isinstance(tensor, torch.Tensor):
        raise TensorError(f"{name} is a {type(tensor).__name__}; it must be a tensor [rows, tokens]")
    if tensor.layout != torch.strided or tensor.is_nested:
        raise TensorError(f"{name} is a nested or sparse tensor; it must be padded to [rows, tokens]")
    if tensor.is_meta:
        raise TensorError(f"{name} is on device meta and has no data")


def scores(name: str, score: torch.Tensor, which: torch.Tensor) -> None:
    """Refuse a score, [rows], that is not finite or beyond LARGEST in the rows that `which` names, bool [rows]."""
    bad = ~(score.abs() <= LARGEST) & which
    if bad.any():
        row = int(bad.nonzero()[0])
        raise TensorError(
            f"the score of row {row} (the sum of its {name}) is {float(score[row]):g}; the reward function must return "
            f"finite numbers, not beyond {LARGEST:g}"
        )


def within(name: str, tensor: torch.Tensor, response_mask: torch.Tensor) -> None:
    """Refuse a number of a policy token that is not finite or beyond LARGEST, [rows, tokens]."""
    least, greatest = tensor.aminmax() if tensor.numel() else (0.0, 0.0)
    if float(least) >= -LARGEST and float(greatest) <= LARGEST:
        return
    bad = ~(tensor.abs() <= LARGEST) & response_mask.ne(0)
    if bad.any():
        row, token = bad.nonzero()[0].tolist()
        raise TensorError(
            f"{name} of row {row}, token {token} is {float(tensor[row, token]):g}; it must be finite and not beyond "
            f"{LARGEST:g}"
        )


def success_field(key: str, name: str, info: Mapping[str, Sequence[Any]] | None, rows: Rows) -> torch.Tensor:
    """A field of reward_extra_info, which the option of that key names, as float64 [rows]; refuse one that is missing,
    or not a finite number, in a row that has policy tokens."""
    if info is not None and not isinstance(info, Mapping):
        raise TensorError(f"reward_extra_info is a {type(info).__name__}; it must map names to one value a row")
    alive = rows.count.nonzero().squeeze(1).tolist()
    if info and name not in info and alive and all(_unanswered(info, row) for row in alive):
        info = {**info, name: [None] * len(rows.count)}
    if not info or name not in info:
        there = f"it has {', '.join(sorted(map(str, info)))}" if info else "there is none"
        raise TensorError(
            f"{key}={name}: reward_extra_info has no field of that name ({there}); have the reward function return "
            f"it in its dictionary, or set {key}=score"
        )
    try:
        values = torch.tensor([_number(value) for value in info[name]], dtype=torch.float64)
    except TypeError as error:
        raise TensorError(f"field {name} of reward_extra_info is not one value a row: {error}") from error
    if len(values) != len(rows.count):
        raise TensorError(f"field {name} of reward_extra_info has {len(values)} entries for {len(rows.count)} rows")
    unanswered = [row for row, value in enumerate(info[name]) if value is None and _unanswered(info, row)]
    if unanswered:
        warn_once(
            f"{key}={name}: some calls of the reward function failed or took too long and returned no such field: "
            "these responses count as failures, as verl gives them a score of 0"
        )
        values[unanswered] = -torch.finfo(values.dtype).max
    bad = ~values.isfinite() & (rows.count.cpu() > 0)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise TensorError(f"{key}={name}: in row {row} it is {info[name][row]!r}; it must be a finite number")
    return values


def _unanswered(info: Mapping[str, Sequence[Any]], row: int) -> bool:
    """Whether verl's rate_limited reward manager says so: it then returns none of the function's own fields."""
    timeout, error = (info[name][row] if len(info.get(name, ())) > row else None for name in ("timeout", "error"))
    return bool(timeout) or error is not None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last from a tensor of several numbers
        return math.nan


def per_token(name: str, tensor: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Refuse a tensor of another shape than the response mask or of whole numbers; put it on the mask's device."""
    _dense(name, tensor)
    if tensor.shape != response_mask.shape:
        raise TensorError(
            f"{name} has shape {tuple(tensor.shape)}, the response mask {tuple(response_mask.shape)}: it does not "
            "belong to these rows"
        )
    if tensor.dtype not in ROUNDING:
        raise TensorError(f"{name} has dtype {tensor.dtype}; it must be one of {FLOATING}")
    return tensor.to(response_mask.device)


def entropy_dtype(tensor: torch.Tensor) -> None:
    """Warn once of an entropy in bfloat16."""
    if tensor.dtype == torch.bfloat16:
        warn_once(
            "the entropy arrives in bfloat16, so that most tokens share a few values (steps of 0.004 to 0.03 nats at "
            f"0.5 to 8 nats); for float32 {FLOAT32_ENTROPY}"
        )


def entropy(tensor: torch.Tensor, response_mask: torch.Tensor, vocabulary_size: int | None) -> None:
    """Refuse an entropy (nats) of a policy token that is not within [0, log(vocabulary_size)] up to rounding.

    Without a known vocabulary only the lower bound and finiteness are checked. A bfloat16 tensor gets one warning.
    """
    if tensor.numel() == 0:
        return
    entropy_dtype(tensor)
    slack = ROUNDING[tensor.dtype]
    highest = math.inf if vocabulary_size is None else math.log(vocabulary_size)
    least, greatest = (float(bound) for bound in tensor.aminmax())
    if -slack <= least and greatest <= highest + slack and math.isfinite(greatest):
        return
    # Only policy tokens count: look again without the others.
    bad = ~((tensor >= -slack) & (tensor <= highest + slack) & tensor.isfinite()) & response_mask.ne(0)
    if bad.any():
        row, token = bad.nonzero()[0].tolist()
        bound = "infinity" if vocabulary_size is None else f"log({vocabulary_size}) = {highest:.4f}"
        raise TensorError(
            f"entropy of row {row}, token {token} is {float(tensor[row, token])} nats, outside [0, {bound}] "
            f"({int(bad.sum())} such tokens); fused kernels have computed wrong entropies in verl: try "
            "actor_rollout_ref.model.use_fused_kernels=False"
        )


def log_probs(name: str, tensor: torch.Tensor, response_mask: torch.Tensor) -> None:
    """Refuse a log-probability (nats) of a policy token that is not finite, or above 0 beyond rounding."""
    bad = ~(tensor.isfinite() & (tensor <= ROUNDING[tensor.dtype])) & response_mask.ne(0)
    if bad.any():
        row, token = bad.nonzero()[0].tolist()
        raise TensorError(
            f"{name} of row {row}, token {token} is {float(tensor[row, token])} nats; log-probabilities are finite and "
            "not above 0, so check the rollout's (actor_rollout_ref.rollout.calculate_log_probs=True)"
        )
