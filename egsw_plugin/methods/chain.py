"""A base and transforms in order: read from a configuration, and applied to a batch. Pure; no verl, no ray.

    algorithm.adv_estimator=egsw_plugin
    +algorithm.credit={base: grpo, transforms: [egsw, high_entropy], high_entropy: {rho: 0.2}}

A member's own name as adv_estimator is the short form: a base alone, or a transform alone over algorithm.credit.base
(grpo, if it is not set).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from .. import measure
from ..console import muted
from ..controllers import Controller
from ..errors import MemberError, OptionError, TensorError, UndeclaredError
from ..fields import Field, merge
from ..kernels import compiled
from ..kernels.rows import Rows, row_sums, spread_rows
from ..options import Options, parse
from ..options.spelling import close, question
from . import LOSSES, MEMBERS
from .interface import TENSORS, Base, Batch, Change, Estimating, Member, PolicyLoss, Requirements, Success, Transform
from .places import CHAIN, CREDIT, LOSS_MODE, OWN, either, guesses, leaves, unknown_option, whose
from .places import best as likeliest
from .registry import Registry

BASE = "grpo"  # where none is named
FACTORS = {Field.WEIGHT, Field.KL_WEIGHT}
M_co = TypeVar("M_co", bound=Member[Any], covariant=True)
M = TypeVar("M", bound=Member[Any])


@dataclass(frozen=True)
class Link(Generic[M_co]):
    """A member with its options; `section` is the key under which they were given."""

    member: M_co
    options: Options
    section: str

    @property
    def name(self) -> str:
        """The member's."""
        return self.member.name

    @property
    def controlled(self) -> dict[str, Controller]:
        """The options that controllers move, by MEMBER.OPTION."""
        values = {field.name: getattr(self.options, field.name) for field in dataclasses.fields(self.options)}
        return {f"{self.name}.{key}": value for key, value in values.items() if isinstance(value, Controller)}

    def resolved(self, values: Mapping[str, float] | None = None) -> Link[M_co]:
        """The link with numbers in place of controllers: those of `values`, else the first ones."""
        numbers = {}
        for name, rule in self.controlled.items():
            numbers[name.removeprefix(f"{self.name}.")] = rule.first if values is None else values[name]
        return dataclasses.replace(self, options=dataclasses.replace(self.options, **numbers)) if numbers else self

    @property
    def requirements(self) -> Requirements:
        """What the member needs with its options.

        Raises:
            MemberError: it gives something else, or names tensors that there are not.
        """
        needs = self.member.requirements(self.resolved().options)
        if not isinstance(needs, Requirements):
            raise MemberError(f"{self.name}.requirements gave a {type(needs).__name__}; return Requirements(...)")
        if not isinstance(needs.tensors, tuple | list) or not all(name in TENSORS for name in needs.tensors):
            raise MemberError(
                f"{self.name} has Requirements.tensors={needs.tensors!r}; use {', '.join(TENSORS)}, as in "
                'tensors=("entropy",), with the comma'
            )
        return needs

    def text(self, text: str) -> str:
        """A text of the member's requirements, with its name and the key of its options in it."""
        return text.replace("{name}", self.name).replace("{section}", self.section)


@dataclass(frozen=True)
class Chain:
    """A base, which is a member or the name of one of verl's estimators, and transforms.

    name: as adv_estimator has it. base_key: where the base was named.
    """

    name: str
    base: Link[Base[Any]] | str
    transforms: tuple[Link[Transform[Any]], ...] = ()
    base_key: str = f"{CREDIT}.base"

    @property
    def links(self) -> tuple[Link[Member[Any]], ...]:
        """All members, the base first."""
        return (*((self.base,) if isinstance(self.base, Link) else ()), *self.transforms)

    @property
    def controlled(self) -> dict[str, Controller]:
        """The options of all members that controllers move, by MEMBER.OPTION."""
        return {name: rule for link in self.links for name, rule in link.controlled.items()}

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the per-token tensors that the members and the controllers need."""
        return tensors_of(self.links)

    @property
    def success(self) -> Success:
        """What makes a response a success.

        Raises:
            OptionError: two members say different things.
        """
        rules = {link.requirements.success: link for link in self.links if link.requirements.success is not None}
        if len(rules) > 1:
            (one, first), (other, second) = list(rules.items())[:2]
            key = "threshold" if one.field == other.field else "success"
            if not hasattr(second.options, key):  # a member may fix its rule
                (one, first), (other, second) = (other, second), (one, first)
            theirs, its = (rule.threshold if key == "threshold" else rule.field or "score" for rule in (one, other))
            fix = f"a chain has one rule, and {first.name} has {key} {theirs}; set them alike"
            raise OptionError(f"{second.section}.{key}", its, fix)
        return next(iter(rules), Success())

    def resolved(self, values: Mapping[str, float] | None = None) -> Chain:
        """The chain with numbers in place of controllers: those of `values`, else the first ones."""
        base = self.base.resolved(values) if isinstance(self.base, Link) else self.base
        return dataclasses.replace(self, base=base, transforms=tuple(link.resolved(values) for link in self.transforms))


def tensors_of(links: Sequence[Link[Member[Any]]]) -> tuple[str, ...]:
    """Names of the per-token tensors that members and their controllers need."""
    needed = [name for link in links for name in link.requirements.tensors]
    needed += [MEASURED[rule.measure] for link in links for rule in link.controlled.values()]
    return tuple(dict.fromkeys(needed))


MEASURED = {"entropy": "entropy", "surprisal": "old_log_probs"}  # the tensor of each `measure` of a controller


@dataclass(frozen=True)
class Result:
    """What a chain makes of a batch.

    advantages: [R, T], 0 outside the mask. base: the base's, [R, 1] or [R, T]. fields: for the policy loss, [R, 1] or
    [R, T] each. metrics: by whole name.
    """

    advantages: torch.Tensor
    base: torch.Tensor
    fields: Mapping[Field, torch.Tensor]
    metrics: dict[str, float]


@torch.no_grad()
def apply(chain: Chain, batch: Batch[torch.Tensor | None]) -> Result:
    """The chain's advantages, fields and metrics of a batch.

    Args:
        chain: an option that a controller moves has its first value, unless `Chain.resolved` has given it another.
        batch: where the base is one of verl's, `base` holds its advantages, [R, 1] or [R, T]; else it is None.

    Each transform sees in `batch.advantages` what its predecessor left, and in `batch.base` the base's.

    Raises:
        TensorError: a member gave tensors of a wrong shape or dtype, or numbers that are not finite.
        UndeclaredError: a member reads what it did not ask for.

    >>> from egsw_plugin.kernels.rows import Rows
    >>> chain = read({"credit": {"transforms": ["egsw"], "egsw": {"alpha": 1.0}}}, "egsw_plugin")
    >>> batch = Batch(
    ...     base=torch.tensor([[1.0], [-1.0]]),
    ...     advantages=None,
    ...     rows=Rows.measure(torch.ones(2, 2, dtype=torch.int64)),
    ...     group_ids=torch.tensor([0, 0]),
    ...     judged=torch.tensor([True, False]),
    ...     outcome=torch.tensor([1.0, 0.0]),
    ...     tensors={"entropy": torch.tensor([[0.1, 0.9], [0.2, 0.3]])},
    ... )
    >>> result = apply(chain, batch)
    >>> result.advantages
    tensor([[ 1.3065,  1.4081],
            [-0.6935, -0.5919]])
    """
    chain = chain.resolved()
    metrics: dict[str, float] = {}
    fields: dict[Field, torch.Tensor] = {}
    total, masked = None, False
    batch = dataclasses.replace(batch, declared=any(link.requirements.success is not None for link in chain.links))
    if isinstance(chain.base, Link):
        change = _change(chain.base, batch)
        _measure(metrics, chain.base, change, batch)
        batch = dataclasses.replace(batch, base=change.advantages)
        total, masked = change.entropy_total, change.masked
        fields = merge(fields, change.fields, chain.base.name)
    if batch.base is None:
        raise TensorError(f"the advantages of base {chain.base} are missing")
    made = batch.over(batch.base.to(torch.promote_types(batch.base.dtype, torch.float32)))
    for link in chain.transforms:
        change = _change(link, made)
        _measure(metrics, link, change, made)
        fields = merge(fields, change.fields, link.name)
        total = change.entropy_total if total is None else total
        masked = change.masked or (masked and change.advantages is made.advantages)
        made = dataclasses.replace(made, advantages=change.advantages)
    if total is None and "entropy" in made.tensors:
        total = row_sums(made.tensors["entropy"], made.rows)
    metrics |= {f"credit/{name}": value for name, value in measure.facts(made, total).items()}
    advantages = made.advantages
    level = advantages.shape[1] == 1 != batch.rows.mask.shape[1]
    if not level and not masked:
        advantages = advantages.masked_fill(batch.rows.mask.eq(0), 0)
    for name, tensor in (("advantages", advantages), *((f"field {f.value}", t) for f, t in fields.items())):
        _refuse_not_finite(chain, name, tensor, batch)
    for field in fields.keys() & FACTORS:
        _refuse_negative(chain, field, fields[field], batch)
    if level:
        advantages = spread_rows(batch.rows, advantages.squeeze(1))
    return Result(advantages, made.base, fields, metrics)


def compile_for(chain: Chain) -> None:
    """Apply the chain to three responses of the dtypes that a run has, so that its loops are compiled before the first
    step. Where numba cannot compile one, torch serves in their place.

    Raises:
        UndeclaredError: a member reads what it did not ask for. What else fails here says nothing of a real batch.
    """
    with muted():
        try:
            apply(chain, _trial(chain))
        except UndeclaredError:
            raise
        except Exception as error:
            if compiled.give_up(error):
                compile_for(chain)


def _trial(chain: Chain) -> Batch[Any]:
    mask = torch.ones(3, 2, dtype=torch.int64)
    level = torch.tensor([[1.0], [-1.0], [0.0]])
    return Batch(
        base=None if isinstance(chain.base, Link) else level,
        advantages=None,
        rows=Rows.measure(mask),
        group_ids=torch.tensor([0, 0, 1]),  # a group that is mixed and one that is not
        judged=torch.tensor([True, False, False]),
        outcome=level.squeeze(1),
        tensors={name: -torch.ones(3, 2) if "log_prob" in name else torch.ones(3, 2) for name in chain.tensors},
    )


def _change(link: Link[Estimating], batch: Batch[Any]) -> Change:
    """What a member makes of a batch, of which it sees the tensors that it asks for; what is no change is refused."""
    make = link.member.advantages if isinstance(link.member, Base) else link.member.apply
    needs = link.requirements
    if missing := [name for name in needs.tensors if name not in batch.tensors]:
        raise TensorError(f"{link.name} needs {', '.join(missing)}, which the batch does not have")
    batch = dataclasses.replace(batch, tensors={name: batch.tensors[name] for name in needs.tensors})
    before = _versions(batch)
    try:
        change = make(link.options, batch)
    except UndeclaredError as error:
        raise UndeclaredError(f"{link.name} ({link.section}): {error}") from error
    for name, version in _versions(batch).items():
        if version != before.get(name, 0):
            raise TensorError(f"{link.name} changes the batch's {name} in place, which others read; make a new tensor")
    if not isinstance(change, Change):
        raise TensorError(f"{link.name} gave a {type(change).__name__} in place of a Change")
    rows, tokens = batch.rows.mask.shape
    for field, tensor in change.fields.items():
        if not isinstance(field, Field):
            raise TensorError(f"{link.name} gave a field {field!r}; use one of egsw_plugin.fields, as Field.WEIGHT")
        if field.spec.per_row and getattr(tensor, "ndim", 0) == 2 and tensor.shape[1] != 1:
            fix = f"it is one number for a row, [{rows}, 1]"
            raise TensorError(f"{link.name} gave {field.value} of shape {list(tensor.shape)}; {fix}")
    for name, tensor in (("advantages", change.advantages), *((f.value, t) for f, t in change.fields.items())):
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) not in ((rows, 1), (rows, tokens)):
            shape = (
                f"shape {list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else f"type {type(tensor).__name__}"
            )
            raise TensorError(
                f"{link.name} gave {name} of {shape}; it must be a tensor [{rows}, {tokens}] or [{rows}, 1]"
            )
        if tensor.dtype not in (torch.float32, torch.float64):
            raise TensorError(f"{link.name} gave {name} of dtype {tensor.dtype}; it must be float32 or float64")
    return change


def _versions(batch: Batch[Any]) -> dict[str, int]:
    """How often each tensor of a batch was changed in place, where torch counts it; of `mask`, since it was made."""
    given = {name: getattr(batch, name) for name in ("base", "advantages", "group_ids", "judged", "outcome")}
    given |= {"rows.mask": batch.rows.mask, "mask": vars(batch.rows).get("policy"), **batch.tensors}
    return {name: x._version for name, x in given.items() if x is not None and not x.is_inference()}


def _measure(metrics: dict[str, float], link: Link[Member[Any]], change: Change, batch: Batch[Any]) -> None:
    """Take a member's metrics, and refuse numbers that say that it made something else than numbers."""
    own = measure.effect(batch, change.advantages) if change.metrics is None else change.metrics
    for name, value in own.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TensorError(f"{link.name} gave the metric {name}={value!r}; it must be one number") from None
        if not math.isfinite(number):
            whose = "" if change.metrics is None else "this metric of its own, "
            raise TensorError(
                f"{link.name} made {name}={number} of this batch: {whose}its advantages, or those that it was given, "
                f"are not finite; its options: {link.options.describe() or 'none'}"
            )
        metrics[f"{link.name}/{name}"] = number


def _refuse_not_finite(chain: Chain, name: str, tensor: torch.Tensor, batch: Batch[Any]) -> None:
    """Refuse a tensor, [R, 1] or [R, T], that is not finite at a policy token."""
    if math.isfinite(float(tensor.sum())):  # much the cheapest look; what stands outside the mask may spoil it
        return
    bad = batch.mask & ~tensor.isfinite()
    if bool(bad.any()):
        row, token = bad.nonzero()[0].tolist()
        value = float(tensor.expand(bad.shape)[row, token])
        members = ", ".join([*([chain.base] if isinstance(chain.base, str) else []), *(x.name for x in chain.links)])
        raise TensorError(
            f"not finite: the {name} that {members} made of this batch, {value} at row {row}, token {token}; mind "
            "tokens that are all equal, groups whose rewards are, and rows without policy tokens: do not divide by 0"
        )


def _refuse_negative(chain: Chain, field: Field, tensor: torch.Tensor, batch: Batch[Any]) -> None:
    """Refuse a factor, [R, 1] or [R, T], that turns the loss of a policy token round."""
    below = tensor < 0  # what stands outside the mask may be anything
    if bool(below.any()) and bool((below := below & batch.mask).any()):
        row, token = below.nonzero()[0].tolist()
        value = float(tensor.expand(below.shape)[row, token])
        members = ", ".join(link.name for link in chain.links if field in link.requirements.fields)
        raise TensorError(
            f"the field {field.value} of {members} is {value} at row {row}, token {token}; it must be >= 0"
        )


# ------------------------------------------------------------------------------------------------ from a configuration


def read(algorithm: Mapping[str, Any], name: str) -> Chain:
    """The chain that verl's `algorithm` section, as a plain mapping, asks for with adv_estimator=`name`.

    Raises:
        OptionError: with the key, the value and the fix.

    >>> chain = read({"egsw": {"alpha": 0.25}}, "egsw")
    >>> chain.base, chain.transforms[0].options.alpha
    ('grpo', 0.25)
    """
    credit = section_of(algorithm)
    base, base_key = _name(credit.get("base"), f"{CREDIT}.base"), f"{CREDIT}.base"
    names = credit.get("transforms")
    if name == CHAIN:
        links = [_transform(algorithm, one, f"{CREDIT}.transforms") for one in _names(names)]
        for link in links:
            if link.member.base(link.options) is not None and "base" in given(algorithm, link.member):
                fix = f"in a chain the base is {CREDIT}.base; set it there"
                raise OptionError(f"{link.section}.base", given(algorithm, link.member)["base"], fix)
    else:
        if names is not None:
            raise OptionError(f"{CREDIT}.transforms", names, f"set algorithm.adv_estimator={CHAIN}, which reads it")
        member = _member(MEMBERS, name, "algorithm.adv_estimator")
        if isinstance(member, Base):
            if base is not None:
                raise OptionError(f"{CREDIT}.base", base, f"{name} is a base itself; leave it out")
            check_keys(credit, [name])
            return Chain(name, _base(algorithm, name, "algorithm.adv_estimator"), base_key="algorithm.adv_estimator")
        links = [_transform(algorithm, name, "algorithm.adv_estimator")]
        own = links[0].member.base(links[0].options)
        if own is not None:
            if base is not None and "base" in given(algorithm, member):
                raise OptionError(
                    f"{CREDIT}.base", base, f"the base is set by {links[0].section}.base, too; leave one out"
                )
            if base is None:
                base, base_key = own, f"{links[0].section}.base"
    seen: set[str] = set()
    for link in links:
        if link.name in seen:
            raise OptionError(f"{CREDIT}.transforms", names, f"{link.name} stands in it twice; leave one out")
        seen.add(link.name)
    base = BASE if base is None else base
    first = _base(algorithm, base, base_key) if base in MEMBERS else base
    check_keys(credit, [link.name for link in links])
    chain = Chain(name, first, tuple(links), base_key)
    owners: dict[Field, Link[Member[Any]]] = {}
    for one in chain.links:
        for field in one.requirements.fields:
            if field in owners and field.spec.merge is None:
                fix = f"both {owners[field].name} and {one.name} set {field.value}; leave out one of them"
                raise OptionError(f"{CREDIT}.transforms", names, fix)
            owners[field] = one
    return chain


def read_loss(algorithm: Mapping[str, Any], loss_mode: str) -> Link[PolicyLoss[Any]] | None:
    """The policy loss `loss_mode` with its options, or None if it is not ours.

    Raises:
        OptionError: its options cannot be.
    """
    if loss_mode not in LOSSES:
        return None
    member = _member(LOSSES, loss_mode, LOSS_MODE)
    if not dataclasses.fields(member.options_type):
        return Link(member, member.options_type(), member.section)
    if member.name in MEMBERS:
        fix = (
            f"this policy loss has options, and {member.section} belongs to the estimator of the same name; rename one"
        )
        raise OptionError(LOSS_MODE, loss_mode, fix)
    return Link(member, *_options(algorithm, member))


def section_of(algorithm: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section algorithm.credit, an empty one if there is none.

    Raises:
        OptionError: it is no section.
    """
    credit = algorithm.get("credit")
    if credit is None:
        return {}
    if not isinstance(credit, Mapping):
        raise OptionError(CREDIT, credit, f"use a section such as {{base: grpo, transforms: [{next(iter(MEMBERS))}]}}")
    return credit


def check_keys(credit: Mapping[str, Any], chosen: Collection[str]) -> None:
    """Refuse a key of algorithm.credit that is neither ours nor a member's. chosen: the members that take part."""
    known = list(dict.fromkeys([*OWN, *MEMBERS.names(), *LOSSES.names()]))
    for key in credit:
        if key in known:
            continue
        path, _ = next(leaves(credit[key], (str(key),)))
        found = [guess for guess in guesses([*CREDIT.split("."), *path], chosen) if guess.place.group != "credit"]
        if near := close(key, known):
            fix = f"did you mean {either([f'{CREDIT}.{one}' for one in near])}?"
        elif found and (found[0].named or found[0].chosen):
            fix = f"did you mean {either([place.key for place in likeliest(found)])}?"
        elif found:
            fix = f"that is {whose(likeliest(found), chosen)}"
        else:
            fix = f"use base, transforms, or one of {', '.join(known[2:])}"
        raise OptionError(f"{CREDIT}.{key}", credit[key], f"there is no such member; {fix}")


def given(algorithm: Mapping[str, Any], member: Member[Any]) -> dict[str, Any]:
    """The options that a configuration gives to a member, wherever they stand."""
    return {key: value for section, options in _sections(algorithm, member) for key, value in options.items()}


def _sections(algorithm: Mapping[str, Any], member: Member[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The sections of a member's options that a configuration has, and their keys."""
    places = [(member.section, algorithm)] if member.section != f"{CREDIT}.{member.name}" else []
    places.append((f"{CREDIT}.{member.name}", algorithm.get("credit") or {}))
    for key, place in places:
        options = place.get(member.name)
        if options is not None:
            if not isinstance(options, Mapping):
                parse(member.options_type, options, key)  # which refuses it
            yield key, options


def _options(algorithm: Mapping[str, Any], member: Member[Any]) -> tuple[Options, str]:
    """A member's options, and the section that they are in."""
    found = list(_sections(algorithm, member))
    options, section = None, member.section
    for place, (key, values) in enumerate(found):
        for other, earlier in found[:place]:
            if both := set(values) & set(earlier):
                option = sorted(map(str, both))[0]
                fix = f"it is set by {other}.{option}, too; leave one out"
                raise OptionError(f"{key}.{option}", values.get(option), fix)
        check_options(member, key, values)
        options, section = parse(member.options_type, values, key, options), key
    return (member.options_type() if options is None else options), section


def check_options(member: Member[Any], section: str, values: Mapping[str, Any], chosen: Collection[str] = ()) -> None:
    """Refuse an option that the member does not have, with whose it is: what looks like it here may be another's.

    Raises:
        OptionError: with the key, the value and the fix.
    """
    own = [field.name for field in dataclasses.fields(member.options_type)]
    for key in values:
        if key not in own:
            fix = unknown_option(member.name, section, own, str(key), values[key], chosen)
            raise OptionError(f"{section}.{key}", values[key], fix)


def _base(algorithm: Mapping[str, Any], name: str, key: str) -> Link[Base[Any]]:
    member = _member(MEMBERS, name, key)
    if not isinstance(member, Base):
        fix = f"{member.name} is a transform; use a base estimator registered in verl, or a base of this plugin"
        raise OptionError(key, name, fix)
    return Link(member, *_options(algorithm, member))


def _transform(algorithm: Mapping[str, Any], name: str, key: str) -> Link[Transform[Any]]:
    member = _member(MEMBERS, name, key)
    if not isinstance(member, Transform):
        raise OptionError(key, name, f"{member.name} is a base; name it in {CREDIT}.base")
    return Link(member, *_options(algorithm, member))


def _member(registry: Registry[M], name: str, key: str) -> M:
    if name not in registry:
        near = close(name, registry)
        hint = question(near) if near else f"the members are {', '.join(registry)}"
        raise OptionError(key, name, f"there is no such member; {hint}")
    try:
        return registry[name]
    except MemberError as error:
        raise OptionError(key, name, str(error)) from error


def _name(value: Any, key: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise OptionError(key, value, "use the name of a base, such as grpo")
    return value


def _names(value: Any) -> Sequence[str]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise OptionError(f"{CREDIT}.transforms", value, "use a list of names, such as [egsw]")
    return value
