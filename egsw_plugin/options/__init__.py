"""What a user may set: one frozen dataclass a method, validated here and nowhere else."""

from .declare import Options, page, parse, walk
from .egsw import EGSWOptions
from .shaping import GRPOSOptions, GTPOOptions, OverlongOptions, ShapingOptions

__all__ = [
    "EGSWOptions",
    "GRPOSOptions",
    "GTPOOptions",
    "Options",
    "OverlongOptions",
    "ShapingOptions",
    "page",
    "parse",
    "walk",
]
