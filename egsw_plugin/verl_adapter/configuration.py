"""verl's configuration, read: the `algorithm` section arrives as a DictConfig, a dataclass, a dict or nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import OptionError
from ..methods import Method
from ..options import parse


def options_of(method: Method, algorithm: Any) -> Any:
    """The validated options of `method` from verl's `algorithm` section."""
    if not (algorithm is None or isinstance(algorithm, Mapping) or dataclasses.is_dataclass(algorithm)):
        raise OptionError("algorithm", algorithm, "use verl's algorithm section, a mapping or None")
    try:
        given = section(algorithm, method.name)
        if OmegaConf.is_dict(algorithm) and OmegaConf.is_missing(algorithm, method.name):
            raise OptionError(f"algorithm.{method.name}", "???", "set it, or leave it out")
    except OmegaConfBaseException as error:
        raise OptionError(f"algorithm.{method.name}", "(unreadable)", str(error)) from error
    return parse(method.options_type, given, f"algorithm.{method.name}")


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
