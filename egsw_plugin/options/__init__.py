"""How a member declares what a user may set: a frozen dataclass, validated as it is parsed and nowhere else."""

from .declare import NoOptions, Options, decode, documented, encode, option, page, parse, show, table, walk

__all__ = [
    "NoOptions",
    "Options",
    "decode",
    "documented",
    "encode",
    "option",
    "page",
    "parse",
    "show",
    "table",
    "walk",
]
