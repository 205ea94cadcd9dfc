r"""The comparison of two answers by math-verify. Only grading processes import this: it is slow, and hostile text can
make it run, or grow, without bound.

>>> equivalent(r"\boxed{\frac12}", r"\boxed{0.5}")
True
"""

import logging
import re
import warnings
from fractions import Fraction
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


def equivalent_within(answer: str, truth: str, seconds: float) -> bool | None:
    """`equivalent`, or None where there is no telling.

    After ``seconds`` of CPU time this process is dead if it still computes: the kernel's limit holds even where the
    process that keeps the pool, and the wall clock, was itself killed.
    """
    limit_time(seconds)
    return equivalent(answer, truth) or (False if readable(truth) else None)


def readable(truth: str) -> bool:
    r"""Whether a truth with digits can be compared otherwise than letter by letter; one without may be a word.

    >>> readable(r"\boxed{18}"), readable(r"\boxed{\text{north}}"), readable(r"\boxed{<<3*6=18>>}")
    (True, True, False)
    """
    if not any(sign.isdigit() for sign in truth):
        return True
    return not _WORD.search(_COMMAND.sub("", truth)) and any(not isinstance(one, str) for one in _read(truth))


_COMMAND = re.compile(r"\\(?:(?:text|mathrm|mbox|begin|end)\s*\{[^{}]*\}|[A-Za-z]+)")
_WORD = re.compile(r"[A-Za-z]*[aeiou][A-Za-z]{3,}|[A-Za-z]{3,}[aeiou][A-Za-z]*")  # which math-verify reads as a product


def equivalent(answer: str, truth: str) -> bool:
    r"""Whether an answer equals the truth mathematically.

    Args:
        answer: LaTeX in a ``\boxed{}``, or "answer: " and a text with LaTeX in it.
        truth: LaTeX in a ``\boxed{}``.

    >>> equivalent(r"\boxed{50\%}", r"\boxed{1/2}"), equivalent(r"answer: $x = 3$", r"\boxed{4}")
    (True, False)
    """
    numbers = [_PLAIN.fullmatch(text) for text in (answer, truth)]
    if numbers[0] and numbers[1]:
        one, other = (Fraction(number[1]) for number in numbers if number)
        if one == other or abs(one - other) > 1:
            return one == other
    based = [_BASED.fullmatch(text) for text in (answer, truth)]
    if based[0] and based[1]:
        return _value(*based[0].groups()) == _value(*based[1].groups())
    if _equal(answer, truth):
        return True
    if "%" not in answer and "%" not in truth:
        return False
    # "What percentage": the sign may be in the question. math-verify takes 50% for 50, but not 12.5% for 12.5, and
    # reads no fraction of a hundred.
    if _equal(*(_PER_CENT.sub("", text) for text in (answer, truth))):
        return True
    if ("%" in answer) == ("%" in truth) or "frac" not in (answer if "%" in answer else truth):
        return False
    return _equal(*(_HUNDREDTHS.sub(r"\\boxed{\\frac{\1}{100}}", text) for text in (answer, truth)))


_PLAIN = re.compile(r"\\boxed\{(-?[0-9]{1,300}(?:\.[0-9]{1,300})?)\}")  # needs no parser, which takes a millisecond
_BASED = re.compile(r"\\boxed\{\s*([0-9][0-9A-Z]{0,59})_\{?([0-9]{1,2})\}?\s*\}")  # math-verify drops the base
_PER_CENT = re.compile(r"\\?%")
_HUNDREDTHS = re.compile(r"\\boxed\{(.*?)\s*\\?%\s*\}")


def _equal(answer: str, truth: str) -> bool:
    gold, given = _read(truth), _read(answer)
    # A set of two is no pair, which math-verify reads as an interval, and takes for the same.
    if gold and given and ("\\{" in answer) != ("\\{" in truth):
        pair = (gold[0], given[0])
        if all(any(isinstance(one, kind) for one in pair) for kind in (sympy.Interval, sympy.FiniteSet)):
            return False
    if gold and given:
        pair = (_unnamed(gold[0]), _unnamed(given[0]))
        matrices = [isinstance(one, sympy.MatrixBase) for one in pair]
        if any(matrices):
            gold, given = [pair[0], *gold[1:]], [pair[1], *given[1:]]
        if any(matrices) and any(isinstance(one, sympy.Tuple | sympy.Interval | sympy.FiniteSet) for one in pair):
            if "\\{" in answer + truth:
                return False  # a set is no vector
            gold, given = _as_tuple(gold), _as_tuple(given)
    if verify(gold, given, timeout_seconds=None, allow_set_relation_comp=True):
        return not _only_near(gold[0], given[0])
    return bool(gold and given) and _same_decimals(gold[0], given[0])


def _value(digits: str, base: str) -> int | tuple[str, str]:
    """A number in a base; where it is none, its digits and the base."""
    try:
        return int(digits, int(base))
    except ValueError:
        return digits, base


def _unnamed(value: Any) -> Any:
    """The right side of an equation; a sum or product of matrices worked out."""
    value = value.rhs if isinstance(value, sympy.Equality) else value
    return value.doit() if isinstance(value, sympy.MatrixExpr) else value


def _as_tuple(side: list) -> list:
    """A row or column as a tuple: both write vectors. So is an open interval, which (1, 2) may be read as."""
    value = side[0]
    if isinstance(value, sympy.MatrixBase) and 1 in value.shape:
        return [sympy.Tuple(*value)]
    if isinstance(value, sympy.Interval) and value.left_open and value.right_open:
        return [sympy.Tuple(value.start, value.end)]
    return side


CLOSE = 2e-6  # two numbers no further apart than this may have been called equal for that alone
# Relative difference of two numbers that are equal: exact ones; with decimals; with decimals that were rounded.
EXACT, PRECISE, ROUNDED = 1e-200, 1e-12, 1e-5
VERY_CLOSE = 1e-9


def _only_near(gold: Any, given: Any) -> bool:
    """Whether two values that math-verify calls equal are numbers, or hold numbers, that are not.

    It compares with absolute tolerances: of about 1e-15 (sympy's comparison of evaluated numbers), and, where one of
    both has a decimal point, of six places. So all numbers smaller than that are equal to it, and all
    that differ by less.
    """
    gold, given = (x.rhs if isinstance(x, sympy.Equality) else x for x in (gold, given))
    ours, theirs = _parts(gold), _parts(given)
    if ours and len(ours) == len(theirs):
        return any(_only_near(one, other) for one, other in zip(ours, theirs, strict=True))
    if gold == given or not all(isinstance(x, sympy.Expr) for x in (gold, given)):
        return False
    names = gold.free_symbols
    if names != given.free_symbols or len(names) > 4:
        return False
    gold, given = (x.doit() for x in (gold, given))
    if gold.is_Rational and given.is_Rational:
        return bool(gold != given) and bool(abs(gold - given) <= CLOSE)
    if names:  # at a point: a coefficient may differ
        point = {name: PLACES[place] for place, name in enumerate(sorted(names, key=str))}
        gold, given = (x.subs(point) for x in (gold, given))
    one, other = (sympy.N(x, PRECISION) for x in (gold, given))
    apart, sizes = abs(one - other), (abs(one), abs(other))
    if not all(x.is_comparable for x in (apart, *sizes)) or bool(apart > CLOSE):
        return False  # equal in another sense: 50 % and 50
    if not (gold.has(sympy.Float) or given.has(sympy.Float)):
        return bool(apart > EXACT * max(sizes))
    return bool(apart > (PRECISE if bool(apart <= VERY_CLOSE) else ROUNDED) * max(sizes))


def _same_decimals(gold: Any, given: Any) -> bool:
    """Whether two numbers, one with decimals, are the same to 12 digits: math-verify rounds 602e21 and 6.02e23 to six
    places and finds their last binary digits to differ."""
    gold, given = (x.rhs if isinstance(x, sympy.Equality) else x for x in (gold, given))
    if not all(isinstance(x, sympy.Expr) and x.is_number for x in (gold, given)):
        return False
    if not (gold.has(sympy.Float) or given.has(sympy.Float)):
        return False
    one, other = (sympy.N(x, 30) for x in (gold, given))
    if not all(x.is_comparable and x.is_finite for x in (one, other)) or bool(max(abs(one), abs(other)) < LARGE):
        return False  # no number is near infinity
    return bool(abs(one - other) <= PRECISE * max(abs(one), abs(other)))


def _parts(value: Any) -> list:
    """The numbers of a tuple, set, interval, union, matrix or relation, those of sets in order of size; else none."""
    if isinstance(value, sympy.FiniteSet) and all(one.is_comparable for one in value):
        return sorted(value)
    if isinstance(value, sympy.FiniteSet) and all(isinstance(one, sympy.Equality) for one in value):
        return sorted(value, key=lambda one: str(one.lhs))
    if isinstance(value, sympy.And) and all(isinstance(one, sympy.core.relational.Relational) for one in value.args):
        return sorted(value.args, key=lambda one: [side.is_number for side in one.args])
    if isinstance(value, sympy.Interval):
        return [value.start, value.end]
    if isinstance(value, sympy.Union) and all(isinstance(one, sympy.Interval) for one in value.args):
        return sorted((end for one in value.args for end in (one.start, one.end)), key=lambda end: float(end))
    if isinstance(value, sympy.MatrixBase):
        return list(value)
    if isinstance(value, sympy.Tuple | sympy.core.relational.Relational):
        return list(value.args)
    return []


PRECISION = 230  # digits
LARGE = 1e6
PLACES = [sympy.Rational(*pair) for pair in ((13, 11), (17, 7), (19, 23), (29, 31))]


@lru_cache(maxsize=256)  # a group of responses shares its truth
def _read(text: str) -> list:
    # Only the last marked text counts: with math-verify's default, text that cannot be read makes it look further up.
    return parse(text, _MARKED, extraction_mode="first_match", parsing_timeout=None)
