"""verl's configuration, read: the `algorithm` section arrives as a DictConfig, a dataclass, a dict or nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..controllers import Controller
from ..errors import OptionError
from ..methods import MEMBERS
from ..methods.chain import CHAIN, LOSS_MODE, Chain, Link, read, read_loss
from ..methods.interface import Member, PolicyLoss


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration asks of this plugin: a chain, a policy loss, either or neither."""

    chain: Chain | None
    loss: Link[PolicyLoss[Any]] | None

    @property
    def links(self) -> tuple[Link[Member[Any]], ...]:
        """All members, in the order of a step."""
        return (*(() if self.chain is None else self.chain.links), *(() if self.loss is None else (self.loss,)))

    @property
    def controlled(self) -> dict[str, Controller]:
        """The options that controllers move, by MEMBER.OPTION."""
        return {name: rule for link in self.links for name, rule in link.controlled.items()}


def plan_of(config: Any) -> Plan:
    """What verl's whole configuration asks for. Raises `OptionError` with the key, the value and the fix."""
    algorithm = get(config, "algorithm")
    name = get(algorithm, "adv_estimator")
    chain = chain_of(algorithm, name) if is_ours(name) else None
    return Plan(chain, read_loss(Sections(algorithm), select(config, LOSS_MODE, "vanilla")))


def is_ours(name: Any) -> bool:
    """Whether an adv_estimator is this plugin's."""
    return isinstance(name, str) and (name == CHAIN or name in MEMBERS)


def chain_of(algorithm: Any, name: str) -> Chain:
    """The chain that verl's `algorithm` section asks for with adv_estimator=`name`."""
    return read(Sections(algorithm), name)


class Sections(Mapping):
    """The sub-sections of verl's `algorithm` section as plain mappings, each read when it is asked for."""

    def __init__(self, algorithm: Any):
        if not (algorithm is None or isinstance(algorithm, Mapping) or dataclasses.is_dataclass(algorithm)):
            raise OptionError("algorithm", algorithm, "use verl's algorithm section, a mapping or None")
        self.algorithm = algorithm

    def __getitem__(self, name: str) -> Any:
        try:
            value = section(self.algorithm, name)
            if OmegaConf.is_dict(self.algorithm) and OmegaConf.is_missing(self.algorithm, name):
                raise OptionError(f"algorithm.{name}", "???", "set it, or leave it out")
        except OmegaConfBaseException as error:
            raise OptionError(f"algorithm.{name}", _written(self.algorithm, name), str(error)) from error
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        if dataclasses.is_dataclass(self.algorithm):
            return iter(vars(self.algorithm))
        return iter(self.algorithm or ())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _written(config: Any, name: str) -> Any:
    """A value as it was written, where it cannot be resolved."""
    try:
        written: Any = OmegaConf.to_container(config, resolve=False)
        return written[name]
    except (OmegaConfBaseException, ValueError, KeyError, TypeError):
        return "(unreadable)"


def section(config: Any, name: str) -> Any:
    """A sub-section as a plain mapping, or None where there is none; any other value as it is."""
    value = get(config, name)
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig) else value


def get(config: Any, name: str, default: Any = None) -> Any:
    """`config.name` whatever kind of configuration it is."""
    if config is None:
        return default
    value = config.get(name, default) if isinstance(config, Mapping) else getattr(config, name, default)
    return default if value is None else value


def select(config: Any, path: str, default: Any = None) -> Any:
    """`config.a.b.c` for the path "a.b.c", or the default where any part is missing or null."""
    for name in path.split("."):
        config = get(config, name)
    return default if config is None else config
