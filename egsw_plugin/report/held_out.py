"""The same problems before and after training: how many are solved, how many answers well formed, and some texts."""

from collections import Counter, defaultdict

import numpy as np

from ..console import one_line
from ..markdown import table
from .estimates import bootstrap_interval
from .validation import Response

Problem = tuple[str, str]  # its data set ("" where none is named), and its key
Side = dict[Problem, list[Response]]  # of one validation, the responses to each problem

_SAMPLES = 4
_LONGEST = 600  # characters of a text that is shown


def compare(first: list[Response], last: list[Response]) -> str:
    """Markdown: success at the first and the last validation of a run, its change, and texts of both.

    Only problems that both validations have count. An interval is a 95 % bootstrap over problems.

    Args:
        first, last: all responses of one step each.

    Returns:
        The text; empty if the two have no problem in common.
    """
    before, after = _by_problem(first), _by_problem(last)
    problems = [key for key in after if key in before]
    if not problems:
        return ""
    steps = f"step {first[0].step}", f"step {last[0].step}"
    lines = [
        _row("solved", *(_rates(side, problems, "right") for side in (before, after))),
        _row("answer in the form asked for", *(_rates(side, problems, "well_formed") for side in (before, after))),
        ["solved, of those answers", _well_formed(before, problems), _well_formed(after, problems), ""],
    ]
    by_set = _by_data_set(problems)
    if constant := _constant(by_set, after):
        lines.append(["solved by the most frequent right answer of each data set, always", constant, constant, ""])
    if len(by_set) > 1:
        for name, members in by_set.items():
            label = f"solved: {one_line(name)}"
            lines.append(_row(label, *(_rates(side, members, "right") for side in (before, after))))
    parts = [
        f"## Validation problems: {steps[0]} and {steps[1]}",
        f"{len(problems)} problems. Brackets: 95 % interval, bootstrap over problems.",
        table(["percent", *steps, "change"], lines),
        "\n".join(_samples(by_set, before, after, steps)),
    ]
    return "\n\n".join(parts) + "\n"


def _by_problem(responses: list[Response]) -> Side:
    found: Side = defaultdict(list)
    for response in responses:
        found[response.data_set or "", response.key].append(response)
    return found


def _by_data_set(problems: list[Problem]) -> dict[str, list[Problem]]:
    found: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        found[problem[0]].append(problem)
    return dict(sorted(found.items()))


def _rates(side: Side, problems: list[Problem], what: str) -> np.ndarray:
    """Percent of each problem's responses, [problems]."""
    return np.array([100 * np.mean([getattr(response, what) for response in side[key]]) for key in problems])


def _row(label: str, before: np.ndarray, after: np.ndarray) -> list[str]:
    cells = [f"{values.mean():.1f}{_interval(values)}" for values in (before, after)]
    return [label, *cells, f"{after.mean() - before.mean():+.1f}{_interval(after - before, '+.1f')}"]


def _interval(values: np.ndarray, form: str = ".1f") -> str:
    ends = bootstrap_interval(values)
    return f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends else ""


def _well_formed(side: Side, problems: list[Problem]) -> str:
    marks = [response.right for key in problems for response in side[key] if response.well_formed]
    return f"{100 * np.mean(marks):.1f} of {len(marks)}" if marks else "none"


def _constant(by_set: dict[str, list[Problem]], side: Side) -> str:
    """What guessing without reading the problem can reach; empty if the data have no answers."""
    truths = [[side[key][0].truth for key in members] for members in by_set.values()]
    if not all(truth for each in truths for truth in each):
        return ""
    return f"{100 * sum(Counter(each).most_common(1)[0][1] for each in truths) / sum(map(len, truths)):.1f}"


def _samples(by_set: dict[str, list[Problem]], before: Side, after: Side, steps: tuple[str, str]) -> list[str]:
    """The first problem of each data set, or the first few of one, with the first response of both steps."""
    each = max(1, _SAMPLES // len(by_set))
    lines = [f"The first response to the first problem{'s' if each > 1 else ' of each data set'}:", ""]
    for members in list(by_set.values())[:_SAMPLES]:
        questions = _questions([after[key][0].asked for key in members])
        for key, question in list(zip(members, questions, strict=True))[:each]:
            lines += [f"    {line}" for line in _shown(question)]
            for step, side in zip(steps, (before, after), strict=True):
                mark = "right" if side[key][0].right else "wrong"
                lines += [f"      {step}, {mark}:", *(f"        {line}" for line in _shown(side[key][0].text))]
            lines.append("")
    return lines


def _questions(asked: list[str]) -> list[str]:
    """The prompts without the whole lines that all begin and end with: worked examples, the roles' names.

    >>> _questions(["user\\nsay 1\\nassistant\\n", "user\\nsay 2\\nassistant\\n"])
    ['say 1', 'say 2']
    """
    lines = [text.split("\n") for text in asked]
    if len(set(asked)) < 2:
        return asked
    start = _shared(lines)
    rest = [each[start:] for each in lines]
    end = _shared([each[::-1] for each in rest])
    return ["\n".join(each[: len(each) - end]) for each in rest]


def _shared(texts: list[list[str]]) -> int:
    """The number of lines with which all of them begin.

    >>> _shared([["a", "b", "c"], ["a", "b", "d"]])
    2
    """
    return next((n for n, lines in enumerate(zip(*texts, strict=False)) if len(set(lines)) > 1), min(map(len, texts)))


def _shown(text: str) -> list[str]:
    """Lines that no terminal acts on: what is not printable is escaped, and a long text is cut."""
    text = text.strip()
    if len(text) > _LONGEST:
        text = text[: _LONGEST // 2] + " [...] " + text[-_LONGEST // 2 :]
    return [one_line(line) for line in text.split("\n")] if text else ["(nothing)"]
