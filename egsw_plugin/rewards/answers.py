"""Where in a response the final answer is. Text alone: every function takes any string, in time linear in its length.

>>> boxed(r"We try \\boxed{1}. No: \\boxed{\\frac{1}{2}}")
'\\\\frac{1}{2}'
>>> stated("So 6 times 7.\\nAnswer: 42")
'42'
"""

import math
import re
from functools import lru_cache

from .dress import undressed
from .forms import usual
from .quantities import CHANGING, LONG_UNITS, MAGNITUDES, is_compound, plain

TAIL = 4096  # characters: a final answer has a few hundred at most, and the time of all searches is bounded by this

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is no brace
_EDGES = r"(?:[\s$]|\\[()\[\]])*"
_JOINED = re.compile(
    rf"{_EDGES}(?:,|;|,?\s*(?:\\text\{{\s*)?(?:and|or)\s*\}}?){_EDGES}(?:[A-Za-z](?:_\{{?\w\}}?)?\s*=\s*)?"
)
_JOINT = 60  # characters between two boxes of one answer, at most
_MINUS = re.compile(r"(?:^|[$=(,])\s*-\s*$")  # before a box, to which it belongs
_RUN = re.compile(r"[^\S\n]{9,}|([~$:;,*_])\1{8,}|\n{9,}")  # which says nothing, and costs time
_RUNS = tuple(9 * sign for sign in " \t~$:;,*_\n")  # found faster than by the expression
_FILLER = (
    r"(?:(?:therefore|thus|hence|then|simply|just|exactly|indeed|clearly|equal to|"
    r"given by|approximately|about|roughly|around|precisely|only)\b,?\s*)*"
)
_ANSWER_LINE = re.compile(r"answers?[*_]*\s*[:：](?:[\s*]|_+(?=\s))*", re.IGNORECASE)
_ANSWER_IS = re.compile(rf"answers?[*_]*\s*(?:is\b\s*[:：]?|[:：=])(?:[\s*]|_+(?=\s))*{_FILLER}[\s*]*", re.IGNORECASE)
LIST_MARK = re.compile(r"[>•+-]\s+")
_ORNAMENT = re.compile(r"[\U0001F000-\U0001FAFF\u2600-\u27BF\uFE0F\s]")
_TAG = re.compile(
    r"</?(?:b|i|u|s|em|strong|span|p|br|mark|center|answer)\b[^<>]*>|<\|\w{1,40}\|>|~~[^~\n]*~~\s*|\\boxed\s*\{\s*\}"
)
_QUOTED = re.compile("[\"“‘'«<]([^\"“”‘’'«»<>]+)[\"”’'»>](.*)", re.DOTALL)
_MATH = re.compile(r"(?<!\\)\$[^$]+\$")
_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")
# A word that changes nothing of the number before it: a unit, a reason. Two or three small letters may be variables.
_IDLE = (
    rf"(?!(?:{CHANGING})\b)(?:[a-z]{{4}}|(?=[a-z]*[aeiou])[a-z]{{3}}|[a-z]{{2}}y\b|(?-i:[A-Z])[a-z]|(?:{LONG_UNITS}|"
    r"sq|cu|qts?|pts?|pcs|tsp|yrs?|gm|hp|ha|dl|cl|hl|"
    r"am|pm|an|as|at|be|by|go|he|is|it|me|my|no|of|on|so|up|us|we)\b)"
)
# 5(five), where 5(ab) is a product
_SAID_AGAIN = rf"(?!(?:{CHANGING})\b)(?:one|two|six|ten|[a-z]{{4,}})(?:[ -][a-z]+)*\)"
NUMBER_IN_WORDS = re.compile(
    r"((?:-?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?|-?\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\})"
    rf"(?:\s+(?:{MAGNITUDES})\b)?)(?:[,;.]\s+(?!(?:{CHANGING})\b)[a-z]{{2}}|\s+\(?{_IDLE}|\({_SAID_AGAIN})",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"(?<!\\)\\!\s*")
_LONE_BACKSLASH = re.compile(r"(?<!\\)\\$")  # of a space command at the end, whose space was stripped
_ANY_SPACE = re.compile(r"(?<!\\)\\(?:[,;:> ]|(?:q?quad|(?:thin|med|thick|en)space)(?![A-Za-z]))|(?<!\\)~")
_DISPLAY = re.compile(
    r"[\s*>]*(?:(?:\$\$|\$(?=\s*\n)|\\\[)[\s*]*(.*?)[\s*]*(?:\$\$?|\\\])|"
    r"(\\begin\{(align|equation|gather|displaymath)(\*?)\}.*?\\end\{\3\4\})|```\w*\n(.*?)\n?```)",
    re.DOTALL,
)
_GOES_ON = re.compile(r"[ \t]*(?:,|;|\bor\b|\band\b)[ \t]*[$\\\d]")
_CODE = re.compile(r"`+([^`\n]*)`+[!?]*")
_UNDERSCORES = re.compile(r"(?<![\w}\\])(__?)([^_\n]+)\1(?![\w{])[!?]*")
_EMPHASIS_ENDS = re.compile(r"(?<=[^\s*])\*{1,3}(?![\w(*{\\-])[!?]*")
_EMPHASIS_BEGINS = re.compile(r"(?<![\w)}*])\*{1,3}(?=[^\s*])")
_GOLD_MARK = re.compile(
    r".*####\s*(?=\S)|\s*#{1,3}\s+(?=\S)|\s*<answer>\s*|\s*A:\s*(?=[-$\d\\])|"
    r"\s*#*\s*[*_]*(?:so |the |final |correct )*(?:answer|ans\.?|solution|result)[*_]*\s*"
    r"(?:is\b\s*:?|[:=]|(?<=ans\.)(?=\s)|\n)[\s*]*(?=\S)",
    re.DOTALL | re.IGNORECASE,
)
# 18 (eighteen), where 2(x-y) and 2(abc) are products
_NUMERAL = (
    r"(?i:zero|one|two|three|five|eleven|twelve|(?:four|six|seven|eight|nine)(?:teen|ty)?|eighteen|eighty|ten|"
    rf"(?:thir|fif)(?:teen|ty)|twenty|forty|point|and|{MAGNITUDES})"
)
_NUMBER_AGAIN = re.compile(
    r"((?:[A-Za-z]\s*=\s*)?-?(?:\\?\$)?\d[\d,./]*)"
    rf"(?:\s+\([A-Za-z]{{3,}}(?:[ -][A-Za-z]+)*\)|\({_NUMERAL}(?:[ -]+{_NUMERAL})*\))"
)
_BRACKETS = re.compile(r"\s*(?:\\\[(.*)\\\]|\\\((.*)\\\)|\$\$(.*)\$\$)[\s.]*", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,!;: ]|~|\{,\})(?=\d{3}(?!\d))")  # math-verify reads 1\,000 as 1 times 000
_GROUPS = re.compile(
    r"(?<![\w.,}])(?<![\w.,}]\s)\d{1,3}(?: \d{3})+(?![\w,]|\.\d{3}|\s+[\d(\\])"
)  # and 1 000 as their sum
_LAST_DOLLAR = re.compile(r"\\\$[\s.,$]*$")
_LAST_STOP = re.compile(r"(?<!\\right)\.$")
NEXT_SENTENCE = re.compile(r"[.!]\s+(?=[A-Z])")
_THOUGHT = re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)
_COMMAS = re.compile(r"^((?:[A-Za-z]\s*=\s*)?\{?\s*[-+]?)([1-9]\d{0,2}(?:,\d{3})+)(?=(?:\.\d+)?\s*\}?$)")
_EDGE = re.compile(r"^(?:=|\\(?:approx|sim|simeq|cong|implies|therefore|Rightarrow)(?![A-Za-z]))\s*")
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_WRAPPED = re.compile(
    r"\s*(?:(\*{1,3}|`+|_{1,2}|\")(.+)\1|\\\[(.+)\\\]|\\\((.+)\\\)|'([^']+)'|“(.+)”|‘(.+)’)[\s.]*", re.DOTALL
)
# math-verify reads 2(\frac12) as a mixed number or a function.
_BEFORE_BRACKET = re.compile(
    r"((?:^|(?<=[\s=+\-*/({$]))\d+(?:\.\d+)?)\s*(?=(?:\\left\s*)?\([^(),;:]*\))(?!\s*\((?:mod|base))"
)
_LETTER_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|left|right|[()\[\]])(?![a-z])|[${}()\[\]*\s]+")
_SAYING = (
    r"(?:(?i:(?:i (?:(?:would |will )?(?:say|choose|pick|select|go with)|(?:think|believe|guess)(?: that)?)|"
    r"i['’](?:d|ll) (?:say|choose|pick|go with))|it(?: is|['’]s| must be| should be)|must be|should be|"
    r"definitely|probably|most likely|"
    r"(?:so )?(?:the )?(?:(?:correct|right|best|final) )*(?:option|choice|letter|answer)(?: is\b:?|:))[\s$*]+)*"
)
_KIND = rf"{_SAYING}(?:[Tt]he )?(?:(?i:correct )?(?i:option|choice|letter|answer) )?"
_LETTER = re.compile(rf"{_KIND}(?:([A-D])(?![\w'’-])(.*)|([a-d])(?:\W*$|[.)]\s+\S))", re.DOTALL)
# "(C) ..." and "C) ...", where what follows is the choice's own text or a reason, and may begin with any word.
_MARKED_LETTER = re.compile(rf"[\s${{}}*]*{_KIND}[\s${{}}*]*[(\[]?([A-D])[\s${{}}*]*[)\]](.*)", re.DOTALL)
_TEXT_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|left|right)(?![a-z])|\\(?=[()\[\]])")
_DISMISSED = r"(?!\s+(?:is|are|was|has|had|can|cannot|would|does|do|did|fails?|gives?|looks?|seems?)\b)"
_JOINED_LETTER = re.compile(
    r"(?!\s*,\s*I\s+[a-z])"
    r"[\s${}*(]*(?:(?:,|;|/|\||&|\+|\b(?:or|and|then|also|vs\.?|versus|maybe|possibly|perhaps|nor|plus))[\s${}*]*)+"
    rf"[(\[]?[A-Z](?![\w'’-]){_DISMISSED}"
)
_NOT_LETTER = re.compile(
    r"\b(?:not|rather than|instead of|over|unlike|than)\s+(?:option\s+|choice\s+)?\(?[A-Z]\b\)?"
    r"(?:(?:\s*,\s*(?:n?or\s+|and\s+)?|\s+(?:n?or|and)\s+)\(?[A-Z]\b\)?)*(?:,?\s+but\b(?=\s+\(?[A-D]\b))?"
)
_NEXT_LETTER = re.compile(r"[\s${}*]*[(\[]?[A-Z][)\]]")
_ARTICLE = r"A\s+(?!(?:because|since|as|is|with|for|or|and)\b)[a-z]"  # "a" at the start of a sentence is no choice
_LETTER_RUN = re.compile(r"[\s${}*]{9,}")
_HEDGE = re.compile(  # which takes the letter back, where a sentence that only speaks of another does not
    r"(?i:or|also|alternatively|maybe|perhaps|possibly|could be)\b[\s,:]*"
    r"(?:(?i:maybe|it|is|could|be|the|option|choice|answer|possibly|perhaps)\s+)*[(\[]?[A-D][)\]]?\s*(?:[.,;!?]|$)"
)
_SECOND_LETTER = re.compile(rf"(?<![\w\\])(?<!\d )(?!{_ARTICLE})[A-D](?![\w'’-])")
_REASON = re.compile(  # may speak of the other letters
    r"[.;:]\s+(?=[A-Za-z])|"
    r"[(\s—–](?=[A-D](?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+)[A-D])*\s+(?:is|are|was|were)\s+"
    r"(?:wrong|incorrect|false|not|too|impossible|excluded|ruled)\b)|"
    r"\b(?:because|since|whereas|while|(?<!well )as(?! well)|but(?! also))\b"
)
_SPACE = r"(?:\s|\\[,;:! ]|~)"
# math-verify reads numbers side by side as a mixed number and adds them.
_SIDE_BY_SIDE = re.compile(rf"(?<=\d)(?<![_^]\d){_SPACE}+(?=\d)(?!\d+\s*/\s*\d)")
_FACTORS = re.compile(r"(?<=[\d)\]])(?<!_\d)\s*(?=(?:\\left\s*)?[(\[]\s*-?\d+(?:\.\d+)?\s*(?:\\right\s*)?[)\]])")
_PLAIN_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_WRAPS = frozenset("*`_\"\\'“‘")
_OPENED, _TIMES, _DOT = r"\boxed{", r"\\cdot ", r"\\cdot "
_FORMULA_OF = re.compile(rf"\s*\$([^$]+)\$\s*((?:{MAGNITUDES})\b)")
_ALSO = re.compile(r"(?<=[\d}$%])\s*\(\s*(?:(?:or|i\.e\.,?|=)\s*([^()]*)|([-+]?\d+(?:\.\d+)?)\s*\\?%\s*)\)")
_ROUNDED = re.compile(
    r"(?<=\S)(?:\\?\s)*(?:"
    r"\(\s*(?:\\approx|≈|~|(?:\\text\s*\{\s*)?(?:or )?(?:approximately|approx\.?|about|roughly))[^()]*\)"
    r"|\\text\s*\{\s*\(?,?\s*(?:or )?(?:approximately|approx\.?|about|roughly)[^{}]*\}.*$)"
)
_LONE_LETTER = re.compile(r"^([^,]*\s)([a-z])$", re.DOTALL)
_VARIABLE = re.compile(r"[A-Za-z]")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_NEGATIVE = re.compile(r"^\s*(?:minus|negative)\s+(?=[\d$\\])", re.IGNORECASE)
_FORMULA = r"\$((?:[^$\\]|\\.)+)\$"
_FORMULA_ALONE = re.compile(rf"{_FORMULA}[\s.]*", re.DOTALL)
_NEXT_FORMULA = re.compile(rf"\s*(?:,\s*(?:and|or)?|and|or)\s*{_FORMULA}", re.DOTALL)
_ONE_FORMULA = re.compile(rf"(?:[^$\\]|\\.)*?{_FORMULA}", re.DOTALL)
# What stands beside a formula: the rest of the number, or a word that makes another of it.
_SIGN = r"(?:[-+*/^<>]|\\(?:times|cdot|div|pm|le|ge|ne|cup|cap)(?![A-Za-z]))"
_JOINED_BEFORE = re.compile(rf"(?:-|\d|[\w)}}]\s*{_SIGN}|\\sqrt)\s*$|^\s*\d[\d,. ]*$")
_JOINED_AFTER = re.compile(
    rf"\^|\s*(?:,|,?\s*(?:or|and|to)\b)?\s*-?\d|\s*{_SIGN}\s*\(?[\d$\\]|\s*[-+*^<>]\s*[b-zB-HJ-Z]\b|"
    r"(?:\s+:\s*|:)[\d$]|\([-\d$]"
)
_DOLLAR = re.compile(r"(?<!\\)\$")
# $f(3)$ = 10 and $V$: 5, whose value follows; not $2\pi$ = 6.28, and not the ratio $a$ : $b$
_VALUE = re.compile(rf"\s*(?:=|:\s(?=\s*\$?[-\d\\]))\s*(?:{_FORMULA}\s*=\s*(?=[-+(\d$\\]))*(?=[-+(\d$\\])")
_NEXT_VALUE = re.compile(rf"(?:,|;|\band\b|\bor\b)\s*{_FORMULA}\s*=\s*[-\d$\\]")
_NUMBER = re.compile(r"\d|\\pi(?![A-Za-z])")
_PERCENT = re.compile(r"\s*(?:\\?%|per ?cent\b)")
# $10$, and $n$ must be odd. $7$ - $x$ must be odd. Not: $3$, and $4$ are the solutions. $7$ - $x$ is the rest.
_NAME = r"\$\s*(?![ie]\b|\\pi)(?:[A-Za-z]|\\[a-z]+)(?:_\w|_\{\w+\})?\s*\$"
_MODAL = "has|have|must|can|cannot|should|will|may"
_CLAUSE = re.compile(
    rf"\s*,\s*(?:and|or)\s*(?:{_NAME}\s+(?:is|was|divides|denotes|stands|means|{_MODAL})\b|"
    rf"{_FORMULA}\s+(?:(?:is|are)\s+(?:not|rejected|extraneous|invalid|impossible)|gives|yields)\b)|"
    rf"\s*,\s*or\s*(?:{_FORMULA}\s+(?:rad(?:ian)?s?|degrees?|per ?cent)\b|\$[^$]*\\%\s*\$)|"
    rf"\s+-+\s+{_NAME}\s+(?:{_MODAL})\b"
)
_OR_DECIMAL = re.compile(r"\s*,\s*or\s*\$\s*(-?\d+\.(\d+))\s*\$[\s.]*$")
_TRANSCENDENT = re.compile(r"\\(?:pi|sqrt|ln|log|sin|cos|tan)(?![a-z])")
_QUOTIENT = re.compile(r"\\[dt]?frac\s*\{((?:[^{}]|\{\d+\})*)\}\s*\{\s*(\d+)\s*\}")
_IRRATIONAL = re.compile(r"(-?)\s*(\d*)\s*(?:\\pi|\\sqrt\s*\{?\s*(\d+)\s*\}?)\s*(?:/\s*([1-9]\d*))?")
_CHANGED_BEFORE = re.compile(
    r"\b(?:not|at least|at most|between|either|neither|twice|half|double|times|(?:less|more|fewer|greater) than|"
    r"(?:square|cube) root|square|cube)\s+(?:of\s+)?(?:the\s+)?$",
    re.IGNORECASE,
)
_CHANGED_AFTER = re.compile(
    r"\s*(?:(?:squared|cubed|or more|or less|or fewer)\b|(?:plus|minus|times|to)\s+[-\d$])", re.IGNORECASE
)
_FIRST_MATH = re.compile(r"\$([^$]+)\$")


def final_part(response: str) -> str:
    """The text in which the answer is looked for: behind the last ``</think>``, and of that the last `TAIL` characters.

    A thought that never ends holds no answer.

    >>> final_part("<think>maybe 41</think>It is 42."), final_part("It is 42. <think>Or 41")
    ('It is 42.', 'It is 42. ')
    """
    text = response.rpartition("</think>")[2].partition("<think>")[0][-TAIL:]
    return _RUN.sub(_shorter, text) if any(run in text for run in _RUNS) else text


def _shorter(run: re.Match) -> str:
    return run[0][:2]


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{}``; boxes joined by a comma, "and" or "or" are one answer.

    Returns:
        None without a box that holds something, the empty string if the last box is not closed. Of nested boxes, the
        innermost.

    >>> boxed(r"$\boxed{1}$ and $\boxed{2}$"), boxed(r"\boxed{1}. (As asked, in \boxed{}.)")
    ('1, 2', '1')
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
        if not text[box.end() : closing].strip():
            continue  # a mention of a box, which holds nothing
        if contents and (box.start() - end > _JOINT or not _JOINED.fullmatch(text, end, box.start())):
            contents.clear()
        before = text[max(0, box.start() - 9) : box.start()]
        sign = "-" if "-" in before and _MINUS.search(before) else ""
        contents.append(sign + text[box.end() : closing].strip())
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
    marks = list((_ANSWER_LINE if colon else _ANSWER_IS).finditer(text))
    if not marks:
        return None
    ends = [mark.end() for mark in marks]
    display = _DISPLAY.match(text, ends[-1])
    if display and not _GOES_ON.match(text, display.end()):
        formula = next(part for part in (display[1], display[2], display[5]) if part is not None)
        formula = " ".join(undressed(formula).split()).rstrip(".,;")
        return formula if display[5] is not None or boxed(formula) is not None else f"${formula}$"
    start = ends[-1]
    if text.rfind("\n", 0, start) >= marks[-1].start() and (mark := LIST_MARK.match(text, start)):
        start = mark.end()  # an item of a list, or a quotation
    said = unmarked(text[start:].partition("\n")[0].strip().strip("*").strip())
    if not said and len(marks) > 1 and not text[start:].strip():  # a mark at the very end, with nothing behind it
        return stated(text[: marks[-1].start()], colon)
    return said


def unmarked(text: str) -> str:
    """Text without Markdown's emphasis and code marks; an exclamation mark behind them is no factorial.

    >>> unmarked("**204**!"), unmarked("`204`."), unmarked("204**."), unmarked("2**3 * 4"), unmarked("_204_")
    ('204', '204.', '204.', '2**3 * 4', '204')
    """
    text = _UNDERSCORES.sub(r"\2", _CODE.sub(r"\1", _without_ornament(_TAG.sub("", text))))
    return _EMPHASIS_BEGINS.sub("", _EMPHASIS_ENDS.sub("", text))


def _without_ornament(text: str) -> str:
    end = len(text)
    while end and _ORNAMENT.match(text, end - 1):
        end -= 1
    return text[:end]


@lru_cache(maxsize=256)  # a group of responses shares its truth
def gold(text: str) -> str:
    r"""A data set's right answer without what marks it as the answer.

    >>> gold("6*3=18\n#### 18"), gold("Answer: **18**"), gold(r"\[18\]"), gold("north")
    ('18', '18', '18', 'north')
    """
    text = unmarked(_GOLD_MARK.sub("", text.strip(), count=1).strip())
    if again := _NUMBER_AGAIN.fullmatch(text):
        text = again[1]
    inner = _BRACKETS.fullmatch(text)
    return next(part for part in inner.groups() if part is not None).strip() if inner else text


def as_latex(statement: str, named: bool = False) -> str:
    r"""A statement as text from which math-verify takes the answer; ``named``: what follows a name and a sign.

    >>> as_latex("1/2."), as_latex("34 people"), as_latex("$5$, since"), as_latex("2 or 3")
    ('\\boxed{1/2}', '\\boxed{34}', '\\boxed{5}', '\\boxed{2 or 3}')
    """
    box = boxed(statement)
    if box is not None:
        return in_box(box)
    quoted = _QUOTED.match(statement)
    statement = _DELIMITER.sub("$", quoted[1] + quoted[2] if quoted else statement)
    if statement[:1] == "$" and (alone := _FORMULA_ALONE.fullmatch(statement)):
        return in_box(alone[1])
    statement = NEXT_SENTENCE.split(_THOUSANDS.sub("", undressed(statement)), 1)[0]
    if "(" in statement:
        statement = _ROUNDED.sub("", _ALSO.sub(_also, statement))
    if statement[:1] in "mMnN":
        statement = _NEGATIVE.sub("-", statement)
    if " " in statement and is_compound(statement):
        return in_box(statement)
    if formula := _ONE_FORMULA.match(statement):
        before, formulas, end = statement[: formula.start(1) - 1], [formula[1]], formula.end()
        decimal = _OR_DECIMAL.match(statement, end)
        rounded = decimal is not None and _is_rounded(formula[1], *decimal.groups())
        apart = rounded or bool(_CLAUSE.match(statement, end))
        while not apart and (following := _NEXT_FORMULA.match(statement, end)):
            formulas.append(following[1])
            end = following.end()
        after = "" if apart else statement[end:]
        if _CHANGED_BEFORE.search(before) or _CHANGED_AFTER.match(after):
            return rf"\boxed{{\text{{{statement}}}}}"
        joined = formula[1][:1] == "^" or _JOINED_BEFORE.search(before)
        if not (joined or named) and after.lstrip()[:1] in ("=", ":") and _is_name(formula[1]):
            if equals := _VALUE.match(after):
                return _valued(formula[1], after[equals.end() :], statement[len(before) :])
            if after.lstrip()[:1] == "=":
                return f"answer: {spaced(statement)}"
        if joined or _JOINED_AFTER.match(after):
            return in_box(" ".join(_DOLLAR.sub("", statement).split()))
        if magnitude := _FORMULA_OF.match(statement):
            return in_box(f"{magnitude[1]} {magnitude[2]}")
        if not _MATH.search(after) and (len(formulas) == 1 or "," in statement[formula.end() : end]):
            return in_box(", ".join(formulas) + (r"\%" if _PERCENT.match(after) else ""))
    if _MATH.search(statement):
        return f"answer: {spaced(statement)}"
    number = NUMBER_IN_WORDS.match(statement)
    return in_box(number[1].rstrip(",") if number else statement)


def _is_rounded(formula: str, decimal: str, places: str) -> bool:
    r"""Whether a decimal may round a formula; of a multiple of pi, or of a root, it must equal it to its last place.

    >>> _is_rounded(r"2\pi", "6.28", "28"), _is_rounded(r"x = -\frac{\sqrt{2}}{2}", "-0.71", "71")
    (True, True)
    >>> _is_rounded(r"2\pi", "6.27", "27"), _is_rounded("6", "6.0", "0"), _is_rounded(r"\ln 2", "0.69", "69")
    (False, False, True)
    """
    formula = formula.rpartition("=")[2].partition(r"\text")[0]
    found = _IRRATIONAL.fullmatch(_QUOTIENT.sub(r"\1/\2", formula).strip())
    if found is None:
        return bool(_TRANSCENDENT.search(formula))
    sign, factor, root, divisor = found.groups()
    value = float(factor or 1) * (math.pi if root is None else math.sqrt(float(root))) / float(divisor or 1)
    return abs((-value if sign else value) - float(decimal)) < 10.0 ** -len(places)


def _valued(name: str, value: str, equation: str) -> str:
    """The answer of a named formula and what stands behind its sign; both with the sign are the equation."""
    if _NEXT_VALUE.search(value) or (value[:1] != "$" and _MATH.search(value)):
        number = None if _NEXT_VALUE.search(value) else NUMBER_IN_WORDS.match(value)
        return in_box(f"{name} = {number[1]}" if number else " ".join(_DOLLAR.sub("", equation).split()))
    answer = as_latex(value, named=True)
    return in_box(f"{name} = {shown(answer)}") if answer.startswith(_OPENED) else answer


def _is_name(formula: str) -> bool:
    """Whether a formula says what has a value, and is none itself."""
    if any(sign in formula for sign in "=<>"):
        return False
    return bool(_VARIABLE.search(_COMMAND.sub("", plain(formula)))) or not _NUMBER.search(formula)


@lru_cache(maxsize=1024)
def in_box(latex: str) -> str:
    r"""``latex`` as math-verify wants an answer: in a box, without the stop or dollars around it, thousands together.

    >>> print(in_box(r" $10\,000$. "))
    \boxed{10000}
    """
    latex = latex.strip()
    if _PLAIN.fullmatch(latex):
        return f"\\boxed{{{latex}}}"
    if latex[:1] in _WRAPS and (inside := _WRAPPED.fullmatch(latex)):
        latex = next(part for part in inside.groups()[1:] if part)
    if "appro" in latex or "abou" in latex:
        latex = _ROUNDED.sub("", latex)
    latex = _LAST_DOLLAR.sub("", spaced(latex)).strip("$ ,")
    bare = _EDGE.sub("", _LAST_STOP.sub("", _without_line_end(latex)), count=1)
    if _PLAIN.fullmatch(bare):
        return f"\\boxed{{{bare}}}"
    bare = _COMMAS.sub(lambda number: number[1] + number[2].replace(",", ""), bare)
    bare = bare.strip("$ ")
    while bare[:1] == "{" and _closing_brace(bare, 1) == len(bare) - 1:
        bare = bare[1:-1].strip()
    bare = usual(plain(bare))
    if bare[-2:-1].isspace():
        bare = _LONE_LETTER.sub(_as_variable, bare)
    bare = _BEFORE_BRACKET.sub(r"\1" + _DOT, bare)
    return f"\\boxed{{{_FACTORS.sub(_TIMES, bare)}}}"


def _without_line_end(text: str) -> str:
    while True:
        shorter = text.rstrip().rstrip("$,;:?")
        shorter = shorter[:-2] if shorter.endswith("\\\\") else shorter
        if len(shorter) == len(text):
            return text
        text = shorter


def _as_variable(last: re.Match) -> str:
    """A last letter in braces, where it is a variable: math-verify takes it for a unit, and drops the c of a + c."""
    before = last[1].rpartition("=")[2]
    variable = before.rstrip().endswith(("+", "-")) or _VARIABLE.search(_COMMAND.sub("", before))
    return f"{last[1]}{{{last[2]}}}" if variable else last[0]


def spaced(latex: str) -> str:
    r"""``latex`` with its space commands as spaces, thousands together, and delimiters of one size.

    >>> print(spaced(r"\bigl(1\,000,~\tfrac{\pi}{2}\bigr)\,"))
    (1000, \tfrac{\pi}{2})
    """
    joined = _THOUSANDS.sub("", _NO_SPACE.sub("", undressed(latex)))
    return _GROUPS.sub(_together, _LONE_BACKSLASH.sub("", _ANY_SPACE.sub(" ", joined))).strip()


def _together(number: re.Match) -> str:
    return number[0].replace(" ", "")


def _also(other: re.Match) -> str:
    return f", {other[1]}" if other[1] else rf", \frac{{{other[2]}}}{{100}}"


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


def listed(answer: str) -> str:
    r"""Numbers side by side as a list.

    >>> print(listed(r"\boxed{5 4.6}"))
    \boxed{5, 4.6}
    """
    return _SIDE_BY_SIDE.sub(", ", answer)


def letter(text: str | None) -> str | None:
    r"""The one letter of A to D that a boxed or stated answer names; None for none, or for more than one.

    >>> letter(r"\text{(C)}"), letter("B. As A is wrong"), letter("d"), letter("A, then B"), letter("A thing")
    ('C', 'B', 'D', None, None)
    >>> letter("C) A = quinone, B = lactate"), letter("(A) triphenylene"), letter("Option B"), letter("D or E")
    ('C', 'A', 'B', None)
    """
    text = _NOT_LETTER.sub("", spaced(_LETTER_RUN.sub(" ", text or ""))).strip().strip("\"'“”‘’<>`").strip()
    marked = _MARKED_LETTER.match(_TEXT_DRESS.sub("", text).strip())
    if marked:
        rest = marked[2]
        return None if _JOINED_LETTER.match(rest) or _NEXT_LETTER.match(rest) else marked[1]
    plain = _LETTER_DRESS.sub(" ", text).strip()
    found = _LETTER.match(plain)
    if found is None or (re.match(_ARTICLE, plain) and not re.match(r"[\s*]*A[\s*]*\(", text)):
        return None
    if found[1]:
        own, *reason = _REASON.split(found[2], 1)
        if _SECOND_LETTER.search(own) or _JOINED_LETTER.match(found[2]) or (reason and _HEDGE.match(reason[0])):
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
