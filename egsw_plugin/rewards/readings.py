r"""Where a response states its answer, and how that may be read: for answers that are numbers, words, lists or grids.

Text alone: every function takes any string, in bounded time.

>>> stated_answer("So it is <answer>a b\nc d</answer>", "tags", lines=True)
'a b\nc d'
>>> readings("**4 + 3 = 7.**", number=True)
('**4 + 3 = 7.**', '4 + 3 = 7.', '4 + 3 = 7', '7')
"""

import re

from . import answers

TAIL = 8192  # characters: the longest right answers, sequences of moves, have some 5,000
FORMS = ("stated", "boxed", "tags")
_STATED = re.compile(r"answer\**\s*(?:is\b\s*:?|[:=])[\s*]*", re.IGNORECASE)
_FENCE = re.compile(r"```\w*\n(.*?)\n?```", re.DOTALL)
_PAIRS = (("**", "**"), ("$", "$"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), (r"\(", r"\)"), (r"\[", r"\]"))
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2012\u2013\u2212", "-"))
# What stands before the number is no sign, and nothing else that makes another number of it.
_DRESSED_NUMBER = re.compile(r"[^\w+\-±√<>≤≥≠/]{0,3}?([-+]?(?:\\?\$)?\d[\d,]*(?:\.\d+)?)[\s.,;:!%°)]*")
_ARROW = re.compile("=>|->|[→⇒]")
_STAGES = 8
_LONGEST_NUMBER = 500  # characters, so that the search stays short


def stated_answer(response: str, form: str, lines: bool) -> str | None:
    r"""What a response states as its answer; of several, the last.

    Args:
        response: The response; of what follows ``</think>``, the last `TAIL` characters are read.
        form: "stated" for "The answer is X" or "Answer: X", "boxed" for ``\boxed{X}``, "tags" for
            ``<answer>X</answer>``.
        lines: Whether X may have several lines. A stated one then goes to the end of the text, otherwise to the end of
            its line, or of the next that is not blank.

    Returns:
        None if it states none in this form.

    >>> stated_answer("The answer is: 7, I think.\nBye", "stated", lines=False)
    '7, I think.'
    >>> stated_answer("The answer is\n\n7\nBye", "stated", lines=False), stated_answer("7", "boxed", lines=False)
    ('7', None)
    """
    text = response.rpartition("</think>")[2].partition("<think>")[0][-TAIL:]
    if form == "tags":
        end = text.rfind("</answer>")
        start = text.rfind("<answer>", 0, max(end, 0))
        return None if start < 0 else text[start + len("<answer>") : end].strip("\n")
    if form == "boxed":
        return answers.boxed(text)
    marks = list(_STATED.finditer(text))
    if not marks:
        return None
    rest = text[marks[-1].end() :].strip()
    if lines:
        return rest
    if "\n" in marks[-1][0] and (item := answers.LIST_MARK.match(rest)):
        rest = rest[item.end() :]  # an item of a list is no negative number
    return rest.partition("\n")[0].strip()


def readings(statement: str, number: bool) -> tuple[str, ...]:
    r"""A statement as it stands, then with less and less around it: a full stop, quotes, Markdown, LaTeX.

    Args:
        statement: What `stated_answer` found.
        number: Whether the right answer is a number; then the last reading is the number alone, where there is one: the
            right side of an equation, the number before a unit.

    Returns:
        At least one reading, no two the same.

    >>> readings(r"$\text{Yes}$.", number=False)
    ('$\\text{Yes}$.', '$\\text{Yes}$', '\\text{Yes}', 'Yes')
    >>> readings("188 legs in all. That was easy.", number=True)[-1]
    '188'
    """
    box = answers.boxed(statement)
    stages = [box if box else statement.strip()]
    while len(stages) < _STAGES and (less := _undressed(stages[-1])) != stages[-1]:
        stages.append(less)
    if number and (found := _number(stages[-1])) is not None:
        stages.append(found)
    return tuple(dict.fromkeys(stages))


def is_number(truth: str) -> bool:
    """Whether a right answer is a number in digits.

    >>> is_number("-1,024.5"), is_number("3/4"), is_number("1 2")
    (True, False, False)
    """
    return _NUMBER.fullmatch(truth.strip()) is not None


def _undressed(text: str) -> str:
    fence = _FENCE.fullmatch(text.strip())
    if fence:
        return fence[1]
    if text != text.strip():
        return text.strip()
    for left, right in _PAIRS:
        inner = text[len(left) : -len(right)]
        if len(text) > len(left + right) and text.startswith(left) and text.endswith(right) and left not in inner:
            return inner
    if text.endswith("**") and text.count("**") == 1:  # the other half stands before "answer"
        return text[:-2]
    if text.endswith(".") and len(text) > 1:
        return text[:-1]
    if _WORDS.search(text):
        return _WORDS.sub(r"\1", text)
    return text.replace(r"\{", "{").replace(r"\}", "}")


def _number(text: str) -> str | None:
    sentence = answers.NEXT_SENTENCE.split(text.translate(_DASHES), 1)[0]
    if answers.several(sentence):
        return None
    side = _ARROW.split(sentence)[-1].rpartition("=")[2].strip()[:_LONGEST_NUMBER]
    if side[:1] == "-":
        side = "-" + side[1:].lstrip()
    found = _DRESSED_NUMBER.fullmatch(side) or answers.NUMBER_IN_WORDS.match(side)
    return re.sub(r"\\?\$|,", "", found[1]) if found else None
