r"""reasoning-gym's tasks: making one, entries that survive a file, and grading that no answer can abuse.

Graders take text that a model wrote. Those of 4 tasks pass it to Python's ``eval``, those of 5 more to sympy's parser,
which evaluates it as well. Here the first get `ast.literal_eval` in its place, and the second see a text only if it is
an arithmetic expression.

>>> value("chain_sum", "{}", encode({"question": "1 + 2?", "answer": "3", "metadata": {}}), ("+3.0",))
1.0
"""

import ast
import dataclasses
import importlib
import json
import re
import sys
import types
import typing
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ..errors import DataError, OptionError
from ..options.spelling import close, question

SOURCE = "reasoning_gym/"  # what data_source begins with; the task's name follows
_GIVEN_ELSEWHERE = ("size", "seed")
_EVALUATING = (
    "algorithmic.binary_matrix",
    "algorithmic.spiral_matrix",
    "algorithmic.string_insertion",
    "games.n_queens",
)
_PARSING = {"countdown", "puzzle24", "polynomial_multiplication", "simple_integration", "intermediate_integration"}
_FUNCTIONS = {"Abs", "erf", "exp", "ln", "log", "pi", "sqrt"}
_FUNCTIONS |= {a + f + h for a in ("", "a") for f in ("sin", "cos", "tan") for h in ("", "h")} | {"cot", "csc", "sec"}
_CHARACTERS = re.compile(r"[\s0-9A-Za-z.,+\-*/^()]*")
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z]")
_NOT_FINITE = re.compile(r"\b(?:nan|inf|infinity)\b", re.IGNORECASE)
# Graders that were read and found to do no more than compare and convert texts, in time linear in their length, beside
# those that keep the base class's grader, which compares only.
_READ = {"calendar_arithmetic", "chain_sum", "decimal_chain_sum", "gsm_symbolic", "products", "spell_backward"}


@lru_cache(maxsize=1)
def library() -> types.ModuleType:
    """The package ``reasoning_gym``, with graders that evaluate no text.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        importlib.import_module("pycosat")
    except ModuleNotFoundError:  # it has no wheel, and one task alone calls it
        sys.modules["pycosat"] = types.ModuleType("pycosat")
    try:
        package = importlib.import_module("reasoning_gym")
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"no module {missing.name!r}: the tasks of reasoning-gym need pip install 'egsw-plugin[reasoning-gym]', "
            "into the environment that verl's processes use"
        ) from missing
    for name in _EVALUATING:
        module: Any = importlib.import_module(f"reasoning_gym.{name}")
        module.eval = ast.literal_eval
    return package


def names() -> list[str]:
    """The names of all tasks. ``composite`` is none: it mixes others, as a list of tasks does here."""
    return sorted(set(library().factory.DATASETS) - {"composite"})


def make(name: str, options: Mapping[str, Any], size: int = 1, seed: int = 0) -> Any:
    """A task's data set of the library.

    Args:
        name: One of `names`.
        options: Fields of the task's configuration, as JSON has them (lists for tuples).
        size, seed: The library's own: number of problems, and where they begin.

    Raises:
        OptionError: There is no such task or option, or a value is of another type or out of range.

    >>> make("chain_sum", {"max_term": 3})
    Traceback (most recent call last):
    egsw_plugin.errors.OptionError: chain_sum:max_term=3: did you mean 'max_terms'?
    """
    if name not in names():
        raise OptionError("task", name, _nearest(name, names()))
    if name == "zebra_puzzles" and not hasattr(sys.modules["pycosat"], "solve"):
        raise OptionError("task", name, "pip install pycosat, which needs a C compiler and Python's headers")
    config = library().factory.DATASETS[name][1]
    hints = typing.get_type_hints(config)
    known = [field.name for field in dataclasses.fields(config) if field.name not in _GIVEN_ELSEWHERE]
    values = {}
    for key, given in options.items():
        if key not in known:
            raise OptionError(f"{name}:{key}", given, _nearest(key, known))
        values[key] = _typed(f"{name}:{key}", given, hints[key])
    try:
        return library().create_dataset(name, size=size, seed=seed, **values)
    except (AssertionError, ValueError, TypeError) as error:
        words = (str(error) or "the library refuses these options").splitlines()[0]
        raise OptionError("task", ":".join((name, _shown(options))), words) from error


def _typed(key: str, given: Any, hint: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    if typing.get_origin(hint) is tuple and len(arguments := typing.get_args(hint)) == 1:
        # The library writes tuple[str] for tuples of any length.
        hint = types.GenericAlias(tuple, (arguments[0], ...))
    try:
        return TypeAdapter(hint).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        raise OptionError(key, given, error.errors()[0]["msg"]) from error


def _nearest(name: str, known: list[str]) -> str:
    near = close(name, known)
    return question(near) if near else f"use one of {', '.join(known) or 'none'}"


def _shown(options: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items())


def encode(entry: Mapping[str, Any]) -> str:
    """An entry of a task as JSON from which `decode` makes it again, tuples and keys that are numbers included.

    Raises:
        DataError: It holds something else than texts, numbers, lists, tuples, dictionaries and fractions.

    >>> encode({"at": (1, 2), "of": {3: "c"}})
    '{"at": {"~tuple": [1, 2]}, "of": {"~dict": [[3, "c"]]}}'
    """
    return json.dumps(_tagged(entry), ensure_ascii=False)


def decode(text: str) -> Any:
    """What `encode` was given.

    >>> decode(encode({"at": (1, 2), "of": {3: "c"}}))
    {'at': (1, 2), 'of': {3: 'c'}}
    """
    return json.loads(text, object_hook=_untagged)


def _tagged(value: Any) -> Any:
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("~") for key in value):
            return {key: _tagged(item) for key, item in value.items()}
        return {"~dict": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"~tuple": [_tagged(item) for item in value]}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, Fraction):
        return {"~fraction": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "item"):  # a number of numpy
        return _tagged(value.item())
    raise DataError(f"an entry holds {type(value).__name__}, which has no form in a file")


def _untagged(value: dict) -> Any:
    if len(value) == 1:
        (key, inner), *_ = value.items()
        if key == "~tuple":
            return tuple(inner)
        if key == "~dict":
            return {name: item for name, item in inner}
        if key == "~fraction":
            return Fraction(inner)
    return value


def is_simple(name: str) -> bool:
    """Whether the task's grader only compares and converts texts, so that it needs no process of its own.

    >>> is_simple("chain_sum"), is_simple("leg_counting"), is_simple("countdown")
    (True, True, False)
    """
    dataset = library().factory.DATASETS[name][0]
    return name in _READ or dataset.score_answer is library().dataset.ProceduralDataset.score_answer


def value(name: str, options: str, entry: str, readings: tuple[str, ...]) -> float:
    """The best mark, 0 to 1, that the task's own grader gives one of several readings of an answer.

    A reading that makes the grader fail gets 0, as does one with "nan" or "infinity" that the right answer has not:
    comparisons with those are true where they should not be. So does a wrong one of `_ALSO_NEEDED`.

    Args:
        name: The task.
        options: Its configuration, as JSON: some graders read it.
        entry: The problem, by `encode`.
        readings: The same answer, as stated and with less and less around it.
    """
    dataset = _dataset(name, options)
    best = 0.0
    for reading in readings:
        problem = decode(entry)  # a grader may write to it
        mark = _mark(name, dataset, problem, reading)
        if mark > best:  # not if it is no number
            best = min(mark, 1.0)
    return best


def _mark(name: str, dataset: Any, problem: dict, reading: str) -> float:
    truth = str(problem["answer"])
    if _NOT_FINITE.search(reading) and not _NOT_FINITE.search(truth):
        return 0.0
    if name in _PARSING and not _is_expression(reading):
        return 0.0
    try:
        mark = float(dataset.score_answer(reading, problem))
        return mark if mark < 1 or name not in _ALSO_NEEDED or _ALSO_NEEDED[name](reading, problem) else 0.0
    except MemoryError:
        raise
    except Exception:  # what it cannot read is wrong
        return 0.0


def _same_word(reading: str, problem: dict) -> bool:
    return reading.strip().lower() == problem["answer"].lower()


def _same_number(reading: str, problem: dict) -> bool:
    first = re.search(r"-?\d+(?:\.\d+)?", reading)
    return first is not None and float(first[0]) == float(problem["answer"])


def _near(reading: str, problem: dict) -> bool:
    return abs(Fraction(reading.replace(",", "")) - Fraction(problem["answer"])) <= Fraction("1e-4")


def _given_numbers(reading: str, problem: dict) -> bool:
    return sorted(map(int, re.findall(r"\d+", reading))) == sorted(problem["metadata"]["numbers"])


# Some graders give full marks to wrong answers, which training would find: what a right one has beside their marks.
_ALSO_NEEDED = {
    "coin_flip": _near,  # "0" is the beginning of 0.234375, and any beginning will do
    "game_of_life_halting": _same_word,  # every text that is not empty will do, since bool("False") is True
    "gsm_symbolic": _same_number,  # the sign is not read
    "puzzle24": _given_numbers,  # any four numbers that make 24 will do, whatever the question gives
}


def _is_expression(text: str) -> bool:
    """Whether a text is made of numbers, signs, brackets, variables of one letter, and known functions alone."""
    if not _CHARACTERS.fullmatch(text) or _ATTRIBUTE.search(text):
        return False
    return all(len(word) == 1 or word in _FUNCTIONS for word in re.findall("[A-Za-z]+", text))


@lru_cache(maxsize=128)
def _dataset(name: str, options: str) -> Any:
    return make(name, json.loads(options))


def prepare() -> None:
    """Limits this process and loads the library; a grading process calls it once."""
    import logging
    import os
    import warnings

    from .limits import limit_memory

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some graders print
    limit_memory()
    library()


def value_within(name: str, options: str, entry: str, readings: tuple[str, ...], seconds: float) -> float:
    """`value`, after which, or ``seconds`` of CPU time later, this process is dead if it still computes."""
    from .limits import limit_time

    limit_time(seconds)
    return value(name, options, entry, readings)
