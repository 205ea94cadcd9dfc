"""Where in a response the final answer is. Text alone: every function takes any string, in time linear in its length.

>>> boxed(r"We try \\boxed{1}. No: \\boxed{\\frac{1}{2}}")
'\\\\frac{1}{2}'
>>> stated("So 6 times 7.\\nAnswer: 42")
'42'
"""

import re

TAIL = 4096  # characters: a final answer has a few hundred at most, and the time of all searches is bounded by this

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is no brace
_JOINED = re.compile(r"[\s$]*(?:,|;|,?\s*(?:\\text\{\s*)?(?:and|or)\s*\}?)[\s$]*")
_ANSWER_LINE = re.compile(r"answer\**\s*:[\s*]*", re.IGNORECASE)
_ANSWER_IS = re.compile(r"answer\**\s*(?:is\b\s*:?|[:=])[\s*]*", re.IGNORECASE)
_MATH = re.compile(r"\$[^$]+\$|\\[(\[]")
_NUMBER_IN_WORDS = re.compile(
    # What follows the number must be a word that changes nothing of it: a unit, a reason, the next clause.
    r"(-?\$?\d[\d,]*(?:\.\d+)?)[,;.]?\s+(?!(?:and|or|to|pi|sqrt|times|over|plus|minus|mod|percent|hundred|thousand|"
    r"million|billion|if|when|for)\b)[a-z]{2,}",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<=\d)\\[,!;: ](?=\d{3}(?!\d))")  # math-verify reads 1\,000 as 1 times 000
_LAST_STOP = re.compile(r"(?<!\\right)\.$")
_NEXT_SENTENCE = re.compile(r"\.\s+(?=[A-Z])")
_THOUGHT = re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)
_LETTER_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|left|right|[()\[\]])(?![a-z])|[${}()\[\]*\s]+")
_LETTER = re.compile(r"(?:the )?(?:(?:option|choice|letter) )?(?:([A-D])(?![\w'’-])(.*)|([a-d])\W*$)", re.DOTALL)
_ARTICLE = r"A\s+(?!(?:because|since|as|is|with|for|or|and)\b)[a-z]"  # "a" at the start of a sentence is no choice
_SECOND_LETTER = re.compile(rf"(?<![\w\\])(?!{_ARTICLE})[A-D](?![\w'’-])")
_REASON = re.compile(r"[.;:]\s+[A-Za-z][a-z]|\b(?:because|since)\b")  # may speak of the other letters
_SPACE = r"(?:\s|\\[,;:! ]|~)"
# math-verify reads numbers side by side as a mixed number and adds them.
_SIDE_BY_SIDE = re.compile(rf"(?<=\d)(?<![_^]\d){_SPACE}+(?=\d)(?!\d+\s*/\s*\d)")
_FACTORS = re.compile(r"(?<=[\d)\]])\s*(?=(?:\\left\s*)?[(\[]\s*-?\d+(?:\.\d+)?\s*(?:\\right\s*)?[)\]])")
_PLAIN_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_OPENED, _TIMES = r"\boxed{", r"\\cdot "
_FIRST_MATH = re.compile(r"\$([^$]+)\$")


def final_part(response: str) -> str:
    """The text in which the answer is looked for: behind the last ``</think>``, and of that the last `TAIL` characters.

    >>> final_part("<think>maybe 41</think>It is 42.")
    'It is 42.'
    """
    return response.rpartition("</think>")[2][-TAIL:]


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{}``; boxes joined by a comma, "and" or "or" are one answer.

    Returns:
        None without a box, the empty string if the last box is not closed. Of nested boxes, the innermost.

    >>> boxed(r"$\boxed{1}$ and $\boxed{2}$")
    '1, 2'
    >>> boxed(r"\boxed{x=\boxed{3}}"), boxed(r"\boxed{\frac{1}{2}"), boxed("42")
    ('3', '', None)
    """
    content = _outer_box(text)
    while content and (inner := _outer_box(content)) is not None:
        content = inner
    return content


def _outer_box(text: str) -> str | None:
    contents: list[str] = []
    end = 0
    for box in _BOX.finditer(text):
        if contents and box.start() < end:
            continue  # inside the box before
        closing = _closing_brace(text, box.end())
        if closing is None:
            return ""
        if contents and not _JOINED.fullmatch(text, end, box.start()):
            contents.clear()
        contents.append(text[box.end() : closing].strip())
        end = closing + 1
    return ", ".join(dict.fromkeys(contents)) if contents else None


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None


def stated(text: str, colon: bool = False) -> str | None:
    """What follows the last "answer is" or "Answer:", to the end of its line; None if there is none.

    Args:
        text: The final part of a response.
        colon: Only "Answer:" counts.

    >>> stated("The answer is 7. No, the answer is 8"), stated("**Answer:** $x = 8$"), stated("It is 8, is it not?")
    ('8', '$x = 8$', None)
    """
    ends = [mark.end() for mark in (_ANSWER_LINE if colon else _ANSWER_IS).finditer(text)]
    return text[ends[-1] :].partition("\n")[0].strip().strip("*").strip() if ends else None


def as_latex(statement: str) -> str:
    r"""A statement as text from which math-verify takes the answer.

    >>> as_latex("1/2."), as_latex("34 people"), as_latex("$5$, since"), as_latex("2 or 3")
    ('\\boxed{1/2}', '\\boxed{34}', 'answer: $5$, since', '\\boxed{2 or 3}')
    """
    box = boxed(statement)
    if box is not None:
        return in_box(box)
    statement = _NEXT_SENTENCE.split(statement, 1)[0]
    if _MATH.search(statement):
        return f"answer: {statement}"
    number = _NUMBER_IN_WORDS.match(statement)
    return in_box(number[1].rstrip(",") if number else statement)


def in_box(latex: str) -> str:
    r"""``latex`` as math-verify wants an answer: in a box, without the stop or dollars around it, thousands together.

    >>> print(in_box(r" $10\,000$. "))
    \boxed{10000}
    """
    bare = _LAST_STOP.sub("", latex.strip().strip("$ ,"))
    return f"\\boxed{{{_FACTORS.sub(_TIMES, _THOUSANDS.sub('', bare.strip('$ ')))}}}"


def shown(answer: str) -> str:
    r"""An answer of `as_latex` or `in_box` without what stands around it.

    >>> shown(r"\boxed{42}"), shown("answer: $42$, since 6*7=42")
    ('42', '42')
    """
    if answer.startswith(_OPENED):
        return answer[len(_OPENED) : -1]
    formula = _FIRST_MATH.search(answer)
    return formula[1].strip() if formula else answer.removeprefix("answer: ")


def several(answer: str) -> bool:
    r"""Whether an answer names several numbers as if they were one: side by side, or as equal to each other.

    >>> several("4 2"), several("1=2=3"), several("2 3/4"), several("x = 3"), several(r"1,\ 2")
    (True, True, False, False, False)
    """
    sides = {side.strip(" $") for side in answer.split("=")}
    return bool(_SIDE_BY_SIDE.search(answer)) or sum(bool(_PLAIN_NUMBER.fullmatch(side)) for side in sides) > 1


def letter(text: str | None) -> str | None:
    r"""The one letter of A to D that a boxed or stated answer names; None for none, or for more than one.

    >>> letter(r"\text{(C)}"), letter("B. As A is wrong"), letter("d"), letter("A, then B"), letter("A thing")
    ('C', 'B', 'D', None, None)
    """
    plain = _LETTER_DRESS.sub(" ", text or "").strip()
    found = _LETTER.match(plain)
    if found is None or re.match(_ARTICLE, plain):
        return None
    if found[1] and _SECOND_LETTER.search(_REASON.split(found[2], 1)[0]):
        return None
    return (found[1] or found[3]).upper()


def follows_format(response: str, think_in_prompt: bool = False) -> bool:
    """Whether a response is ``<think>``, a thought, ``</think>`` and an answer, each tag once and neither part blank.

    Args:
        response: The whole response.
        think_in_prompt: The chat template ends the prompt with ``<think>``, so the response begins with the thought.

    >>> follows_format("<think>6*7</think>42"), follows_format("<think></think>42"), follows_format("42")
    (True, False, False)
    """
    if think_in_prompt:
        response = "<think>" + response
    if response.count("<think>") != 1 or response.count("</think>") != 1:
        return False
    parts = _THOUGHT.fullmatch(response)
    return parts is not None and all(part.strip() for part in parts.groups())
