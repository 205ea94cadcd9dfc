"""What a member of the family is: a base, a transform or a policy loss, and the records that pass between them.

A *base* turns rewards into advantages (verl's own estimators are bases, too). A *transform* takes the advantages that
its predecessor left and gives back new ones, and fields for the policy loss; transforms are chained as in
`optax.chain`. A *policy loss* turns advantages and fields into the loss of each token, in a worker. An option's value
that moves from trainer step to trainer step is a *controller*'s (`egsw_plugin.controllers`). None of them knows verl.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic

import torch
from typing_extensions import TypeVar

from ..errors import UndeclaredError
from ..fields import Field
from ..kernels.rows import Rows
from ..options import NoOptions, Options
from ..options.checks import field_name, finite
from .rules import Rule

O = TypeVar("O", bound=Options)  # noqa: E741
A_co = TypeVar("A_co", bound=torch.Tensor | None, default=torch.Tensor, covariant=True)
B = TypeVar("B", bound=torch.Tensor | None)
TENSORS = ("entropy", "old_log_probs", "rollout_log_probs", "ref_log_prob", "values")  # that a member may ask for


# What `option` takes for the two options by which a user says what a success is: see `Success.of`.
SUCCESS = (
    "score",
    field_name,
    "what decides success: the `score` (sum of the token-level scores, before the KL penalty), or the name of a field "
    "of reward_extra_info such as `acc`, which a length penalty in the reward leaves alone",
    "r",
    "binary reward",
)
THRESHOLD = (0.5, finite, "a response whose score (or field) is above it is a success")


@dataclass(frozen=True)
class Success:
    """What makes a response a success: a field of reward_extra_info, or (None) the score, is above the threshold."""

    field: str | None = None
    threshold: float = 0.5

    @classmethod
    def of(cls, name: str, threshold: float) -> Success:
        """From a member's options, where `score` is the score.

        >>> Success.of("score", 0.5), Success.of("acc", 0.0)
        (Success(field=None, threshold=0.5), Success(field='acc', threshold=0.0))
        """
        return cls(None if name == "score" else name, threshold)


class _Tensors(dict[str, torch.Tensor]):
    """Tensors by name; one that no member asked for is refused by name."""

    def __missing__(self, name: str) -> torch.Tensor:
        raise UndeclaredError(f"it reads {name} without asking for it; name it in Requirements.tensors")


@dataclass(frozen=True)
class Batch(Generic[A_co]):
    """One advantage step, exact over the batch. R rows (responses), T tokens.

    What stands outside the mask is anything, NaN included: elementwise arithmetic may run over it, sums may not. For a
    transform `base` and `advantages` are tensors; before the base has made them (`Batch[None]`) they are None.

    Attributes:
        base: the base's advantages, [R, 1] where all tokens of a response have the same, else [R, T].
        advantages: what the transform before left, [R, 1] or [R, T]; the base's for the first.
        rows: the measured response mask [R, T].
        group_ids: dense ids of the groups (the responses to one prompt), int64 [R].
        judged: which rows are successes, bool [R]; where no member says what one is, those with a score above 0.5. For
            metrics: a member asks for `success`.
        outcome: [R], the sum of the token-level rewards.
        tensors: what `Requirements.tensors` named, [R, T].
        declared: a member says what a success is.
    """

    base: A_co
    advantages: A_co
    rows: Rows
    group_ids: torch.Tensor
    judged: torch.Tensor
    outcome: torch.Tensor
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    declared: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", _Tensors(self.tensors))

    def over(self, base: B) -> Batch[B]:
        """The batch as the first transform over this base sees it; of None, as a base does."""
        return Batch(base, base, self.rows, self.group_ids, self.judged, self.outcome, self.tensors, self.declared)

    @property
    def mask(self) -> torch.Tensor:
        """True at policy tokens, bool [R, T]."""
        return self.rows.policy

    @property
    def success(self) -> torch.Tensor:
        """Which rows are successes, bool [R], by the rule of `Requirements.success`."""
        if not self.declared:
            raise UndeclaredError(
                "no member says what the success that it reads is; declare the options success: str = option(*SUCCESS) "
                "and threshold: float = option(*THRESHOLD) of egsw_plugin.methods.interface, and "
                "Requirements(success=Success.of(options.success, options.threshold))"
            )
        return self.judged

    @property
    def entropy(self) -> torch.Tensor:
        """Entropy of the old policy over the whole vocabulary, nats [R, T], in at least float32."""
        return self._tensor("entropy")

    @property
    def old_log_probs(self) -> torch.Tensor:
        """Log-probability of each token under the old policy, nats [R, T], in at least float32."""
        return self._tensor("old_log_probs")

    def uncertainty(self, kind: str) -> torch.Tensor:
        """The entropy (kind "full"), or the negative log-probability of the token ("surprisal"), nats [R, T]."""
        return self.entropy if kind == "full" else -self.old_log_probs

    def _tensor(self, name: str) -> torch.Tensor:
        tensor = self.tensors[name]
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass(frozen=True)
class Change:
    """What a base or a transform gives back.

    Attributes:
        advantages: [R, 1] or [R, T], floating point; anything outside the mask.
        fields: for the policy loss, [R, 1] or [R, T] each.
        metrics: numbers by name (without the member's); None has the frame measure what it can: the share of tokens
            that changed, and how far from the base. Those that are given stand in place of these.
        masked: the advantages are [R, T] and 0 outside the mask already.
        entropy_total: sums of the entropy over the policy tokens of each row (nats, float64 [R]), if it has them.
    """

    advantages: torch.Tensor
    fields: Mapping[Field, torch.Tensor] = field(default_factory=dict)
    metrics: Mapping[str, float] | None = None
    masked: bool = False
    entropy_total: torch.Tensor | None = None


@dataclass(frozen=True)
class Setting:
    """A setting of verl that a member warns of: `key` has `value` (which it has by `default`, if not set).

    In the text, `{name}` is the member and `{section}` the key of its options.
    """

    key: str
    value: Any
    text: str
    default: Any = False


GRADED = Setting(
    "reward.reward_model.enable",
    True,
    "reward.reward_model.enable=True: a reward model's scores are graded, and {name} takes those above "
    "{section}.threshold for successes; set it to where right and wrong part, or {section}.success to a field of the "
    "reward function that tells them apart",
)


@dataclass(frozen=True)
class Objective:
    """The objective of a paper: its policy losses (the first one preferred), its aggregation, its source, and by how
    much its ratio may lie below and above 1."""

    losses: tuple[str, ...]
    aggregation: str
    source: str
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class Requirements:
    """What a member needs, refuses and warns of, given its options; start-up, doctor and the advantage step read it.

    In its texts, `{name}` is the member and `{section}` the key of its options.

    Attributes:
        tensors: names of the per-token tensors that it cannot do without, of `TENSORS`.
        without: what to set where a tensor cannot be had, by the tensor's name.
        success: what makes a response a success, without which there is no `batch.success`.
        responses: least number of responses to a prompt, and why it takes so many.
        varying: the option because of which advantages must not vary within a response, and the value to set.
        fields: what it publishes, with the option that asks for it ("" if it always does). Start-up takes a member with
            fields for one that leaves the advantages alone.
        per_token: advantages or weights differ from token to token: what asks for one advantage a response (EGSW's
            denominator=all) is refused behind it, and a policy loss that averages them.
        direction: 1 if rare or uncertain tokens get more positive credit, -1 if they get less, 0 if neither.
        off_policy: why it does nothing where every batch is one mini-batch, seen once ("" if it does something).
        weaker_on_policy: which part of it does nothing there ("" if none).
        objective: the paper's.
        settings: of verl's, which it warns of.
    """

    tensors: tuple[str, ...] = ()
    without: Mapping[str, str] = field(default_factory=dict)
    success: Success | None = None
    responses: tuple[int, str] = (1, "")
    varying: tuple[str, str] | None = None
    fields: Mapping[Field, str] = field(default_factory=dict)
    per_token: bool = False
    direction: int = 0
    off_policy: str = ""
    weaker_on_policy: str = ""
    objective: Objective | None = None
    settings: tuple[Setting, ...] = ()


class Member(ABC, Generic[O]):
    """What all kinds have in common. The first line of a member's docstring says what it does in one sentence.

    Attributes:
        name: how a configuration calls it; its metrics are NAME/...
        options_type: its class of options.
        title: how its page calls it, where that is not its name.
        source: arXiv id.
        formula: in ASCII.
        favours: which tokens get more credit.
        identity: options under which it leaves the base as it is, bit for bit; None if there are none.
        cost: beside that of reading its tensors.
        status: how it was checked.
        section: the key of its options.
    """

    name: ClassVar[str]
    options_type: ClassVar[type[Options]] = NoOptions
    title: ClassVar[str] = ""
    source: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    favours: ClassVar[str] = ""
    identity: ClassVar[Mapping[str, Any] | None] = None
    cost: ClassVar[str] = ""
    status: ClassVar[str] = ""
    section: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls) and "section" not in vars(cls):
            cls.section = f"algorithm.credit.{cls.name}"

    def requirements(self, options: O) -> Requirements:
        """What it needs with these options; nothing by default."""
        return Requirements()


class Base(Member[O]):
    """Rewards to advantages."""

    @abstractmethod
    def advantages(self, options: O, batch: Batch[Any]) -> Change:
        """Advantages of the batch, whose own `base` and `advantages` are None."""


class Transform(Member[O]):
    """Advantages to advantages and fields."""

    def base(self, options: O) -> str | None:
        """The base of its short form (adv_estimator=NAME), or None for that of algorithm.credit.base."""
        return None

    @abstractmethod
    def apply(self, options: O, batch: Batch) -> Change:
        """New advantages and fields for the batch. Runs without gradient; must change nothing in place."""


class PolicyLoss(Member[O]):
    """Advantages and fields to the loss of each token, in a worker.

    Attributes:
        reads: fields that it uses where they arrive.
        needs: fields that it cannot do without, and what to set for them.
        sequence_ratio: its ratio is that of a whole response.
        averages_credit: its gradient gives the tokens of a response the mean of their advantages.
    """

    reads: ClassVar[frozenset[Field]] = frozenset()
    needs: ClassVar[Mapping[Field, str]] = {}
    sequence_ratio: ClassVar[bool] = False
    averages_credit: ClassVar[bool] = False

    @abstractmethod
    def rule(self, options: O) -> Rule:
        """The composition of functions that it is."""


Estimating = Base[Any] | Transform[Any]
