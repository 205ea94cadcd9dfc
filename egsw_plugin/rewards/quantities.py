r"""Numbers as people write them: thousands apart, with a unit, in millions, as hours and minutes, as a time of day.

Text alone, in time linear in its length. What math-verify would misread, or leave out, is written as a plain number.

>>> print(plain("1’000’000"), plain("1,000 and 2,000"), plain("34 people"), plain(r"5\text{ million}"))
1000000 1000 and 2000 34 5\times 10^{6}
>>> print(plain(r"2\text{ hours and }30\text{ minutes}"), plain("9.8 m/s^2"))
2+\frac{30}{60} 9.8
"""

import re

from .forms import as_union

_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_POWER = "|".join(_POWERS)
MAGNITUDES = f"{_POWER}|dozen"
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_NUMERAL = (  # a number, a fraction, a mixed number, or one of those times a root, pi or a power of ten
    rf"(?:{_NUMBER}(?:/\d+)?(?:\s*\\[dt]?frac\s*\{{[^{{}}]*\}}\s*\{{[^{{}}]*\}})?|[-+]?\\[dt]?frac\s*\{{[^{{}}]*\}}\s*\{{[^{{}}]*\}})"
    r"(?:\s*\\(?:times\s*10\^(?:\{[-+]?\d+\}|\d)|cdot 12))?(?:\s*\\pi(?![A-Za-z]))?"
)

# --- thousands

_MARKED = re.compile(r"(?<![\w.,])\d{1,3}(?:(?:['’_]|\\_)\d{3})+(?!\d)")
_DOTTED = re.compile(r"(?<![\w.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.]|,\d)")
_CONTINENTAL = re.compile(r"((?:\\?\$\s*)?[-+]?)([1-9]\d{0,2}(?:\.\d{3})+|[1-9]\d{0,2}(?: \d{3})+(?=,\d\d?$)),(\d+)")
_INDIAN = re.compile(r"((?:\\?\$\s*)?[-+]?)([1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?)")
_TIGHT = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})+(?!\w|,\S)")
_ZEROS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})*,000(?:,\d{3})*(?!,?\d)")
_DECIMAL_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d)")
_LOOSE = re.compile(r"\d,\s|;|\band\b|\bor\b")
_OPENED = re.compile(r"[(\[]|\\\{")

# --- units

LONG_UNITS = (
    "mm|cm|dm|km|nm|µm|mi|ft|yd|in|kg|mg|lb|lbs|oz|sec|secs|min|mins|hr|hrs|ms|kJ|MJ|kW|MW|kPa|MPa|Pa|Hz|kHz|MHz|GHz|"
    "mL|ml|mol|rad|deg|mph|kph|kmh|eV|keV|MeV|GeV|kN|kV|mA|mV|USD|EUR|GBP|INR|CAD|AUD|CNY|RMB|atm|bar|cal|kcal|"
    "kWh|rpm|bpm|fps|dB|ppm|lbf|wks"
)
_SHORT_UNITS = "m|g|s|h|N|J|W|V|A|K|C|F|L|l|M|Ω|T"
_RAISED = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_ANY_UNIT = rf"(?:{LONG_UNITS}|{_SHORT_UNITS})(?![A-Za-z]){_RAISED}"
_PER = r"\s*(?:/|\\cdot(?![A-Za-z])|\*|(?<=\s)per(?=\s))\s*"
_LONG_UNIT = re.compile(
    rf"({_NUMERAL})\s*(?:(?:{LONG_UNITS})(?![A-Za-z]){_RAISED}(?:{_PER}{_ANY_UNIT})*|{_ANY_UNIT}(?:{_PER}{_ANY_UNIT})+)"
)
_SHORT_UNIT = re.compile(rf"\\boxed\{{\s*({_NUMERAL})\s*(?:(?:{_SHORT_UNITS})(?![A-Za-z]){_RAISED}|\\Omega)\s*\}}")
# Words that make another number of it.
CHANGING = (
    rf"and|or|to|if|when|for|{_POWER}|dozen|pi|sqrt|root|times|over|plus|minus|mod|modulo|percent|factorial|squared|"
    r"cubed|choose|log|ln|exp|sin|cos|tan|cot|csc|halves|thirds|fourths|fifths|tenths|hundredths|thousandths|base(?!\s+pairs?)|"
    "divided|multiplied"
)
# And those that say more of it than what it counts.
_NO_UNIT = (
    rf"{CHANGING}|of|nor|not|but|by|is|sec|half|third|quarters?|fourth|fifth|more|less|than|maybe|perhaps|possibly|"
    "otherwise|else|except|unless|without|wrong|alpha|beta|gamma|delta|epsilon|theta|lambda|sigma|omega|phi|infinity"
)
_WORD_UNIT = re.compile(
    rf"({_NUMERAL})\s+(?!(?:{_NO_UNIT})\b)(?=[A-Za-z]*[aeiou])[A-Za-z]{{3,}}(?:[\s-]+(?!(?:{_NO_UNIT}|more|less)\b)[A-Za-z]+){{0,7}}"
)
_FRACTION_UNIT = re.compile(
    r"(?<=[\d}])\s*\\[dt]?frac\s*\{\s*\\(?:text|mathrm)\s*\{[^{}]*\}\s*(?:\^\{?\d\}?)?\s*\}\s*"
    r"\{\s*\\(?:text|mathrm)\s*\{[^{}]*\}\s*(?:\^\{?\d\}?)?\s*\}$"
)
_TEMPERATURE = re.compile(r"(?<=\\circ)(\s*\}?)\s*(?:[CF](?![A-Za-z])|\\(?:text|mathrm)\s*\{\s*[CFK]\s*\})")
_NUMBER_IN_TEXT = re.compile(
    r"\\(?:text|mathrm|mbox)\s*\{\s*(\\?\$?[-+]?\d[\d,.]*(?::\d\d)?)(\s*[A-Za-z][A-Za-z .]*)\}"
)
_MONEY = "USD|US|EUR|GBP|INR|CAD|AUD|CNY|RMB|Rs\\.?"
_BEFORE = re.compile(
    rf"\\(?:text|mathrm|mbox)\s*\{{\s*(?:{_MONEY}|[Aa]bout|[Aa]pprox(?:imately|\.)?|[Rr]oughly|[Ee]xactly|"
    r"(?:[Tt]he |[Ff]inal )*[Aa]nswer(?: is)?:?|[Tt]otal:?)[\s~$\\]*\}\s*(?=[-\d\\$])"
    r"|\\(?:text|mathrm|mbox)\s*\{[A-Za-z\s]+\}\s*=(?!=)(?=[^=]*$)"
)
_TEXT_MARK = re.compile(r"\\(?:text|mathrm|mbox)\s*\{\s*([$€£%°]|\\[$%])\s*\}")

# --- what counts more, or less, than one

_MAGNITUDE = re.compile(
    rf"(?<=\d)[\s~$]*(?:\\(?:text|mathrm|mbox)\s*\{{\s*({_POWER}|dozen)(?![A-Za-z])\s*([^{{}}]*)\}}|({_POWER}|dozen)(?![A-Za-z]))"
)
_PARTS = {  # of what an hour, a foot, a dollar are written with beside it: how many make one
    ("day", "hour"): 24,
    ("hour", "minute"): 60,
    ("minute", "second"): 60,
    ("foot", "inch"): 12,
    ("yard", "foot"): 3,
    ("dollar", "cent"): 100,
    ("euro", "cent"): 100,
    ("pound", "ounce"): 16,
    ("meter", "centimeter"): 100,
    ("kilometer", "meter"): 1000,
    ("kilogram", "gram"): 1000,
    ("year", "month"): 12,
    ("week", "day"): 7,
}
_SHORT = {
    "feet": "foot", "ft": "foot", "in": "inch", "inches": "inch", "h": "hour", "hr": "hour", "hrs": "hour", "d": "day",
    "min": "minute", "mins": "minute", "m": "meter", "s": "second", "sec": "second", "secs": "second", "lb": "pound",
    "lbs": "pound", "oz": "ounce", "cm": "centimeter", "km": "kilometer", "kg": "kilogram", "g": "gram", "yd": "yard",
    "metre": "meter", "centimetre": "centimeter", "kilometre": "kilometer",
}  # fmt: skip
_NAMED = r"(?:\\(?:text|mathrm|mbox)\s*\{([A-Za-z\s,]*)\}|([A-Za-z]+(?:\s*,|\s+and)?))"
_COMPOUND = re.compile(rf"\s*\$?\s*({_NUMBER})\s*\$?\s*{_NAMED}\s*\$?\s*({_NUMBER})\s*\$?\s*{_NAMED}[\s.$]*")
_ARC = re.compile(r"(\d+)\^\{?\\circ\s*\}?\s*(\d+)\s*(?:'|\^\{?\\prime\}?)(?:\s*(\d+)\s*(?:''|\"))?")
_DEGREES = re.compile(r"(?<=\d)\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")  # left where no function takes them
_MIXED_PERCENT = re.compile(r"(\d+|(?<!\d))\s*\\[dt]?frac\s*(?:\{(\d+)\}\s*\{(\d+)\}|(\d)(\d))\s*(?=\\?%)")
_RATIO = re.compile(r"(\d+)\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(\d+)")
_TIME = re.compile(
    r"\\boxed\{\s*(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*"
    r"(?:\\(?:text|mathrm|mbox)\s*\{)?\s*([AaPp]\.?\s?[Mm])?\.?\s*\}?\s*\}"
)
_MODULUS = re.compile(
    r"(\\boxed\{.*?\S)\s*(?:\\(?:pmod|bmod|mod)(?![A-Za-z])\s*|\(?\s*mod(?:ulo)?\s+)(?:\{\s*\d+\s*\}|\(?\d+\)?)\s*\)?\s*\}"
)
_AND = re.compile(r"\s*\\&\s*")


def plain(latex: str) -> str:
    r"""``latex`` with its numbers as math-verify reads them, and without the unit of a single number.

    >>> print(plain("1.234.567,5"), plain(r"(1,000, 2,000)"), plain("(100,200)"), plain("3{,}14"))
    1234567.5 (1000, 2000) (100,200) 3.14
    >>> print(plain("5 or more"), plain("5 x"), plain(r"\text{Area} = 25"), plain("4 to 5"))
    5 or more 5 x  25 4:5
    """
    latex = _thousands(latex)
    if "\\" in latex:
        latex = _TEMPERATURE.sub(r"\1", _TEXT_MARK.sub(r"\1", latex))
        if "{" in latex:
            latex = _FRACTION_UNIT.sub("", _BEFORE.sub("", _NUMBER_IN_TEXT.sub(r"\1\\text{\2}", latex)))
            latex = _ARC.sub(_degrees, _MIXED_PERCENT.sub(_improper, latex))
        latex = _DEGREES.sub("", latex) if "circ" in latex else latex
    if any(sign.isalpha() for sign in latex):
        compound = _COMPOUND.fullmatch(latex)
        if compound and (together := _together(*compound.groups())):
            return together
        latex = _RATIO.sub(r"\1:\2", latex) if _RATIO.fullmatch(latex.strip()) else latex
        latex = _MAGNITUDE.sub(_times, latex)
        number = _LONG_UNIT.fullmatch(latex.strip()) or _WORD_UNIT.fullmatch(latex.strip())
        if number:
            return number[1]
    return _AND.sub(", ", latex)


def is_compound(text: str) -> bool:
    """Whether ``text`` is two numbers, each with what it counts.

    >>> is_compound("17 hours and 30 minutes"), is_compound("17 hours")
    (True, False)
    """
    compound = _COMPOUND.fullmatch(text)
    return compound is not None and _together(*compound.groups()) is not None


def _thousands(latex: str) -> str:
    if latex.count("{,}") == 1:
        latex = _DECIMAL_COMMA.sub(".", latex)
    if "'" in latex or "’" in latex or "_" in latex:
        latex = _MARKED.sub(_digits, latex)
    if "." in latex:
        latex = _DOTTED.sub(_digits, latex)
    if "," in latex:
        if continental := _CONTINENTAL.fullmatch(latex):
            return f"{continental[1]}{_digits(continental[2])}.{continental[3]}"
        if not _OPENED.search(latex) or _LOOSE.search(latex):
            latex = _TIGHT.sub(_digits, latex)
        latex = _ZEROS.sub(_digits, latex)
    return latex


def _digits(number: re.Match | str) -> str:
    return "".join(filter(str.isdigit, number if isinstance(number, str) else number[0]))


def _times(magnitude: re.Match) -> str:
    word = magnitude[1] or magnitude[3]
    times = r"\cdot 12" if word == "dozen" else rf"\times 10^{{{_POWERS[word]}}}"
    return times + (rf"\text{{ {magnitude[2]}}}" if magnitude[2] else "")


def _improper(mixed: re.Match) -> str:
    """A percentage with a fraction as a decimal, where it is one, or as one fraction: math-verify multiplies them."""
    whole, top, bottom = int(mixed[1] or 0), int(mixed[2] or mixed[4]), int(mixed[3] or mixed[5])
    if bottom == 0 or (mixed[1] and top >= bottom):
        return mixed[0]
    if 10**6 % bottom:
        return rf"\frac{{{whole * bottom + top}}}{{{bottom}}}"
    return f"{whole + top // bottom}.{top % bottom * 10**6 // bottom:06d}".rstrip("0").rstrip(".")


def _degrees(arc: re.Match) -> str:
    return rf"{arc[1]}+\frac{{{arc[2]}}}{{60}}" + (rf"+\frac{{{arc[3]}}}{{3600}}" if arc[3] else "")


def _together(first: str, *named: str | None) -> str | None:
    """Two numbers with what they count: the smaller as a part of the larger, or a list of both."""
    one_text, one_word, second, two_text, two_word = named
    one, two = (_one_unit(text or word or "") for text, word in ((one_text, one_word), (two_text, two_word)))
    if (one, two) in _PARTS:
        sign = "-" if first.startswith("-") else "+"
        return rf"{first}{sign}\frac{{{second}}}{{{_PARTS[one, two]}}}"
    known = not (one_word or two_word) or all(len(unit) > 2 and unit not in _NOT_COUNTED for unit in (one, two))
    return f"{first}, {second}" if known and one and two else None


_NOT_COUNTED = frozenset(re.split(r"\W+", _NO_UNIT))


def _one_unit(text: str) -> str:
    words = [word for word in re.split(r"[\s,]+", text) if word and word != "and"]
    unit = " ".join(words)
    return _SHORT.get(unit, unit.removesuffix("s"))


def alike(answer: str, truth: str) -> tuple[str, str]:
    r"""Two boxed answers, without what only one of them has and which says nothing that the other does not: a unit of
    one letter, which might be a variable, and the modulus. 1,10,100 is a list where the other is one of three.

    >>> alike(r"\boxed{5 m^2}", r"\boxed{5}"), alike(r"\boxed{5 m^2}", r"\boxed{5m}")
    (('\\boxed{5}', '\\boxed{5}'), ('\\boxed{5 m^2}', '\\boxed{5m}'))
    """
    answer, truth = _indian(answer, truth), _indian(truth, answer)
    if "cup" in truth and "or" in answer:
        answer = rf"\boxed{{{as_union(answer[len(_BOX) : -1])}}}"
    elif "cup" in answer and "or" in truth:
        truth = rf"\boxed{{{as_union(truth[len(_BOX) : -1])}}}"
    return _without(answer, truth), _without(truth, answer)


_BOX = r"\boxed{"


def _indian(one: str, other: str) -> str:
    number = _INDIAN.fullmatch(one[len(_BOX) : -1])
    if number is None or one.count(",") == other.count(","):
        return one
    return rf"\boxed{{{number[1]}{number[2].replace(',', '')}}}"


def _without(one: str, other: str) -> str:
    if not any(sign.isalpha() for sign in one[len(_BOX) :]):
        return one
    number = _SHORT_UNIT.fullmatch(one)
    if number and not any(sign.isalpha() for sign in re.sub(r"\\[A-Za-z]+", "", other)):
        return rf"\boxed{{{number[1]}}}"
    return one if "mod" not in one or "mod" in other else _MODULUS.sub(r"\1}", one)


def same_time(answer: str, truth: str) -> bool | None:
    r"""Whether two boxed times of day are the same; None where they are not both times.

    >>> same_time(r"\boxed{3:30\text{ PM}}", r"\boxed{3:30}"), same_time(r"\boxed{1:20}", r"\boxed{2:40}")
    (True, False)
    """
    if ":" not in truth or ":" not in answer:
        return None
    one, other = _TIME.fullmatch(answer), _TIME.fullmatch(truth)
    if one is None or other is None:
        return None
    halves = [(time[4] or "")[:1].lower() for time in (one, other)]
    clock = [(int(time[1]), int(time[2]), int(time[3] or 0)) for time in (one, other)]
    return clock[0] == clock[1] and (halves[0] == halves[1] or "" in halves)
