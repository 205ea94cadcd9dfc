"""A test kit for members: the invariances that all of the family has, in one call.

    from egsw_plugin.testing import check

    def test_mine():
        check(Mine)

It needs neither verl nor pytest. What it cannot know is what your member is meant to compute: write a loop for that.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from .console import muted
from .errors import EGSWPluginError, MemberError
from .fields import Field
from .kernels.group_relative import group_relative
from .kernels.rows import Rows
from .methods import LOSSES, MEMBERS, named
from .methods.chain import Chain, Link, Result, apply
from .methods.interface import TENSORS, Base, Batch, Change, Member, PolicyLoss, Transform
from .methods.registry import Registry, refuse_unfit
from .methods.rules import Losses, Rule, token_losses
from .options import NoOptions, decode, encode, parse, walk
from .options.spelling import close, question

WORDS = ("mean", "max", "min", "sum")  # one of which ends a metric's name
ELSEWHERE = ("max", "min", "sum", "total")  # by what else in a name verl would reduce it


class _Doubled(Transform[NoOptions]):
    """What may stand before a transform in a chain."""

    name = "doubled"

    def apply(self, options: NoOptions, batch: Batch) -> Change:
        return Change(2 * batch.advantages, metrics={})


BEFORE = Link(_Doubled(), NoOptions(), "doubled")
NEUTRAL = {Field.WEIGHT: 1.0, Field.KL_WEIGHT: 1.0, Field.ANCHOR: 0.0, Field.ENTROPY_COEF: 0.0}


class CheckFailed(AssertionError):
    """What did not hold, of which member, with which options."""


def check(member: Member | type[Member] | str, options: Mapping[str, Any] | None = None, seed: int = 0) -> int:
    """Run every invariance on a member, with its defaults, with every option's own samples, and with `options`.

    An option whose check is a plain function has no samples, and is tried at its default alone;
    `options.checks.sampled` gives it some.

    Args:
        member: a member, its class, or its name (that of an entry point or PATH.py:OBJECT, too).
        options: a section of its options to try as well. What its own `refusals` name, the defaults where an option
            must be set, is tried on top of these.

    Returns: how many settings were tried; combinations that are refused all the same are left out.

    Raises:
        CheckFailed: which one does not hold, and with which options.
        MemberError: its name or its options cannot serve.

    >>> from egsw_plugin.methods.sign_weight import SignWeight
    >>> check(SignWeight, {"positive": 0.5, "negative": 2.0}) > 3
    True
    """
    tried = 0
    for one in _members(member):
        left_out, used = set[str](), set[str]()
        given = _flat(options or {})
        for section, ordinary in [*settings_of(one, seed), *([(given, True)] if given else [])]:
            chosen = tried_with = _flat(section)
            link = _link(one, chosen)
            if given and link.resolved().options.refusals():
                tried_with = given | chosen
                link = _link(one, tried_with)
            said = f"{one.name} with {_nested(dict(tried_with)) or 'its defaults'}"
            if refusals := link.resolved().options.refusals():
                _hold(bool(chosen) and chosen != given, f"{said}: refused: {'; '.join(map(': '.join, refusals))}")
                left_out |= chosen.keys()
                continue
            used |= chosen.keys()
            try:
                if isinstance(one, PolicyLoss):
                    _check_loss(one, link, ordinary, seed)
                else:
                    _check_estimating(one, link, ordinary, seed)
            except CheckFailed as failure:
                raise CheckFailed(f"{said}: {failure}") from None
            tried += 1
        untried = ", ".join(sorted(left_out - used))
        _hold(not untried, f"{one.name}: all samples of {untried} are refused; give `options` that go together")
        for field in dataclasses.fields(one.options_type):
            if field.metadata.get("controllers"):
                _check_name(f"{one.name}/{field.name}/mean")  # of the value in each step
        _check_identity(one, seed)
    return tried


def settings_of(member: Member, seed: int = 0) -> list[tuple[dict[str, Any], bool]]:
    """Sections of options to try, and whether their values are ordinary ones (or at the ends of their ranges).

    The defaults, each sample of each option by itself, and some combinations.
    """
    samples = {}
    for key, _, metadata in walk(member.options_type):
        ordinary, extreme = getattr(metadata["check"], "samples", ([], []))
        samples[key] = [*((value, True) for value in ordinary), *((value, False) for value in extreme)]
    found: list[tuple[dict[str, Any], bool]] = [({}, True)]
    found += [(_nested({key: value}), ordinary) for key, values in samples.items() for value, ordinary in values]
    rng = random.Random(f"{member.name} {seed}")
    for _ in range(min(20, 4 * len(samples))):
        chosen = {key: rng.choice(values)[0] for key in samples if (values := [v for v in samples[key] if v[1]])}
        found.append((_nested(chosen), True))
    return found


def _link(member: Member, options: Mapping[str, Any]) -> Link[Any]:
    """The member with options, by flat keys."""
    return Link(member, parse(member.options_type, _nested(dict(options)), member.section), member.section)


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A section's options, those of sub-sections too, by keys such as overlong.enable."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def make_batch(seed: int, per_token: bool = False, **more: Any) -> Batch:
    """A batch as verl delivers them: groups that are no neighbours, holes, padding, a row without a policy token.

    per_token: the base's advantages differ within a response. more: what to set in place of the random tensors.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    rows, tokens = 18, 7
    group_ids = torch.arange(rows)[torch.randperm(rows, generator=generator)] % 4
    lengths = 1 + (uniform(rows, 1) * tokens).long()
    mask = ((torch.arange(tokens) < lengths) & (uniform(rows, tokens) < 0.9)).long()
    mask[5] = 0
    success = uniform(rows) < 0.5
    entropy = -2 * uniform(rows, tokens).clamp(min=1e-4).log() * uniform(rows, tokens)
    base = group_relative(success.float(), group_ids, True).unsqueeze(1)
    given: dict[str, Any] = {
        "base": torch.randn(rows, tokens, generator=generator) if per_token else base,
        "mask": mask,
        "group_ids": group_ids,
        "judged": success,
        "outcome": success.float(),
        "entropy": entropy,
        "old_log_probs": 2 * uniform(rows, tokens).clamp(min=1e-4).log() * uniform(rows, tokens),
    } | more
    nats = given["old_log_probs"]
    given = {"rollout_log_probs": 1.1 * nats, "ref_log_prob": 0.9 * nats, "values": 0.3 * nats, **given}
    tensors = {name: given.pop(name) for name in TENSORS}
    measured = Rows.measure(given.pop("mask"))
    return Batch(advantages=given["base"], rows=measured, tensors=tensors, declared=True, **given)


# ------------------------------------------------------------------------------------------------- bases and transforms


def _check_estimating(member: Member, link: Link[Any], ordinary: bool, seed: int) -> None:
    kinds = [False] if isinstance(member, Base) or link.requirements.varying else [False, True]
    for per_token in kinds:
        batch = make_batch(seed, per_token)
        result = _attempt(link, batch, ordinary)
        if result is None:
            continue
        _check_result(link, batch, result, ordinary)
        if not ordinary:
            continue
        _hold(_same(result, _apply(link, batch)), "repeated: the same batch gives another result")
        _hold(_same(result, _apply(link, _in_padding(batch, torch.nan))), "padding: what stands there matters")
        wider = _apply(link, _wider(batch, 3))
        _hold(_same(result, wider, columns=batch.rows.mask.shape[1]), "padding: three more columns of it matter")
        more = _apply(link, _with_empty_row(batch))
        _hold(_same(result, more, rows=len(batch.outcome)), "padding: a row without policy tokens matters")
        order = torch.randperm(len(batch.outcome), generator=torch.Generator().manual_seed(seed))
        moved = _apply(link, _permuted(batch, order))
        _hold(_same(_rows(result, order), moved, tolerance=1e-4), "row order: rows in another order matter")
    for name, batch in _degenerate(seed):
        result = _attempt(link, batch, ordinary)
        if result is not None:
            try:
                _check_result(link, batch, result, ordinary)
            except CheckFailed as failure:
                raise CheckFailed(f"{name}: {failure}") from None


def _attempt(link: Link[Any], batch: Batch, ordinary: bool) -> Result | None:
    """`_apply`; None where the member refuses extreme options or values."""
    try:
        return _run(link, batch)
    except EGSWPluginError as error:
        _hold(not ordinary, f"refused: {error}")
        return None


def _apply(link: Link[Any], batch: Batch, before: tuple[Link[Any], ...] = ()) -> Result:
    """The member's result, given only what it asked for; before: transforms that stand before it in the chain."""
    try:
        return _run(link, batch, before)
    except EGSWPluginError as error:
        raise CheckFailed(f"refused: {error}") from error


def _run(link: Link[Any], batch: Batch, before: tuple[Link[Any], ...] = ()) -> Result:
    named = link.requirements.tensors
    base = None if isinstance(link.member, Base) else batch.base
    tensors = {name: batch.tensors[name].clone().requires_grad_() for name in named}
    given = dataclasses.replace(batch.over(base), tensors=tensors)
    copies = [x.detach().clone() for x in _tensors(given)]
    chain = Chain(link.name, link) if base is None else Chain(link.name, "grpo", (*before, link))
    with muted():
        result = apply(chain, given)
    for old, new in zip(copies, _tensors(given), strict=True):
        _hold(torch.equal(old.nan_to_num(7.0), new.detach().nan_to_num(7.0)), "in place: an input was changed")
    return result


def _check_result(link: Link, batch: Batch, result: Result, ordinary: bool) -> None:
    """ordinary: at the ends of an option's range numbers may become too large for float32."""
    mask = batch.mask
    _hold(result.advantages.shape == mask.shape, f"shape {tuple(result.advantages.shape)}")
    if not ordinary:
        return
    _hold(bool(result.advantages[mask].isfinite().all()), f"not finite: {result.advantages}")
    _hold(not bool(result.advantages.masked_fill(mask, 0).any()), "advantages outside the mask")
    # A tensor of the batch as it is has no gradient in a run, and none that led to it here.
    _hold(result.advantages.grad_fn is None, "a gradient through the advantages")
    declared = set(link.requirements.fields)
    _hold(set(result.fields) == declared, f"publishes {set(result.fields)}, and Requirements.fields has {declared}")
    for field, tensor in result.fields.items():
        real = tensor.expand(mask.shape)[mask]
        _hold(bool(real.isfinite().all()), f"field {field.value} is not finite")
        _hold(tensor.grad_fn is None, f"a gradient through {field.value}")
        _hold(field is Field.ENTROPY_COEF or not bool((real < 0).any()), f"field {field.value} is below 0")
    alike = isinstance(link.member, Base) or result.base.shape[1] == 1
    if not link.requirements.per_token and alike and mask.shape[1]:
        first = result.advantages.gather(1, mask.long().argmax(1, keepdim=True))
        level = (result.advantages - first).masked_fill(~mask, 0)
        _hold(
            not ordinary or not bool(level.any()), "tokens of one response differ, and Requirements.per_token is False"
        )
    for name, value in result.metrics.items():
        _check_name(name)
        _hold(math.isfinite(value), f"metric {name} is {value}")


def _check_name(metric: str) -> None:
    body, _, word = metric.rpartition("/")
    _hold(word in WORDS, f"metric {metric} must end in one of /{', /'.join(WORDS)}")
    _check_body(metric, body)


def _check_body(metric: str, body: str) -> None:
    for one in ELSEWHERE:
        fix = "by which verl would reduce it: rename the metric, the member or the option"
        _hold(one not in body.lower(), f"metric {metric} holds {one!r} before its end, {fix}")


def _degenerate(seed: int) -> Iterator[tuple[str, Batch]]:
    """Batches in which something is missing or the same everywhere."""
    batch = make_batch(seed)
    rows, tokens = batch.rows.mask.shape
    level, entropy = torch.zeros(rows, 1), batch.tensors["entropy"]
    yield "no row", _rows_of(batch, torch.zeros(0, dtype=torch.int64))
    yield "one row", _rows_of(batch, torch.tensor([0]))
    yield "no policy token", make_batch(seed, mask=torch.zeros(rows, tokens, dtype=torch.int64))
    none = torch.zeros(rows, 0)
    yield "no column", make_batch(seed, mask=none.long(), entropy=none, old_log_probs=none)
    yield "no advantage", make_batch(seed, base=level, judged=level[:, 0] > 0, outcome=level[:, 0])
    yield "all successes", make_batch(seed, base=level, judged=level[:, 0] == 0, outcome=level[:, 0] + 1)
    yield "no uncertainty", make_batch(seed, entropy=torch.zeros_like(entropy), old_log_probs=torch.zeros_like(entropy))
    yield (
        "equal tokens",
        make_batch(seed, entropy=torch.full_like(entropy, 0.7), old_log_probs=torch.full_like(entropy, -0.7)),
    )
    yield "certain against", make_batch(seed, entropy=entropy + 12, old_log_probs=torch.full_like(entropy, -80.0))
    half: dict[str, Any] = {name: tensor.bfloat16() for name, tensor in batch.tensors.items()}
    yield "bfloat16", make_batch(seed, **half)


# -------------------------------------------------------------------------------------------------------- policy losses


def _check_loss(member: PolicyLoss, link: Link[Any], ordinary: bool, seed: int) -> None:
    options = link.resolved().options
    try:
        _ = link.requirements
    except EGSWPluginError as error:
        raise CheckFailed(f"refused: {error}") from error
    numbers = encode(options)
    _hold(encode(decode(member.options_type, numbers)) == numbers or any(map(math.isnan, numbers)), "options are lost")
    loss, given = functools.partial(_differentiated, member.rule(options), member.reads), _tokens(member, seed)
    result, gradient = loss(given)
    mask = given["mask"]
    _hold(result.values.shape == mask.shape, f"shape {tuple(result.values.shape)}")
    _hold(bool(result.values.isfinite().all()), f"not finite: {result.values}")
    _hold(bool(gradient.isfinite().all()), f"gradient not finite: {gradient}")
    _hold(not bool(result.values.masked_fill(mask, 0).any()), "a loss outside the mask")
    _hold(not bool(gradient.masked_fill(mask, 0).any()), "a gradient outside the mask")
    _check_metrics(result, result)
    if not ordinary:
        return
    spoilt = loss(_each(given, lambda x: torch.where(mask, x, torch.nan) if x.is_floating_point() else x))
    _hold(_near((result.values, gradient), (spoilt[0].values, spoilt[1])), "padding: what stands there matters")
    wider = loss(_each(given, lambda x: torch.nn.functional.pad(x, (0, 2))))
    tokens = mask.shape[1]
    _hold(
        _near((result.values, gradient), (wider[0].values[:, :tokens], wider[1][:, :tokens])),
        "padding: two more columns of it matter",
    )
    parts = [loss({name: x[part] for name, x in given.items()}) for part in (slice(0, 3), slice(3, None))]
    values, gradients = torch.cat([part[0].values for part in parts]), torch.cat([part[1] for part in parts])
    _hold(_near((result.values, gradient), (values, gradients)), "micro-batches: which rows come together matters")
    nothing, empty = loss(_each(given, lambda x: x[:0])), loss({**given, "mask": torch.zeros_like(mask)})
    _hold(nothing[0].values.shape == mask[:0].shape, "a micro-batch without rows")
    _hold(not bool(empty[1].any()), "a gradient in a micro-batch without policy tokens")
    means = (given["advantages"] * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    level = {**given, "advantages": means.expand(mask.shape)}
    credit, averaged = (loss({**one, "log_prob": one["old_log_prob"]})[1] for one in (given, level))
    if not member.reads:  # which tell tokens apart, too
        _hold(
            _near([credit], [averaged]) is member.averages_credit, "averages_credit, at ratio 1, is the other way round"
        )
    for part, _ in (*parts, nothing, empty):
        _check_metrics(part, result)
    unread, optional = member.needs.keys() - member.reads, member.reads - member.needs.keys()
    _hold(not unread, f"it needs {_names(unread)}, which its `reads` do not name")
    for absent in [optional, *({field} for field in optional), *(optional - {field} for field in optional)]:
        try:
            loss({name: x for name, x in given.items() if name not in absent})
        except (AttributeError, KeyError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
            fix = "name in `needs` what it cannot do without"
            raise CheckFailed(f"it fails where {_names(absent)} did not arrive ({why}): {fix}") from error


def _check_metrics(part: Losses, whole: Losses) -> None:
    """verl ends a run in which a metric has not one number of each micro-batch, on every rank."""
    lost = sorted(part.metrics.keys() ^ whole.metrics.keys())
    _hold(not lost, f"metrics: {', '.join(lost)} must be there in every micro-batch, without policy tokens or rows too")
    for name, value in part.metrics.items():
        _hold(name.startswith("actor/"), f"metric {name} must begin with actor/")
        body, _, word = name.rpartition("/")
        _check_body(name, body if word in WORDS else name)
        _hold(math.isfinite(value), f"metric {name} is {value} in some micro-batch")


class _Fields(Mapping[Field, torch.Tensor]):
    """The fields that arrived; to ask for one that the loss does not declare, and no run hands over, is a fault."""

    def __init__(self, arrived: Mapping[Field, torch.Tensor], reads: frozenset[Field]):
        self.arrived, self.reads = arrived, reads | {Field.CLIP_LOW, Field.CLIP_HIGH}  # `token_losses` reads these

    def __getitem__(self, field: Field) -> torch.Tensor:
        _hold(field in self.reads, f"it asks for {field.value}, which its `reads` do not name")
        return self.arrived[field]

    def __iter__(self) -> Iterator[Field]:
        return iter(self.arrived)

    def __len__(self) -> int:
        return len(self.arrived)


def _names(fields: Iterable[Field]) -> str:
    return ", ".join(sorted(field.value for field in fields))


def _tokens(member: PolicyLoss[Any], seed: int) -> dict[Any, torch.Tensor]:
    """A micro-batch of float64, with the fields that the loss reads."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> torch.Tensor:
        return torch.randn(8, 6, generator=generator, dtype=torch.float64)

    mask = torch.arange(6) < torch.tensor([6, 5, 6, 3, 1, 0, 4, 6]).unsqueeze(1)
    mask[2, 3] = False
    old = -normal().abs()
    fields = {field: normal().abs() for field in member.reads}
    return {"log_prob": old + 0.4 * normal(), "old_log_prob": old, "advantages": normal(), "mask": mask, **fields}


def _differentiated(
    rule: Rule, reads: frozenset[Field], given: Mapping[Any, torch.Tensor]
) -> tuple[Losses, torch.Tensor]:
    log_prob = given["log_prob"].detach().clone().requires_grad_()
    fields = _Fields({name: tensor for name, tensor in given.items() if isinstance(name, Field)}, reads)
    arguments = log_prob, given["old_log_prob"], given["advantages"], given["mask"].bool(), 0.2, 0.28
    result = token_losses(rule, *arguments, fields)
    (gradient,) = torch.autograd.grad(result.values.sum(), log_prob)
    return dataclasses.replace(result, values=result.values.detach()), gradient


def _each(given: Mapping[Any, torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[Any, torch.Tensor]:
    return {name: change(tensor) for name, tensor in given.items()}


# --------------------------------------------------------------------------------------------------------------- common


def _check_identity(member: Member, seed: int) -> None:
    """With the options that the member declares to be without effect it leaves everything as it is, to the bit."""
    if member.identity is None:
        return
    options = parse(member.options_type, _nested(dict(member.identity)), member.section)
    what = f"{member.name}: identity {dict(member.identity)}"
    if isinstance(member, PolicyLoss):
        given = _tokens(member, seed)
        for field in member.reads & NEUTRAL.keys():
            given[field] = torch.full_like(given[field], NEUTRAL[field])
        own, plain = (_differentiated(rule, member.reads, given) for rule in (member.rule(options), Rule()))
        _hold(torch.equal(own[1], plain[1]), f"{what} has another gradient than PPO's clipped objective")
        return
    link = Link(member, options, member.section)
    kinds = [False] if link.requirements.varying else [False, True]
    for per_token, before in itertools.product(kinds, [()] if isinstance(member, Base) else [(), (BEFORE,)]):
        batch = make_batch(seed, per_token)
        result = _apply(link, batch, before)
        left = torch.where(batch.mask, batch.base.expand(batch.mask.shape), 0.0) * (2 if before else 1)
        whose = "another transform's: it must begin with batch.advantages" if before else "the base's"
        _hold(torch.equal(result.advantages, left), f"{what} changes advantages, {whose}")
        for field in result.fields.keys() & NEUTRAL.keys():
            real = result.fields[field].expand(batch.mask.shape)[batch.mask]
            _hold(bool((real == NEUTRAL[field]).all()), f"{what} sets {field.value}")


def _members(member: Member | type[Member] | str) -> list[Member]:
    if isinstance(member, str):
        if not (found := named(member)):
            near = close(member, [*MEMBERS, *LOSSES])
            raise MemberError(f"there is no member {member!r}{f'; {question(near)}' if near else ''}")
        return found
    one = member() if isinstance(member, type) else member
    refuse_unfit(one, type(one).__name__)
    registry: Registry[Any] = LOSSES if isinstance(one, PolicyLoss) else MEMBERS
    if one.name in registry.taken or (one.name in registry and _code(registry[one.name]) != _code(one)):
        raise MemberError(f"{type(one).__name__} calls itself {one.name!r}, a name of {registry.whose(one.name)}")
    return [one]


def _code(member: Member) -> tuple[str, str | None]:
    """What a member's class is, under whichever name its module was imported."""
    module = sys.modules.get(type(member).__module__)
    return type(member).__qualname__, getattr(module, "__file__", None)


def _nested(options: dict[str, Any]) -> dict[str, Any]:
    """A section with its sub-sections, from keys such as overlong.enable."""
    section: dict[str, Any] = {}
    for key, value in options.items():
        *parents, last = key.split(".")
        place = section
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return section


def _hold(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def _tensors(batch: Batch[Any]) -> list[torch.Tensor]:
    own = [batch.base, batch.rows.mask, batch.mask, batch.group_ids, batch.judged, batch.outcome]
    return [x.double() for x in [*own, *batch.tensors.values()] if x is not None]


def _rows_of(batch: Batch, rows: torch.Tensor) -> Batch:
    """The batch of these rows."""
    return dataclasses.replace(
        batch,
        base=batch.base[rows],
        rows=Rows.measure(batch.rows.mask[rows]),
        group_ids=batch.group_ids[rows].unique(return_inverse=True)[1],
        judged=batch.judged[rows],
        outcome=batch.outcome[rows],
        tensors={name: tensor[rows] for name, tensor in batch.tensors.items()},
    )


def _permuted(batch: Batch, order: torch.Tensor) -> Batch:
    moved = _rows_of(batch, order)
    # Ids are given in order of appearance.
    seen = {identity: place for place, identity in enumerate(dict.fromkeys(moved.group_ids.tolist()))}
    return dataclasses.replace(moved, group_ids=torch.tensor([seen[one] for one in moved.group_ids.tolist()]))


def _in_padding(batch: Batch, value: float) -> Batch:
    """The batch with `value` wherever no policy token is; a row's own number stays."""

    def spoilt(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.shape[1] == 1 else torch.where(batch.mask, tensor, value)

    tensors = {name: spoilt(tensor) for name, tensor in batch.tensors.items()}
    return dataclasses.replace(batch, base=spoilt(batch.base), tensors=tensors)


def _wider(batch: Batch, columns: int) -> Batch:
    def padded(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.shape[1] == 1 else torch.nn.functional.pad(tensor, (0, columns))

    tensors = {name: padded(tensor) for name, tensor in batch.tensors.items()}
    return dataclasses.replace(
        batch, base=padded(batch.base), rows=Rows.measure(padded(batch.rows.mask)), tensors=tensors
    )


def _with_empty_row(batch: Batch) -> Batch:
    """The batch with one more row, of the first group, in which nothing is the policy's."""

    def more(tensor: torch.Tensor, value: float = 0.0) -> torch.Tensor:
        return torch.cat([tensor, torch.full_like(tensor[:1], value)])

    return dataclasses.replace(
        batch,
        base=more(batch.base),
        rows=Rows.measure(more(batch.rows.mask)),
        group_ids=more(batch.group_ids),
        judged=more(batch.judged),
        outcome=more(batch.outcome, 0.5),
        tensors={name: more(tensor) for name, tensor in batch.tensors.items()},
    )


def _rows(result: Result, rows: torch.Tensor) -> Result:
    fields = {field: tensor[rows] for field, tensor in result.fields.items()}
    return dataclasses.replace(result, advantages=result.advantages[rows], base=result.base[rows], fields=fields)


def _same(
    one: Result, other: Result, rows: int | None = None, columns: int | None = None, tolerance: float = 1e-5
) -> bool:
    """Whether two results agree; of the other, so many rows and columns."""

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:rows] if tensor.shape[1] == 1 else tensor[:rows, :columns]

    def inside(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.shape[1] == 1 else tensor.masked_fill(one.advantages == 0, 0)

    if one.fields.keys() != other.fields.keys():
        return False
    mine = [one.advantages, *(inside(one.fields[field]) for field in one.fields)]
    its = [cut(other.advantages), *(inside(cut(other.fields[field])) for field in one.fields)]
    return _near(mine, its, tolerance)


def _near(mine: Any, its: Any, tolerance: float = 1e-9) -> bool:
    return all(
        x.shape == y.shape and torch.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
        for x, y in zip(mine, its, strict=True)
    )
