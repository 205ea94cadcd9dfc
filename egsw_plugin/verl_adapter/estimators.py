"""Our methods as verl advantage estimators: one function over a `Method`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import diagnostics
from ..errors import TensorError
from ..kernels.groups import Rows, dense_group_ids
from ..methods import METHODS, Batch, Method
from . import bases, bridge, checks
from .configuration import options_of


def register(core_algos) -> None:
    """Register every method in verl's registry of advantage estimators."""
    for method in METHODS.values():
        core_algos.register_adv_est(method.name)(make_estimator(method))


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
        if isinstance(index, torch.Tensor):
            index = np.array(index.tolist(), dtype=object)  # tensors of equal value are different keys
        if index is None or len(index) != len(response_mask):
            given = "nothing" if index is None else f"{len(index)} entries"
            raise TensorError(f"{method.name}: index has {given} for {len(response_mask)} rows; pass one uid a row")

        advantages, returns = bases.advantages(
            options.base, tensors, token_level_rewards, response_mask, index, config, checks.key(method, "base")
        )
        needed = {name: tensors.require(name, response_mask) for name in method.needs(options)}
        if "entropy" in needed:
            checks.entropy(needed["entropy"], response_mask, step.vocabulary_size() if step else None)
        if "old_log_probs" in needed:
            checks.log_probs("old_log_probs", needed["old_log_probs"], response_mask)
        scores = tensors.get("token_level_scores")
        scores = checks.scores(token_level_rewards if scores is None else scores, response_mask)
        batch = Batch(
            advantages=advantages,
            rows=Rows.measure(response_mask),
            group_ids=dense_group_ids(index).to(response_mask.device),
            success=scores > diagnostics.SUCCESS_THRESHOLD,
            tensors=needed,
        )
        outcome = method.apply(options, batch)
        if step is not None:
            step.finish(method.name, outcome)
        return outcome.advantages, returns

    estimator.__name__ = estimator.__qualname__ = f"compute_{method.name}_advantage"
    estimator.__doc__ = f"""{method.options_type.__doc__}

    Args: token_level_rewards and response_mask [rows, tokens]; index, one group id a row; config, verl's `algorithm`
    section. By keyword, where the caller has them: entropy (nats), old_log_probs (nats), values, token_level_scores
    (before KL and length terms; they decide success), all [rows, tokens].

    Returns: advantages and returns [rows, tokens]; the returns are the base estimator's own.

    Raises: OptionError, TensorError.
    """
    return estimator


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
