"""The fields that travel beside the advantages from the advantage step (driver) to the policy loss (worker).

A transform publishes fields, the frame merges those of a chain, and verl's TransferQueue carries them with the rows of
the batch. In a worker they arrive with each micro-batch; who uses one reads it from `arrived`, and one that nobody read
is an error: a weight that is dropped without a word would train another method.
"""

from __future__ import annotations

import contextvars
import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from .errors import BridgeError, OptionError

PREFIX = "egsw_plugin_"  # of a field's name in TransferQueue


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is fixed about a field: its meaning, what stands for it outside a response, how two of them become one
    (None: only one member may set it), and whether it is numbers of a row."""

    meaning: str
    padding: float
    merge: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    per_row: bool = False


class Field(enum.Enum):
    """A field's name; shape [rows, tokens], or [rows, 1] where it is one number for the row; ENTROPY_COEF always is."""

    WEIGHT = "weight"
    KL_WEIGHT = "kl_weight"
    CLIP_LOW = "clip_low"
    CLIP_HIGH = "clip_high"
    ANCHOR = "anchor"
    ENTROPY_COEF = "entropy_coef"
    LOSS_OPTIONS = "loss_options"

    @property
    def spec(self) -> Spec:
        """What is fixed about it."""
        return SPECS[self]

    @property
    def queue_name(self) -> str:
        """Its name in TransferQueue."""
        return PREFIX + self.value


SPECS = {
    Field.WEIGHT: Spec("multiplies the policy term of a token; >= 0", 1.0, torch.mul),
    Field.KL_WEIGHT: Spec("multiplies the KL loss of a token; >= 0", 1.0, torch.mul),
    Field.CLIP_LOW: Spec("the ratio's lower bound is 1 - clip_low", 0.0),
    Field.CLIP_HIGH: Spec("the ratio's upper bound is 1 + clip_high", 0.0),
    Field.ANCHOR: Spec("coefficient of |log pi - log pi_old|, added to the loss of a token", 0.0, torch.add),
    Field.ENTROPY_COEF: Spec("coefficient of minus the current entropy (nats) in the loss", 0.0, per_row=True),
    Field.LOSS_OPTIONS: Spec("the options of the policy loss as numbers, [rows, number]", 0.0, per_row=True),
}


def merge(
    fields: Mapping[Field, torch.Tensor], more: Mapping[Field, torch.Tensor], name: str
) -> dict[Field, torch.Tensor]:
    """The fields of a chain's members so far and those that member `name` publishes, as one.

    Raises:
        OptionError: both set a field that only one member may set.

    >>> one = {Field.WEIGHT: torch.tensor([[2.0]])}
    >>> merge(one, {Field.WEIGHT: torch.tensor([[0.5, 1.0]])}, "second")
    {<Field.WEIGHT: 'weight'>: tensor([[1., 2.]])}
    """
    merged = dict(fields)
    for field, tensor in more.items():
        if field not in merged:
            merged[field] = tensor
        elif field.spec.merge is None:
            raise OptionError(
                "transforms", name, f"{field.value} is set by a transform before it; leave out one of them"
            )
        else:
            merged[field] = field.spec.merge(merged[field], tensor)
    return merged


class Arrived(Mapping[Field, torch.Tensor]):
    """The fields of the micro-batch whose loss is being computed, each padded as it is read."""

    def __init__(self, tensors: Mapping[Field, torch.Tensor]):
        self._tensors = dict(tensors)
        self._read: set[Field] = set()

    @classmethod
    def of(cls, data: Any) -> Arrived:
        """The fields among a micro-batch's."""
        return cls({field: data[field.queue_name] for field in Field if field.queue_name in data})

    def __getitem__(self, field: Field) -> torch.Tensor:
        """The field, [rows, tokens] or [rows, number]; it counts as read from then on."""
        tensor = self._tensors[field]
        self._read.add(field)
        return tensor.to_padded_tensor(field.spec.padding) if tensor.is_nested else tensor

    def __iter__(self) -> Iterator[Field]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, field: object) -> bool:
        return field in self._tensors

    def check_read(self, reader: str) -> None:
        """Refuse a field that nobody read; reader: what should have.

        >>> Arrived({Field.WEIGHT: torch.ones(1, 1)}).check_read("policy loss vanilla")
        Traceback (most recent call last):
        egsw_plugin.errors.BridgeError: the field weight arrived, and policy loss vanilla did not read it ...
        """
        for field in self:
            if field not in self._read:
                fix = _UNREAD.get(field, "set actor_rollout_ref.actor.policy_loss.loss_mode to a policy loss that does")
                meaning = field.spec.meaning
                raise BridgeError(f"the field {field.value} arrived, and {reader} did not read it ({meaning}): {fix}")


_UNREAD = {
    Field.KL_WEIGHT: "verl computed no KL loss; set actor_rollout_ref.actor.use_kl_loss=True",
    Field.ENTROPY_COEF: "verl computed no entropy; set actor_rollout_ref.actor.calculate_entropy=True",
}

_ARRIVED: contextvars.ContextVar[Arrived | None] = contextvars.ContextVar("egsw_plugin_arrived", default=None)
_NONE = Arrived({})


def arrived() -> Arrived:
    """The fields of the micro-batch whose loss is being computed; none outside of one."""
    return _ARRIVED.get() or _NONE


@contextmanager
def arriving(tensors: Mapping[Field, torch.Tensor]) -> Iterator[Arrived]:
    """Have `arrived` hold these fields meanwhile."""
    fields = tensors if isinstance(tensors, Arrived) else Arrived(tensors)
    token = _ARRIVED.set(fields)
    try:
        yield fields
    finally:
        _ARRIVED.reset(token)
