"""Our methods as verl advantage estimators: one function over a `Method`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import numpy as np
import torch

from .. import diagnostics
from ..console import warn_once
from ..errors import TensorError
from ..kernels.groups import dense_group_ids
from ..kernels.rows import Rows
from ..kernels.sessions import Sessions
from ..methods import METHODS, Batch, Method, Outcome, Success
from . import bases, bridge, checks
from .configuration import options_of

REGISTERED: dict[str, Callable] = {}  # what this process handed to verl, by name


def register(core_algos) -> None:
    """Register every method in verl's registry of advantage estimators."""
    for method in METHODS.values():
        REGISTERED[method.name] = make_estimator(method)
        core_algos.register_adv_est(method.name)(REGISTERED[method.name])


def make_estimator(method: Method):
    """The function that verl calls for `method`; what it lacks it asks the running trainer for."""

    @torch.no_grad()
    def estimator(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Any = None,
        config: Any = None,
        *,
        entropy: torch.Tensor | None = None,
        old_log_probs: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
        token_level_scores: torch.Tensor | None = None,
        reward_baselines: torch.Tensor | None = None,
        rollout_is_weights: torch.Tensor | None = None,
        sum_pi_squared: torch.Tensor | None = None,
        reward_extra_info: Mapping[str, Sequence[Any]] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        step = bridge.current_step()
        options = options_of(method, config)
        passed = {
            "entropy": entropy,
            "old_log_probs": old_log_probs,
            "values": values,
            "token_level_scores": token_level_scores,
            "reward_baselines": reward_baselines,
            "rollout_is_weights": rollout_is_weights,
            "sum_pi_squared": sum_pi_squared,
        }
        tensors = _Tensors(passed, step, method.name)
        checks.rewards(token_level_rewards, response_mask)
        index = _index(index, len(response_mask), method.name)
        ids = dense_group_ids(index).to(response_mask.device)
        rows = Rows.measure(response_mask)
        sessions = step.sessions(rows) if step is not None else None

        dtype = torch.promote_types(token_level_rewards.dtype, torch.float32)
        reward = token_level_rewards.sum(-1, dtype=dtype)
        base = method.base(options)
        # A base compares all rows of a group, those without policy tokens included.
        compared = rows.count > 0 if base is None else torch.ones_like(rows.count, dtype=torch.bool)
        checks.scores("token_level_rewards", reward, compared)

        advantages = returns = None
        if base is not None:
            compute = bases.advantages if sessions is None else partial(bases.session_advantages, sessions=sessions)
            advantages, returns = compute(
                base, tensors, token_level_rewards, response_mask, index, ids, config, checks.key(method, "base")
            )
        needed = {name: tensors.require(name, response_mask) for name in method.needs(options)}
        if "entropy" in needed:
            checks.entropy(needed["entropy"], response_mask, step.vocabulary_size() if step else None)
        if "old_log_probs" in needed:
            checks.log_probs("old_log_probs", needed["old_log_probs"], response_mask)
        scores = tensors.get("token_level_scores")
        if scores is None or scores is token_level_rewards:
            score = reward
        else:
            scores = checks.per_token("token_level_scores", scores, response_mask)
            score = scores.sum(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        batch = Batch(
            advantages=advantages,
            rows=rows,
            group_ids=ids,
            success=_success(method.success(options), score, rows, reward_extra_info, step),
            outcome=reward,
            tensors=needed,
        )
        outcome = method.apply(options, batch if sessions is None else _joined(batch, sessions))
        if sessions is not None:
            outcome = _split(outcome, sessions)
        if metrics is not None:
            metrics.update(outcome.metrics)
        if step is not None:
            step.finish(method.name, outcome)
        elif outcome.weights is not None:
            warn_once(f"{method.name}: called outside of a trainer, so the weights of channel=loss go nowhere")
        no_group_is_mixed = not outcome.metrics[f"{method.name}/mixed_groups/mean"]
        if base is None and no_group_is_mixed and not bool(outcome.advantages.any()):
            _warn_if_success_is_misjudged(method, batch)
        result = outcome.advantages.to(dtype)
        return result, result if returns is None else returns

    estimator.__name__ = estimator.__qualname__ = f"compute_{method.name}_advantage"
    estimator.__doc__ = f"""{method.options_type.__doc__}

    Args: token_level_rewards and response_mask [rows, tokens]; index, one group id a row; config, verl's `algorithm`
    section. By keyword, where the caller has them: entropy (nats), old_log_probs (nats), values, token_level_scores
    (before KL and length terms; they decide success), all [rows, tokens]; reward_extra_info, a mapping from
    names to one value a row, where a field of it decides success; metrics, a dictionary to add the method's metrics to.

    Returns: advantages and returns [rows, tokens]; the returns are the base estimator's own, or the advantages. Of a
    large batch, returns that are one number a response are a view that repeats it outside the mask, too.

    Raises: OptionError, TensorError.
    """
    return estimator


def _index(index: Any, rows: int, method: str) -> np.ndarray:
    """One hashable uid a row."""
    if isinstance(index, torch.Tensor) and not index.is_meta:
        index = index.tolist()  # tensors of equal value are different keys
    try:
        given = "nothing" if index is None else f"{len(index)} entries"
    except TypeError:  # a number, or an array of no dimension
        given = f"a single {type(index).__name__}"
    if given != f"{rows} entries" or isinstance(index, torch.Tensor | str | bytes | Mapping | Set):
        raise TensorError(f"{method}: index has {given} for {rows} rows; pass one uid a row")
    if isinstance(index, np.ndarray):
        return index
    array = np.empty(rows, dtype=object)
    for row, uid in enumerate(index):
        array[row] = uid
    return array


def _success(
    rule: Success,
    score: torch.Tensor,
    rows: Rows,
    reward_extra_info: Mapping[str, Sequence[Any]] | None,
    step: bridge.TrainerStep | None,
) -> torch.Tensor:
    """Which rows are successes, bool [rows]."""
    if rule.field is None:
        checks.scores("token-level scores", score, rows.count > 0)
        return score > rule.threshold
    if reward_extra_info is None and step is not None:
        reward_extra_info = step.reward_extra_info(rule.field)
    return checks.success_field(rule.field, reward_extra_info, rows).to(rows.count.device) > rule.threshold


def _warn_if_success_is_misjudged(method: Method, batch: Batch) -> None:
    """All advantages are 0; if rewards differ within a group, the user would not expect that."""
    if bool(diagnostics.unequal_groups(batch).any()):
        least, greatest = batch.outcome[batch.rows.count > 0].aminmax()
        warn_once(
            f"{method.name}: every advantage is 0 in this step, because no group holds a success and a failure, though "
            f"rewards differ (from {float(least):.4g} to {float(greatest):.4g}); a success is a score above algorithm."
            f"{method.name}.threshold, or the field algorithm.{method.name}.success above it"
        )


def _joined(batch: Batch, sessions: Sessions) -> Batch:
    """A batch of rows as a batch of sessions: success and reward are the last output's."""
    return Batch(
        advantages=None if batch.advantages is None else sessions.join(batch.advantages),
        rows=Rows.measure(sessions.join(batch.rows.mask)),
        group_ids=batch.group_ids[sessions.last],
        success=batch.success[sessions.last],
        outcome=batch.outcome[sessions.last],
        tensors={name: sessions.join(tensor) for name, tensor in batch.tensors.items()},
    )


def _split(outcome: Outcome, sessions: Sessions) -> Outcome:
    """Advantages and weights of sessions as those of their rows."""
    weights = None if outcome.weights is None else sessions.split(outcome.weights)
    return dataclasses.replace(outcome, advantages=sessions.split(outcome.advantages), weights=weights)


class _Tensors:
    """Per-token tensors by name: what the caller passed, else what the running trainer has."""

    def __init__(self, passed: dict[str, torch.Tensor | None], step: bridge.TrainerStep | None, method: str):
        self.passed, self.step, self.method = passed, step, method

    def get(self, name: str) -> torch.Tensor | None:
        """The tensor, or None if neither the caller nor the trainer has it."""
        tensor = self.passed.get(name)
        if tensor is None and self.step is not None:
            tensor = self.passed[name] = self.step.tensor(name)
        return tensor

    def require(self, name: str, response_mask: torch.Tensor) -> torch.Tensor:
        """The tensor, of the response mask's shape, on its device."""
        tensor = self.get(name)
        if tensor is None:
            raise TensorError(bridge.why_missing(name, self.method, self.step))
        return checks.per_token(name, tensor, response_mask)
