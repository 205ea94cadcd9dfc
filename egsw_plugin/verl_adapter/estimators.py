"""Our estimators in verl's registry: gather what a chain needs, apply it, and hand on what it publishes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .. import measure
from ..console import warn_once
from ..errors import OptionError, TensorError, VaryingAdvantagesError
from ..kernels.groups import dense_group_ids, mixed_groups
from ..kernels.rows import Rows, row_sums
from ..kernels.sessions import Sessions
from ..methods import MEMBERS
from ..methods.chain import Chain, Link, Result, apply
from ..methods.interface import Base, Batch
from ..methods.places import CHAIN
from . import bases, checks
from .configuration import chain_of
from .step import TrainerStep, current_step, why_missing

REGISTERED: dict[str, Callable] = {}  # what this process handed to verl, by name


def register(core_algos: Any) -> None:
    """Register an estimator for chains, and one for every base and transform alone; none is imported before a call."""
    MEMBERS.take(core_algos.ADV_ESTIMATOR_REGISTRY.keys() - REGISTERED.keys() - MEMBERS.own.keys())
    for name in (CHAIN, *MEMBERS):
        register_one(core_algos, name)


def register_one(core_algos: Any, name: str) -> None:
    """Register the estimator `name`, one of a file (PATH.py:OBJECT) when a configuration names it; unless it is there:
    `startup` refuses runs on that of another package."""
    if name not in core_algos.ADV_ESTIMATOR_REGISTRY:
        REGISTERED[name] = make_estimator(name)
        core_algos.register_adv_est(name)(REGISTERED[name])


@dataclass(frozen=True)
class Call:
    """What verl passed to an estimator, checked: rewards [rows, tokens], one uid and one dense group id a row.

    rows: as the rollout left them. kept: the mask without what verl's rollout correction rejected, which its own
    estimators see.
    """

    rewards: torch.Tensor
    index: np.ndarray
    group_ids: torch.Tensor
    rows: Rows
    kept: torch.Tensor
    config: Any
    tensors: _Tensors
    step: TrainerStep | None
    reward_extra_info: Mapping[str, Sequence[Any]] | None

    @property
    def dtype(self) -> torch.dtype:
        """That of the result: the rewards', or float32."""
        return torch.promote_types(self.rewards.dtype, torch.float32)

    @cached_property
    def reward(self) -> torch.Tensor:
        """Sum of each row's rewards, [rows]."""
        return self.rewards.sum(-1, dtype=self.dtype)


def make_estimator(name: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The function that verl calls for adv_estimator=`name`; what it lacks it asks the running trainer for."""

    @torch.no_grad()
    def estimator(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Any = None,
        config: Any = None,
        *,
        entropy: torch.Tensor | None = None,
        old_log_probs: torch.Tensor | None = None,
        rollout_log_probs: torch.Tensor | None = None,
        ref_log_prob: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
        token_level_scores: torch.Tensor | None = None,
        reward_extra_info: Mapping[str, Sequence[Any]] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        step, chain = current_step(), chain_of(config, name)
        passed = {
            "entropy": entropy,
            "old_log_probs": old_log_probs,
            "rollout_log_probs": rollout_log_probs,
            "ref_log_prob": ref_log_prob,
            "values": values,
            "token_level_scores": token_level_scores,
        }
        mask = response_mask if step is None else step.response_mask(response_mask)
        checks.rewards(token_level_rewards, mask)
        uids = _index(index, len(mask), name)
        call = Call(
            rewards=token_level_rewards,
            index=uids,
            group_ids=dense_group_ids(uids.tolist()).to(mask.device),
            rows=Rows.measure(mask),
            kept=response_mask,
            config=config,
            tensors=_Tensors(passed, step, mask),
            step=step,
            reward_extra_info=reward_extra_info,
        )
        result, returns, success = _estimate(chain, call)
        if metrics is not None:
            metrics.update(result.metrics)
        if step is not None:
            step.finish(name, result, success)
        elif result.fields:
            names = ", ".join(field.value for field in result.fields)
            warn_once(
                f"{name}: called outside of a trainer, so what it publishes for the policy loss ({names}) goes nowhere"
            )
        advantages = result.advantages.to(call.dtype)
        if mask is not response_mask:  # rejected tokens
            advantages = advantages.masked_fill(response_mask.eq(0), 0)
            returns = None if returns is None else returns.masked_fill(response_mask.eq(0), 0)
        return advantages, advantages if returns is None else returns

    estimator.__name__ = estimator.__qualname__ = f"compute_{name}_advantage"
    estimator.__doc__ = """An estimator of egsw-plugin: `egsw-plugin options` lists what it may be given.

    Args: token_level_rewards and response_mask [rows, tokens]; index, one group id a row; config, verl's `algorithm`
    section. By keyword, where the caller has them: entropy (nats), old_log_probs, rollout_log_probs and ref_log_prob
    (nats), values, token_level_scores (before KL and length terms; they decide success), all [rows, tokens];
    reward_extra_info, a mapping from names to one value a row, where a field of it decides success; metrics, a
    dictionary to add the members' metrics to.

    Returns: advantages and returns [rows, tokens]; the returns are the base estimator's own, or the advantages. Of a
    large batch, returns that are one number a response are a view that repeats it outside the mask, too.

    Raises: OptionError, TensorError.
    """
    return estimator


def _estimate(chain: Chain, call: Call) -> tuple[Result, torch.Tensor | None, torch.Tensor]:
    """The chain's result for the rows of a call; the base's returns, or None where they are the advantages; which rows
    are successes, bool [rows]."""
    rows, step = call.rows, call.step
    sessions = step.sessions(rows) if step is not None else None
    # A base of verl's compares all rows of a group, those without policy tokens included.
    own_base = isinstance(chain.base, Link)
    compared = rows.count > 0 if own_base else torch.ones_like(rows.count, dtype=torch.bool)
    checks.scores("token_level_rewards", call.reward, compared)
    base = returns = None
    if not isinstance(chain.base, Link):
        arguments = (call.tensors, call.rewards, call.kept, call.index, call.group_ids, call.config, chain.base_key)
        base, returns = bases.advantages(chain.base, *arguments, call.reward, sessions)
    tensors = _gather(chain, call)
    values = None
    if chain.controlled and step is not None:
        # Of the policy loss's controllers as well, which may measure what no member of the chain needs.
        values = step.control(lambda name: row_sums(call.tensors.require(name, None), rows), rows)
    batch: Batch[torch.Tensor | None] = Batch(
        base=base,
        advantages=None,
        rows=rows,
        group_ids=call.group_ids,
        judged=_success(chain, call),
        outcome=call.reward,
        tensors=tensors,
    )
    joined = batch if sessions is None else _joined(batch, sessions)
    try:
        result = apply(chain.resolved(values), joined)
    except VaryingAdvantagesError as error:
        raise _varying(chain, error) from error
    if sessions is not None:
        result = _split(result, sessions)
    if isinstance(chain.base, Link):
        _warn_if_success_is_misjudged(chain.base, batch, result)
        if chain.transforms:
            returns = bases.spread_returns(result.base, rows.mask)
    return result, returns, batch.judged


def _gather(chain: Chain, call: Call) -> dict[str, torch.Tensor]:
    """The per-token tensors that the chain needs, checked."""
    tensors = {name: call.tensors.require(name, _needing(chain, name)) for name in chain.tensors}
    if "entropy" in tensors:
        checks.entropy(tensors["entropy"], call.rows.mask, call.step.vocabulary_size() if call.step else None)
    for name in ("old_log_probs", "rollout_log_probs", "ref_log_prob"):
        if name in tensors:
            checks.log_probs(name, tensors[name], call.rows.mask)
    if "values" in tensors:
        checks.within("values", tensors["values"], call.rows.mask)
    return tensors


def _needing(chain: Chain, name: str) -> Link | None:
    """The first member that needs a tensor, or None if only a controller does."""
    return next((link for link in chain.links if name in link.requirements.tensors), None)


def _varying(chain: Chain, error: VaryingAdvantagesError) -> OptionError | VaryingAdvantagesError:
    """The error that names the option because of which advantages must not vary within a response."""
    base = chain.base.name if isinstance(chain.base, Link) else chain.base
    for link in chain.links:
        if (varying := link.requirements.varying) is not None:
            option, value = varying
            fix = f"with base={base}, {error}; use {option}={value}, or a base with one advantage a response"
            return OptionError(f"{link.section}.{option}", getattr(link.options, option), fix)
    return error


def _index(index: Any, rows: int, name: str) -> np.ndarray:
    """One hashable uid a row."""
    if isinstance(index, torch.Tensor) and not index.is_meta:
        index = index.tolist()  # tensors of equal value are different keys
    try:
        given = "nothing" if index is None else f"{len(index)} entries"
    except TypeError:  # a number, or an array of no dimension
        given = f"a single {type(index).__name__}"
    if given != f"{rows} entries" or isinstance(index, torch.Tensor | str | bytes | Mapping | Set):
        raise TensorError(f"{name}: index has {given} for {rows} rows; pass one uid a row")
    if isinstance(index, np.ndarray):
        return index
    array = np.empty(rows, dtype=object)
    for row, uid in enumerate(index):
        array[row] = uid
    return array


def _success(chain: Chain, call: Call) -> torch.Tensor:
    """Which rows are successes, bool [rows]."""
    rule, rows, score = chain.success, call.rows, _score(call)
    if rule.field is None:
        checks.scores("token-level scores", score, rows.count > 0)
        _warn_if_graded(chain, score[rows.count > 0])
        return score > rule.threshold
    info = call.reward_extra_info
    if info is None and call.step is not None:
        info = call.step.reward_extra_info(rule.field)
    link = _judging(chain)
    key = "success" if link is None or not hasattr(link.options, "success") else f"{link.section}.success"
    return checks.success_field(key, rule.field, info, rows).to(rows.count.device) > rule.threshold


def _judging(chain: Chain) -> Link | None:
    """The first member that says what makes a response a success."""
    return next((link for link in chain.links if link.requirements.success is not None), None)


def _warn_if_graded(chain: Chain, score: torch.Tensor) -> None:
    """Of more than two scores, [rows], the threshold need not lie where the user would draw the line."""
    link = _judging(chain)
    if link is None or not len(score):
        return
    least, greatest = score.aminmax()
    if bool(((score != least) & (score != greatest)).any()):
        warn_once(
            f"{link.name}: scores take more than two values, and a success is one above {link.section}.threshold "
            f"({chain.success.threshold:g}); if that is not where right and wrong part, set it, or "
            f"{link.section}.success to a field of the reward function that tells them apart"
        )


def _score(call: Call) -> torch.Tensor:
    """Sum of each row's scores, before KL and length terms where the caller has them apart from the rewards, [rows]."""
    scores = call.tensors.get("token_level_scores")
    if scores is None or scores is call.rewards:
        return call.reward
    scores = checks.per_token("token_level_scores", scores, call.rows.mask)
    return scores.sum(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _warn_if_success_is_misjudged(base: Link[Base[Any]], batch: Batch[Any], result: Result) -> None:
    """All advantages are 0 because no group holds a success and a failure; if rewards differ within a group, the user
    would not expect that."""
    if base.requirements.success is None:
        return
    if bool(mixed_groups(batch.group_ids, batch.judged, batch.rows.count > 0).any()) or bool(result.advantages.any()):
        return
    if bool(measure.unequal_groups(batch).any()):
        least, greatest = batch.outcome[batch.rows.count > 0].aminmax()
        warn_once(
            f"{base.name}: every advantage is 0 in this step, because no group holds a success and a failure, though "
            f"rewards differ (from {float(least):.4g} to {float(greatest):.4g}); a success is a score above "
            f"{base.section}.threshold, or the field {base.section}.success above it",
            key=f"{base.name} without a mixed group",
        )


def _joined(batch: Batch[torch.Tensor | None], sessions: Sessions) -> Batch[torch.Tensor | None]:
    """A batch of rows as a batch of sessions: success and reward are the last output's."""
    return Batch(
        base=None if batch.base is None else sessions.join(batch.base),
        advantages=None,
        rows=Rows.measure(sessions.join(batch.rows.mask)),
        group_ids=batch.group_ids[sessions.last],
        judged=batch.judged[sessions.last],
        outcome=batch.outcome[sessions.last],
        tensors={name: sessions.join(tensor) for name, tensor in batch.tensors.items()},
    )


def _split(result: Result, sessions: Sessions) -> Result:
    """What a chain made of sessions as that of their rows."""

    def rows_of(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[sessions.session] if tensor.shape[1] == 1 else sessions.split(tensor)

    return dataclasses.replace(
        result,
        advantages=sessions.split(result.advantages),
        base=rows_of(result.base),
        fields={field: rows_of(tensor) for field, tensor in result.fields.items()},
    )


class _Tensors:
    """Per-token tensors by name: what the caller passed, else what the running trainer has."""

    def __init__(self, passed: dict[str, torch.Tensor | None], step: TrainerStep | None, response_mask: torch.Tensor):
        self.passed, self.step, self.response_mask = passed, step, response_mask

    def get(self, name: str) -> torch.Tensor | None:
        """The tensor, or None if neither the caller nor the trainer has it."""
        tensor = self.passed.get(name)
        if tensor is None and self.step is not None:
            tensor = self.passed[name] = self.step.tensor(name)
        return tensor

    def require(self, name: str, link: Link | None) -> torch.Tensor:
        """The tensor that a member (None: a controller) needs, of the response mask's shape, on its device."""
        tensor = self.get(name)
        if tensor is None:
            raise TensorError(why_missing(name, link, self.step))
        return checks.per_token(name, tensor, self.response_mask)
