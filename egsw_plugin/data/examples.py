"""Worked examples for reasoning-gym's tasks: turns of the chat before the question, read from a file of the user's."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import OptionError
from ..options.spelling import close, question
from ..rewards import gym_tasks
from ..rewards.readings import FORMS, stated_answer
from ..strict_yaml import read_yaml
from .prompts import Style
from .sources import half_pair

_KEY = "--examples"
_OMIT = "omit"


@dataclasses.dataclass(frozen=True)
class Examples:
    """``turns``: a task's questions and responses. ``omit``: texts that are left out of the questions of the data."""

    turns: Mapping[str, Sequence[tuple[str, str]]] = dataclasses.field(default_factory=dict)
    omit: Sequence[str] = ()

    def question(self, text: str) -> str:
        """The question without the omitted texts, with a capital where its beginning was one of them.

        >>> Examples(omit=["Read this. ", " Say only X."]).question("Read this. how many? Say only X.")
        'How many?'
        """
        for omitted in self.omit:
            text = text.replace(omitted, "")
        text = text.strip()
        return text[:1].upper() + text[1:] if self.omit else text

    def messages(self, task: str, question: str, style: Style) -> list[dict[str, str]]:
        """The chat: each example as a question and its response, all asked in this style, then the question."""
        system, turns = [], []
        for asked, response in (*self.turns.get(task, ()), (self.question(question), None)):
            *system, user = style.messages(asked)
            turns += [user] if response is None else [user, {"role": "assistant", "content": response}]
        return [*system, *turns]

    def has(self, task: str, question: str) -> bool:
        """Whether an example asks this."""
        return self.question(question) in {asked for asked, _ in self.turns.get(task, ())}

    def form(self) -> str:
        """The form in which all examples state their answer; "" if there is none."""
        responses = [response for turns in self.turns.values() for _, response in turns]
        shared = [form for form in FORMS if all(stated_answer(r, form, lines=True) is not None for r in responses)]
        return shared[0] if responses and shared else ""

    def check_omitted(self, questions: Sequence[str]) -> None:
        """Refuses an omitted text that no question has: a version of reasoning-gym may word it otherwise.

        Raises:
            OptionError: Names it.
        """
        for omitted in self.omit:
            if not any(omitted in question for question in questions):
                raise OptionError(f"{_KEY} {_OMIT}", omitted, "no question has this text; copy it from the data")


def read_examples(path: Path, tasks: Sequence[str]) -> Examples:
    """Reads a YAML file: a task's name to a list of ``{question: ..., response: ...}``; ``omit`` to a list of texts.

    Args:
        path: Of the file.
        tasks: Those that need examples; the file may have more.

    Raises:
        OptionError: The file cannot be read, is of another form, names no task, or lacks one.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(_KEY, str(path), f"cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise OptionError(_KEY, str(path), "write a task's name, and below it a list of question and response")
    omit = content.pop(_OMIT, [])
    if not isinstance(omit, list) or not all(isinstance(text, str) and text for text in omit):
        raise OptionError(f"{_KEY} {_OMIT}", omit, "write a list of texts")
    for name in content:
        if name not in gym_tasks.names():
            near = close(str(name), [*gym_tasks.names(), _OMIT])
            raise OptionError(_KEY, name, f"no task of reasoning-gym{f'; {question(near)}' if near else ''}")
    if missing := [name for name in tasks if name not in content]:
        raise OptionError(_KEY, str(path), f"has none for {', '.join(missing)}")
    return Examples({name: [_turn(name, item) for item in _list(name, items)] for name, items in content.items()}, omit)


def _list(name: str, items: object) -> list:
    if not isinstance(items, list) or not items:
        raise OptionError(f"{_KEY} {name}", items, "write a list of question and response")
    return items


def _turn(name: str, item: object) -> tuple[str, str]:
    if not isinstance(item, dict) or set(item) != {"question", "response"}:
        raise OptionError(f"{_KEY} {name}", item, "write question and response")
    for text in item.values():
        if not isinstance(text, str) or not text.strip():
            raise OptionError(f"{_KEY} {name}", text, "write a text, in quotes if YAML reads it otherwise")
        if half_pair(text):
            raise OptionError(f"{_KEY} {name}", text, "has half of a surrogate pair; write the character itself")
    return item["question"], item["response"]
