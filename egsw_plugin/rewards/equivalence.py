r"""The comparison of two answers by math-verify. Only grading processes import this: it is slow, and hostile text can
make it run, or grow, without bound.

>>> equivalent(r"\boxed{\frac12}", r"\boxed{0.5}")
True
"""

import logging
import warnings
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.antlr_parser import PSParser
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from .limits import limit_memory, limit_time

_MARKED = (
    LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False),
    ExprExtractionConfig(try_extract_without_anchor=False),
)

# latex2sympy2_extended 1.11.0 asks for this in every atom, but its parser for ANTLR 4.9.3 (the version that hydra
# needs) was not generated anew: without it nothing with a percent sign is read.
if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
    PSParser.AtomContext.FUNC_GAMMA = lambda self: None


def prepare() -> None:
    """Limit this process and load what the first comparison would; a grading process calls it once."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
    warnings.simplefilter("ignore")  # Python's remarks about the syntax of what sympy evaluates
    limit_memory()
    equivalent(r"\boxed{\frac{1}{3}}", r"\boxed{x^2}")


def equivalent_within(answer: str, truth: str, seconds: float) -> bool:
    """`equivalent`, after which, or ``seconds`` of CPU time later, this process is dead if it still computes.

    The kernel's limit holds even where the process that keeps the pool, and the wall clock, was itself killed.
    """
    limit_time(seconds)
    return equivalent(answer, truth)


def equivalent(answer: str, truth: str) -> bool:
    r"""Whether an answer equals the truth mathematically.

    Args:
        answer: LaTeX in a ``\boxed{}``, or "answer: " and a text with LaTeX in it.
        truth: LaTeX in a ``\boxed{}``.

    >>> equivalent(r"\boxed{50\%}", r"\boxed{1/2}"), equivalent(r"answer: $x = 3$", r"\boxed{4}")
    (True, False)
    """
    gold, given = _read(truth), _read(answer)
    return bool(verify(gold, given, timeout_seconds=None)) and not _only_near(gold[0], given[0])


CLOSE = 1e-9  # two numbers no further apart than this may have been called equal for that alone
EXACT, ROUNDED = 1e-30, 1e-12  # relative difference of two numbers that are equal, with and without decimals


def _only_near(gold: Any, given: Any) -> bool:
    """Whether two values that math-verify calls equal are numbers, or tuples with numbers, that are not.

    It compares with an absolute tolerance of about 1e-15 (sympy's comparison of evaluated numbers), so that all numbers
    smaller than that are equal to it, and all that differ by less.
    """
    gold, given = (x.rhs if isinstance(x, sympy.Equality) else x for x in (gold, given))
    if isinstance(gold, sympy.Tuple) and isinstance(given, sympy.Tuple) and len(gold) == len(given):
        return any(_only_near(one, other) for one, other in zip(gold, given, strict=True))
    if gold == given or not all(isinstance(x, sympy.Expr) and x.is_number for x in (gold, given)):
        return False
    one, other = (sympy.N(x.doit(), PRECISION) for x in (gold, given))
    apart, sizes = abs(one - other), (abs(one), abs(other))
    if not all(x.is_comparable for x in (apart, *sizes)) or bool(apart > CLOSE):
        return False  # equal in another sense: 50 % and 50
    rounded = gold.has(sympy.Float) or given.has(sympy.Float)
    return bool(apart > (ROUNDED if rounded else EXACT) * max(sizes))


PRECISION = 60  # digits


@lru_cache(maxsize=256)  # a group of responses shares its truth
def _read(text: str) -> list:
    # Only the last marked text counts: with math-verify's default, text that cannot be read makes it look further up.
    return parse(text, _MARKED, extraction_mode="first_match", parsing_timeout=None)
