r"""The table of data sets: where each comes from, what it has to look like, and how a record is read."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DataError
from .boxed import last_boxed
from .prompts import BOXED, CHOICE, CHOICE_THINK, DAPO, PLAIN, THINK, Style

_MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
_MATH_STYLES = {"boxed": BOXED, "think": THINK, "dapo": DAPO, "plain": PLAIN}
_AIME_FIELDS = (("problem", "Problem", "question"), ("answer", "Answer"))
_CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_BLANK = " \t\r\n"
_EXACT = 2**53  # a float beyond may be another number than the one in the file
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# What JSON makes of LaTeX commands whose backslash is not doubled and is a control character that text may have.
_BROKEN = re.compile(
    r"\t(?:ext\w*|heta|imes|au|an|anh|o|op|frac|riangle\w*|ilde)(?![A-Za-z])"
    r"|\n(?:u|eq|e|ot|otin|abla|i|eg|mid|leq|geq|subseteq)(?![A-Za-z])"
    r"|\r(?:ho|ight\w*|angle|m|ceil|floor)(?![A-Za-z])"
)
_HALF = re.compile(r"[\ud800-\udfff]")
_DEGREES = re.compile(r"(?:\^\\circ|\^\{\\circ\}|°)$")


@dataclasses.dataclass(frozen=True)
class Example:
    """One question: its text, the right answer, and what is known of it.

    ``published`` is the prompt as the source has it, with the name of its style in ``Source.published_style``.
    ``question`` is None if no bare question could be read out of it.
    """

    question: str | None
    answer: str
    id: str = ""
    subject: str = ""
    level: str = ""
    published: list[dict[str, str]] | None = None

    @property
    def asked(self) -> list[str]:
        """The text of the question, in each of its forms."""
        return [*([self.question] if self.question else []), *(one["content"] for one in self.published or ())]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: what to ask the hub for, what to expect, and how to read it."""

    name: str
    hub: str  # id on the Hugging Face hub
    configs: tuple[
        tuple[str, ...], ...
    ]  # the first of these groups that the hub's data set or the folder has is loaded
    splits: tuple[str, ...]  # the first of these that is there
    rows: int  # after dropping repeats
    fields: tuple[tuple[str, ...], ...]  # one of each group has to be there
    read: Callable[[Mapping[str, Any]], Example]
    styles: dict[str, Style]  # the first is the default
    split: str  # what it is used for: "train" or "test"
    ability: str = "math"
    published_style: str = ""
    repeats: bool = False  # the published file has rows more than once

    @property
    def data_source(self) -> str:
        """The name that verl's reward functions and metrics see."""
        return f"egsw_plugin/{self.name}"


def aime_answer(text: str) -> str:
    r"""An AIME answer as a plain number: the mirrors write it in several ways.

    Args:
        text: An integer from 0 to 999, possibly with leading zeros, dollar signs or a degree sign.

    Returns:
        The integer, without leading zeros.

    Raises:
        DataError: The answer is no such integer.

    >>> aime_answer("033"), aime_answer(r"$336^\circ$")
    ('33', '336')
    """
    number = _DEGREES.sub("", text.strip(f"${_BLANK}")).rstrip()
    if not re.fullmatch(r"\d{1,3}", number, re.ASCII):
        raise DataError(f"the answer {text!r} is no integer from 0 to 999")
    return str(int(number))


def choice_order(record_id: str) -> list[int]:
    """The order in which the four choices of a GPQA record are shown.

    Choice k (0 is the right one, 1 to 3 the wrong ones in the order of their columns) is ranked by the SHA-256 of the
    text ``"<record id>/<k>"``, so the order depends on nothing but the record's id. By hand:
    ``for k in 0 1 2 3; do echo "$(printf '%s/%s' ID $k | sha256sum) $k"; done | sort``.

    Args:
        record_id: The record's "Record ID".

    Returns:
        The four numbers k, as shown from A to D.

    >>> choice_order("recABC")
    [3, 2, 1, 0]
    """
    return sorted(range(4), key=lambda k: hashlib.sha256(f"{record_id}/{k}".encode()).digest())


def _text(record: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that the record has, as text that is not blank."""
    name = next((name for name in names if name in record), names[0])
    value = record.get(name)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)  # a column of numbers with a gap
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or value == "" or value != value:  # NaN
        raise DataError(f"the field {name!r} is empty")
    if not isinstance(value, str):
        raise DataError(f"the field {name!r} holds {type(value).__name__}, not text")
    if not value.strip():
        raise DataError(f"the field {name!r} is blank")
    return value


def _optional(record: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that has a value, as text; "" without one."""
    for name in names:
        value = record.get(name)
        if value is None or value != value:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise DataError(f"the field {name!r} holds {type(value).__name__}, not text")
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return ""


def half_pair(text: str) -> str:
    """The first half of a surrogate pair in a text, which no file can hold; "" without one."""
    found = _HALF.search(text)
    return found[0] if found else ""


def _answer(text: str) -> str:
    """An answer without white space around it, if it is whole.

    Raises:
        DataError: it has control characters, which are what JSON leaves of LaTeX whose backslashes are not doubled.
    """
    if found := CONTROL.search(text) or _BROKEN.search(text):
        raise DataError(f"the answer {text!r} has the control character {found[0][0]!r}: an undoubled backslash?")
    return text.strip(_BLANK)


def checked(example: Example) -> Example:
    """The example, if it can be written.

    Raises:
        DataError: a question without text, or text with half of a surrogate pair.
    """
    if example.question is not None and not example.question.strip():
        raise DataError("the question has no text")
    texts = {name: getattr(example, name) for name in ("answer", "id", "subject", "level")}
    for name, text in [*(("question", text) for text in example.asked), *texts.items()]:
        if half := half_pair(text):
            raise DataError(f"the {name} has half of a surrogate pair, {half!r}")
    return example


def _read_math(record: Mapping[str, Any]) -> Example:
    return Example(
        question=_text(record, "problem"),
        answer=_answer(last_boxed(_text(record, "solution"))),
        subject=_optional(record, "type"),
        level=_optional(record, "level").removeprefix("Level "),
    )


def _read_math_500(record: Mapping[str, Any]) -> Example:
    return Example(
        question=_text(record, "problem"),
        answer=_answer(_text(record, "answer")),
        id=_optional(record, "unique_id"),
        subject=_optional(record, "subject"),
        level=_optional(record, "level").removeprefix("Level "),
    )


def _read_aime(record: Mapping[str, Any]) -> Example:
    question, answer = _AIME_FIELDS
    return Example(
        question=_text(record, *question),
        answer=aime_answer(_text(record, *answer)),
        id=_optional(record, "id", "ID", "problem_idx"),
    )


def _read_dapo(record: Mapping[str, Any]) -> Example:
    # open-r1's copy has the bare question in "prompt" and the published messages in "source_prompt"
    for name in ("prompt", "reward_model"):
        if record.get(name) is None:
            raise DataError(f"the field {name!r} is empty")
    published = record.get("source_prompt") if isinstance(record["prompt"], str) else record["prompt"]
    if not isinstance(published, list) or len(published) != 1 or not isinstance(published[0], dict):
        raise DataError("the field 'prompt' is not one message, a list of one {role, content}")
    content = _text({"content": None, **published[0]}, "content")
    if set(published[0]) != {"role", "content"} or published[0]["role"] != "user":
        raise DataError(f"the field 'prompt' has a message with {_shown(published[0])}; expected role user and content")
    if not isinstance(record["reward_model"], dict):
        raise DataError("the field 'reward_model' is no section")
    extra_info = {} if record.get("extra_info") is None else record["extra_info"]
    if not isinstance(extra_info, dict):
        raise DataError("the field 'extra_info' is no section")
    return Example(
        question=DAPO.question(content),
        answer=_answer(_text({"ground_truth": None, **record["reward_model"]}, "ground_truth")),
        id=_optional(extra_info, "index"),
        published=[{"role": "user", "content": content}],
    )


def _shown(message: Mapping[str, Any]) -> str:
    return ", ".join(name if name == "content" else f"{name} {message[name]!r:.40}" for name in message)


def _read_gpqa(record: Mapping[str, Any]) -> Example:
    record_id = _text(record, "Record ID").strip(_BLANK)
    choices = [_text(record, name).strip(_BLANK) for name in _CHOICES]
    if choices[0] in choices[1:]:
        raise DataError(f"the right answer {choices[0]!r} is also among the wrong ones")
    order = choice_order(record_id)
    shown = "\n".join(f"{letter}) {choices[k]}" for letter, k in zip("ABCD", order, strict=True))
    return Example(
        question=f"{_text(record, 'Question').strip(_BLANK)}\n\n{shown}",
        answer="ABCD"[order.index(0)],
        id=record_id,
        subject=_optional(record, "Subdomain", "High-level domain"),
    )


_ALL = (
    Source(
        name="math",
        hub="EleutherAI/hendrycks_math",
        configs=(_MATH_SUBJECTS, ("default",)),
        splits=("train",),
        rows=7500,
        fields=(("problem",), ("solution",)),
        read=_read_math,
        styles=_MATH_STYLES,
        split="train",
    ),
    Source(
        name="dapo-math-17k",
        hub="BytedTsinghua-SIA/DAPO-Math-17k",
        configs=(("default",), ("all",)),
        splits=("train",),
        rows=17398,
        fields=(("prompt",), ("reward_model",), ("extra_info",)),
        read=_read_dapo,
        styles={"dapo": DAPO, "boxed": BOXED, "think": THINK, "plain": PLAIN},
        split="train",
        published_style="dapo",
        repeats=True,
    ),
    Source(
        name="math-500",
        hub="HuggingFaceH4/MATH-500",
        configs=(("default",),),
        splits=("test", "train"),
        rows=500,
        fields=(("problem",), ("answer",)),
        read=_read_math_500,
        styles=_MATH_STYLES,
        split="test",
    ),
    Source(
        name="aime-2024",
        hub="HuggingFaceH4/aime_2024",
        configs=(("default",),),
        splits=("train", "test"),
        rows=30,
        fields=_AIME_FIELDS,
        read=_read_aime,
        styles=_MATH_STYLES,
        split="test",
    ),
    Source(
        name="aime-2025",
        hub="opencompass/AIME2025",
        configs=(("AIME2025-I", "AIME2025-II"), ("default",)),
        splits=("test", "train"),
        rows=30,
        fields=_AIME_FIELDS,
        read=_read_aime,
        styles=_MATH_STYLES,
        split="test",
    ),
    Source(
        name="gpqa-diamond",
        hub="Idavidrein/gpqa",
        configs=(("gpqa_diamond",), ("default",)),
        splits=("train", "test"),
        rows=198,
        fields=(("Record ID",), ("Question",), *((name,) for name in _CHOICES)),
        read=_read_gpqa,
        styles={"choice": CHOICE, "think": CHOICE_THINK},
        split="test",
        ability="science",
    ),
)
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
