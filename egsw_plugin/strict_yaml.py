"""YAML that a user wrote by hand, where what PyYAML passes over is an error."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice, of which PyYAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key, Hashable):
                if key in seen:
                    raise ValueError(f"line {key_node.start_mark.line + 1}: {key!r} comes more than once")
                seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is no YAML, or a key comes twice; one line.

    >>> read_yaml("{alpha: 1.5, seeds: [1, 2]}")
    {'alpha': 1.5, 'seeds': [1, 2]}
    >>> read_yaml("{alpha: 1, alpha: 2}")
    Traceback (most recent call last):
    ValueError: line 1: 'alpha' comes more than once
    """
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # beside its own: whatever Python's int, date or bool say of a text, and a deep nesting
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
