"""verl's configuration, read: the `algorithm` section arrives as a DictConfig, a dataclass, a dict or nothing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from ..controllers import Controller
from ..errors import OptionError
from ..methods import MEMBERS
from ..methods.chain import Chain, Link, read, read_loss, tensors_of
from ..methods.interface import Member, PolicyLoss
from ..methods.places import CHAIN, LOSS_MODE
from ..options.spelling import alike, close


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

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the per-token tensors that the members and the controllers need."""
        return tensors_of(self.links)


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
            value = section(self.algorithm, name, missing=True)
        except OmegaConfBaseException as error:
            refusal = readable(error, self.algorithm, getattr(error, "full_key", None) or f"algorithm.{name}")
            if not refusal.key.startswith("algorithm"):  # the section alone was passed
                refusal = OptionError(f"algorithm.{refusal.key}", refusal.value, refusal.fix)
            raise refusal from None
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        if dataclasses.is_dataclass(self.algorithm):
            return iter(vars(self.algorithm))
        return iter(self.algorithm or ())

    def __len__(self) -> int:
        return sum(1 for _ in self)


_LOST = re.compile(r"key '([^']+)' not found")
MISSING = "it has no value yet; set it, or leave it out"


def readable(error: OmegaConfBaseException, config: Any, key: str = "") -> OptionError:
    """An interpolation that does not resolve, or a value that is missing, with its whole key and as it was written."""
    root = config._get_root() if OmegaConf.is_config(config) else None
    key = key or getattr(error, "full_key", None) or ""
    if not key and root is not None and (first := unresolved(root)):
        return first
    plain = None if root is None else OmegaConf.to_container(root, resolve=False)
    value = dict(_values(plain)).get(key)
    if value == "???":
        return OptionError(key, value, MISSING)
    fix = str(error).partition("\n")[0]
    if lost := _LOST.search(fix):
        others = [other for other, _ in _values(plain) if not key.startswith(other)]
        near = [other for other in close(lost[1], others) if alike(lost[1], other) > 0.8]
        fix += f"; did you mean ${{{near[0]}}}?" if near else "; name a key that there is, or write the value itself"
    return OptionError(key, value, fix)


def unresolved(config: Any) -> OptionError | None:
    """The first interpolation of a configuration that does not resolve, if any; verl resolves all before it trains."""
    if not OmegaConf.is_config(config):
        return None
    written = [
        (key, value)
        for key, value in _values(OmegaConf.to_container(config, resolve=False))
        if isinstance(value, str) and "${" in value
    ]
    for key, _ in written:
        try:
            OmegaConf.select(config, key)
        except InterpolationToMissingValueError:
            continue
        except OmegaConfBaseException as error:
            lost = _LOST.search(str(error))
            # A value that asks for another one fails with it: show the one that names what is not there.
            source = next((one for one, value in written if lost and f"${{{lost[1]}}}" in value), key)
            return readable(error, config, source)
    return None


def _values(plain: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """All values of nested dictionaries and lists by their whole keys, as OmegaConf writes these."""
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in items:
        name = f"{before}[{key}]" if isinstance(plain, list) else f"{before}.{key}" if before else str(key)
        yield name, value
        yield from _values(value, name)


def is_missing(config: Any, path: str) -> bool:
    """Whether a value is still ???.

    >>> config = OmegaConf.create({"actor": {"policy_loss": "???"}})
    >>> is_missing(config, "actor.policy_loss"), is_missing(config, "critic.enable"), is_missing({}, "critic.enable")
    (True, False, False)
    """
    place, _, name = path.rpartition(".")
    section = select(config, place)
    return OmegaConf.is_dict(section) and OmegaConf.is_missing(section, name)


def is_set(config: Any, path: str) -> bool:
    """Whether a configuration has the key at all, with whatever value."""
    part = config
    for name in path.split("."):
        if not isinstance(part, Mapping) or name not in part.keys():  # noqa: SIM118
            return False
        part = part._get_node(name) if isinstance(part, DictConfig) else part[name]
    return True


def section(config: Any, name: str, missing: bool = False) -> Any:
    """A sub-section as a plain mapping, or None where there is none; any other value as it is.

    missing: a value that is still ??? is an error.
    """
    if missing and OmegaConf.is_dict(config) and OmegaConf.is_missing(config, name):
        config[name]  # which raises
    value = get(config, name)
    if isinstance(value, DictConfig):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=missing)
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value


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
