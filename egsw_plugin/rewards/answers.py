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
_SIZED = re.compile(r"\\(?:big|Big|bigg|Bigg)[lrm]?(?![A-Za-z])\s*")
_NO_SPACE = re.compile(r"(?<!\\)\\!")
_ANY_SPACE = re.compile(r"(?<!\\)\\(?:[,;:> ]|(?:q?quad|(?:thin|med|thick|en)space)(?![A-Za-z]))|(?<!\\)~")
_DISPLAY = re.compile(r"[\s*]*(?:\$\$|\\\[)[\s*]*(.*?)[\s*]*(?:\$\$|\\\])", re.DOTALL)
_CODE = re.compile(r"`+([^`\n]*)`+[!?]*")
_UNDERSCORES = re.compile(r"(?<![\w}\\])(__?)([^_\n]+)\1(?![\w{])[!?]*")
_EMPHASIS_ENDS = re.compile(r"(?<=[^\s*])\*{1,3}(?![\w(*{\\-])[!?]*")
_EMPHASIS_BEGINS = re.compile(r"(?<![\w)}*])\*{1,3}(?=[^\s*])")
_GOLD_MARK = re.compile(
    r".*####\s*(?=\S)|\s*(?:the |final )*answer\**\s*(?:is\b\s*:?|[:=])[\s*]*(?=\S)", re.DOTALL | re.IGNORECASE
)
_BRACKETS = re.compile(r"\s*(?:\\\[(.*)\\\]|\\\((.*)\\\)|\$\$(.*)\$\$)[\s.]*", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d)\\[,!;: ](?=\d{3}(?!\d))")  # math-verify reads 1\,000 as 1 times 000
_LAST_STOP = re.compile(r"(?<!\\right)\.$")
_NEXT_SENTENCE = re.compile(r"\.\s+(?=[A-Z])")
_THOUGHT = re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)
_LETTER_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|left|right|[()\[\]])(?![a-z])|[${}()\[\]*\s]+")
_KIND = r"(?:[Tt]he )?(?:(?i:correct )?(?i:option|choice|letter|answer) )?"
_LETTER = re.compile(rf"{_KIND}(?:([A-D])(?![\w'’-])(.*)|([a-d])\W*$)", re.DOTALL)
# "(C) ..." and "C) ...", where what follows is the choice's own text or a reason, and may begin with any word.
_MARKED_LETTER = re.compile(rf"[\s${{}}*]*{_KIND}[\s${{}}*]*[(\[]?([A-D])[\s${{}}*]*[)\]](.*)", re.DOTALL)
_TEXT_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|left|right)(?![a-z])|\\(?=[()\[\]])")
_JOINED_LETTER = re.compile(r"[\s${}*]*(?:(?:,|;|/|&|\+|\b(?:or|and|then|also))[\s${}*]*)+[(\[]?[A-Z](?![\w'’-])")
_NEXT_LETTER = re.compile(r"[\s${}*]*[(\[]?[A-Z][)\]]")
_ARTICLE = r"A\s+(?!(?:because|since|as|is|with|for|or|and)\b)[a-z]"  # "a" at the start of a sentence is no choice
_SECOND_LETTER = re.compile(rf"(?<![\w\\])(?!{_ARTICLE})[A-D](?![\w'’-])")
_REASON = re.compile(r"[.;:]\s+(?=[A-Za-z])|\b(?:because|since)\b")  # may speak of the other letters
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
    """What follows the last "answer is" or "Answer:", to the end of its line, or a formula displayed on lines of its
    own; without Markdown's emphasis. None if there is none.

    Args:
        text: The final part of a response.
        colon: Only "Answer:" counts.

    >>> stated("The answer is 7. No, the answer is 8"), stated("**Answer:** $x = 8$"), stated("It is 8, is it not?")
    ('8', '$x = 8$', None)
    """
    ends = [mark.end() for mark in (_ANSWER_LINE if colon else _ANSWER_IS).finditer(text)]
    if not ends:
        return None
    display = _DISPLAY.match(text, ends[-1])
    if display:
        return f"${' '.join(display[1].split())}$"
    return unmarked(text[ends[-1] :].partition("\n")[0].strip().strip("*").strip())


def unmarked(text: str) -> str:
    """Text without Markdown's emphasis and code marks; an exclamation mark behind them is no factorial.

    >>> unmarked("**204**!"), unmarked("`204`."), unmarked("204**."), unmarked("2**3 * 4"), unmarked("_204_")
    ('204', '204.', '204.', '2**3 * 4', '204')
    """
    text = _UNDERSCORES.sub(r"\2", _CODE.sub(r"\1", text))
    return _EMPHASIS_BEGINS.sub("", _EMPHASIS_ENDS.sub("", text))


def gold(text: str) -> str:
    r"""A data set's right answer without what marks it as the answer.

    >>> gold("6*3=18\n#### 18"), gold("Answer: **18**"), gold(r"\[18\]"), gold("north")
    ('18', '18', '18', 'north')
    """
    text = unmarked(_GOLD_MARK.sub("", text.strip(), count=1).strip())
    inner = _BRACKETS.fullmatch(text)
    return next(part for part in inner.groups() if part is not None).strip() if inner else text


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
        return f"answer: {spaced(statement)}"
    number = _NUMBER_IN_WORDS.match(statement)
    return in_box(number[1].rstrip(",") if number else statement)


def in_box(latex: str) -> str:
    r"""``latex`` as math-verify wants an answer: in a box, without the stop or dollars around it, thousands together.

    >>> print(in_box(r" $10\,000$. "))
    \boxed{10000}
    """
    bare = _LAST_STOP.sub("", spaced(latex).strip().strip("$ ,"))
    return f"\\boxed{{{_FACTORS.sub(_TIMES, bare.strip('$ '))}}}"


def spaced(latex: str) -> str:
    r"""``latex`` with its space commands as spaces, thousands together, and delimiters of one size.

    >>> print(spaced(r"\bigl(1\,000,~\tfrac{\pi}{2}\bigr)\,"))
    (1000, \tfrac{\pi}{2})
    """
    joined = _NO_SPACE.sub("", _THOUSANDS.sub("", latex))
    return _SIZED.sub("", _ANY_SPACE.sub(" ", joined)).strip()


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
    >>> letter("C) A = quinone, B = lactate"), letter("(A) triphenylene"), letter("Option B"), letter("D or E")
    ('C', 'A', 'B', None)
    """
    marked = _MARKED_LETTER.match(_TEXT_DRESS.sub("", text or "").strip())
    if marked:
        rest = marked[2]
        return None if _JOINED_LETTER.match(rest) or _NEXT_LETTER.match(rest) else marked[1]
    plain = _LETTER_DRESS.sub(" ", text or "").strip()
    found = _LETTER.match(plain)
    if found is None or re.match(_ARTICLE, plain):
        return None
    if found[1] and (_SECOND_LETTER.search(_REASON.split(found[2], 1)[0]) or _JOINED_LETTER.match(found[2])):
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
