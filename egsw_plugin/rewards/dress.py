r"""What LaTeX, Markdown and Unicode put around an answer, or write otherwise, without saying anything by it.

Text alone, in time linear in its length. Where math-verify misreads what is plain to a person, it is written here in a
form that math-verify reads.

>>> print(undressed(r"\displaystyle\nicefrac{1}{2}\hspace{1cm}."), undressed("3×10⁸"))
\frac{1}{2} . 3\times 10^{8}
"""

import re
import unicodedata

_SIGNS = {
    **{  # full-width signs, and letters and digits of mathematical alphabets
        chr(code): unicodedata.normalize("NFKC", chr(code))
        for code in (*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D800))
    },
    "−": "-",
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "÷": "/",
    "⁄": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "√": r"\sqrt ",
    "°": r"^\circ ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    **{  # ½, ⅝
        sign: r"\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign).split("\N{FRACTION SLASH}"))
        for sign in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
    },
    "±": r"\pm ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "→": r"\to ",
    "≡": r"\equiv ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "〈": r"\langle ",
    "〉": r"\rangle ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "℃": r"^\circ ",
    "℉": r"^\circ ",
    "′": "'",
    "″": "''",
    "。": ".",
    "、": ",",
    "…": r"\ldots ",
    **dict.fromkeys("\u2010\u2011\u2012\ufe63", "-"),
    **dict.fromkeys("€£¥₹₩₽₱₫¢", ""),
    **{
        unicodedata.lookup(f"GREEK SMALL LETTER {name.upper().replace('LAMBDA', 'LAMDA')}"): f"\\{name} "
        for name in (
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "theta",
            "lambda",
            "mu",
            "rho",
            "sigma",
            "phi",
            "omega",
        )
    },
    "Δ": r"\Delta ",
    "Ω": r"\Omega ",
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\ufe0f", ""),
    **dict.fromkeys("\u00a0\u2002\u2003", " "),
    **dict.fromkeys("\u2009\u200a\u202f", r"\,"),
}
_TABLE = str.maketrans(_SIGNS)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_LOWERED = re.compile(r"[₀₁₂₃₄₅₆₇₈₉]+")
_DASH = re.compile(r"(?:(?<=^)|(?<=[\s$({\[,=]))–(?=\s?[\d\\.])")
_SIZED = re.compile(r"\\(?:big|Big|bigg|Bigg)[lrm]?(?![A-Za-z])\s*\.?")
_NOTHING = re.compile(
    r"\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle|scriptstyle|bf|rm|it|sf|tt|bfseries|"
    r"mathstrut|strut|newline|noindent|underline|boldsymbol|bm|pmb|ensuremath|middle)(?![A-Za-z])\s*|"
    r"\\math(?:open|close)\s*\{\}|\\(?:(?:text)?color|colorbox|fcolorbox\s*\{[^{}]*\})\s*\{[^{}]*\}|"
    r"\\(?:[hv]?phantom|tag\*?|label)\s*\{[^{}]*\}|\\hfill?(?![A-Za-z])|"
    r"(?:\\(?:blacksquare|square|qed|checkmark)(?![A-Za-z])\s*)+$|"
    r"\\(?:begin|end)\{(?:align|aligned|equation|gather|gathered|split|math|displaymath|center)\*?\}"
)
_ROW_SPACE = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|ex|em|mm|cm|in)\s*\]")
_SPACED = re.compile(r"\\nobreakspace(?![A-Za-z])|\\[hv]space\*?\s*\{[^{}]*\}|\\hskip\s*[\d.]+\s*(?:pt|em|ex|mm|cm)")
_BOLD_NUMBER = re.compile(r"\\mathbf\s*(?=\{[^{}]*[\d\\])")
_AS_TEXT = re.compile(
    r"\\(?:textup|textnormal|textsf|textit|textsl|texttt|textrm|textbf|emph|mathsf|mathit|mathtt|framebox)\s*(?=\{)"
)
_NUMBER_AS_TEXT = re.compile(
    r"\\(?:text|mathrm|mathcal|mathbb|mbox)\s*\{((?:[\d\s.,+\-*/^()]|\\[dt]?frac(?![A-Za-z])|\\[,;! $]|\{[\d,.]*\})*)\}"
)
_UNIT = re.compile(r"(?<=\d)((?:\s|\\[,;: ]|~)*)\\operatorname\*?\s*(?=\{)")
_FUNCTION = re.compile(
    r"\\operatorname\*?\s*\{(arc(?:sin|cos|tan)|(?:sin|cos|tan)h?|cot|sec|csc|log|ln|exp|gcd|min|max)\}"
)
_FRACTION = re.compile(r"\\(?:nicefrac|sfrac|xfrac)\s*(?=[\d{])")
_BARE_FRACTION = re.compile(
    r"\\([dt]?frac)(?!\{[^{}]*\}\{)\s*(\{[^{}]*\}|\d|\\[A-Za-z]+)\s*(\{[^{}]*\}|\d|\\[A-Za-z]+(?![A-Za-z{\s])|(?<=\})[a-z])"
)
_INVERSE = re.compile(r"\\(sin|cos|tan)\s*\^\s*\{\s*-\s*1\s*\}")
_ANGLE = re.compile(  # math-verify drops the degrees, and takes the sine of 30 radians
    r"\\(sin|cos|tan|cot|sec|csc)\s*(\^\{?\d\}?)?\s*(?:\\left)?([({]?)\s*(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))\s*"
    r"(?:\\right)?([)}]?)"
)
_CIRCLE = re.compile(r"(?<=\d)\s*\^\s*(?:\{\s*(?:o|\\(?:text|mathrm)\s*\{\s*o\s*\})\s*\}|o(?![A-Za-z]))")
_QUANTITY = re.compile(r"\\(?:num|ang|pu|(?:SI|qty)(?=\{[^{}]*\}\s*\{))\s*\{([^{}]*)\}(?:(?<=\})\s*\{[^{}]*\})?")
_LETTER = re.compile(r"\\mathrm\s*(?:\{\s*([a-z])\s*\}|\s([a-z])(?![A-Za-z]))(?![A-Za-z])")
_FULL_STOP_IN_TEXT = re.compile(r"(?<=[A-Za-z])\s*[.!]\}$")
_TEN = re.compile(r"(?<=\d)\s*(?:[xX]|\\(?:text|mathrm)\s*\{\s*[xX]\s*\})\s*(?=10\s*\^)")
_EXPONENT = re.compile(r"\^\s*-\s*(\d+|[A-Za-z](?![A-Za-z]))")
_EXPONENT_IN_TEXT = re.compile(r"(?<=\d)\s*\\(?:text|mathrm)\s*\{\s*[eE]\s*\}\s*(?=[-+\d])")
_PYTHON_POWER = re.compile(r"(?<=[\w)])\s*\*\*\s*(?:(-?\d+)|(?=[\w(]))")
_BRACE = re.compile(r"\\([lr])brace(?![A-Za-z])\s*")
_DEGREE = re.compile(r"\\degree(?![A-Za-z])")
_EMPTY_SIDE = re.compile(r"\\(?:left|right)\s*\.(?!\d)")
_ALIGNED = re.compile(r"\\(?:begin|end)\{(?:align|aligned|split)\*?\}")
# 1.6e-19 is a number, where math-verify reads e as Euler's.
_POWER_OF_TEN = re.compile(r"(?<![\w.\\}^])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,4})(?![\w^]|\.\d)")
_MIXED = re.compile(r"(?<![\w.,/}])(\d+) +(\d+)/(\d+)(?![\d/.])")  # 3 1/2, whose parts it multiplies
_PI = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])")
_REPEATING = re.compile(r"(?<![\d.])(\d{0,9})\.(\d{0,9})\\(?:overline|bar|dot)\s*\{(\d{1,9})\}")
_NAMES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_BASES = {name: number for number, name in enumerate(_NAMES, 2)}
_BASE_IN_WORDS = re.compile(rf"(?<=\d)\)?_\s*\{{?\s*\\text\{{\s*({'|'.join(_BASES)})\s*\}}\s*\}}?")
_BASE_OF_BRACKET = re.compile(r"\((\d+)\)_(?=[\d{])")
_COMMA_IN_TEXT = re.compile(r"\\text\{\s*,\s*(?:and|or)\s*\}")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\w+))")


def undressed(latex: str) -> str:
    r"""``latex`` without commands of size, colour, weight and layout, and with Unicode signs as commands.

    >>> print(undressed(r"\bigl\lbrace 1.6e-19\bigr\rbrace"))
    \{ 1.6\times 10^{-19}\}
    """
    if not latex.isascii():
        latex = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}", latex)
        latex = _RAISED.sub(lambda raised: f"^{{{raised[0].translate(_SUPERSCRIPTS)}}}", latex)
        latex = _LOWERED.sub(lambda lowered: f"_{{{lowered[0].translate(_SUBSCRIPTS)}}}", latex)
        latex = _DASH.sub("-", latex.translate(_TABLE))
    if "e" in latex or "E" in latex:
        if "{" in latex:
            latex = _EXPONENT_IN_TEXT.sub("e", latex)
        latex = _POWER_OF_TEN.sub(r"\1\\times 10^{\2}", latex)
    if "{:}" in latex:
        latex = latex.replace("{:}", ":")
    if "**" in latex:
        latex = _PYTHON_POWER.sub(lambda power: f"^{{{power[1]}}}" if power[1] else "^", latex)
    if "^" in latex:
        latex = _EXPONENT.sub(r"^{-\1}", latex)
        latex = _CIRCLE.sub(r"^\\circ ", _TEN.sub(r"\\times ", latex))
    if ")_" in latex:
        latex = _BASE_OF_BRACKET.sub(r"\1_", latex)
    if "/" in latex:
        latex = _MIXED.sub(r"\1\\frac{\2}{\3}", latex)
    if "pi" in latex:
        latex = _PI.sub(r"\\pi ", latex)
    if "\\" not in latex:
        return latex
    if "overline" in latex or "\\bar" in latex or "\\dot" in latex:
        latex = _REPEATING.sub(_fraction, latex)
    if "\\text{" in latex:
        latex = _COMMA_IN_TEXT.sub(", ", _BASE_IN_WORDS.sub(lambda base: f"_{{{_BASES[base[1]]}}}", latex))
    if "frac" in latex:
        latex = _BARE_FRACTION.sub(_braced, _FRACTION.sub(r"\\frac", latex))
    if "circ" in latex or "degree" in latex:
        latex = _DEGREE.sub(r"^\\circ", _ANGLE.sub(_radians, latex))
    if "\\begin{" in latex and _ALIGNED.search(latex):
        latex = latex.replace("&", "")
    if "\\begin{" in latex:
        latex = _ROW_SPACE.sub(r"\\\\", latex)
    latex = _NOTHING.sub("", latex)
    if "\\big" in latex or "\\Big" in latex:
        latex = _SIZED.sub("", latex)
    if "s" in latex:
        latex = _SPACED.sub(" ", latex)
    latex = _AS_TEXT.sub(r"\\text", _LETTER.sub(_letter, latex) if "mathrm" in latex else latex)
    if "{" in latex:
        if "operatorname" in latex:
            latex = _UNIT.sub(r"\1\\text", _FUNCTION.sub(r"\\\1 ", latex))
        latex = _FULL_STOP_IN_TEXT.sub("}", _BOLD_NUMBER.sub("", latex))
        latex = _NUMBER_AS_TEXT.sub(r"\1", latex)
        latex = _INVERSE.sub(r"\\arc\1", _QUANTITY.sub(r"\1", latex))
    latex = latex.replace(r"\varnothing", r"\emptyset").replace(r"\lg ", r"\log_{10} ")
    if "brace" in latex:
        latex = _BRACE.sub(lambda side: "\\{ " if side[1] == "l" else "\\}", latex)
    sides = _EMPTY_SIDE.findall(latex)
    if sides and len(sides) % 2 == 0 and latex.count("\\left") == latex.count("\\right") == len(sides) // 2:
        latex = _EMPTY_SIDE.sub("", latex)
    return latex


def _fraction(decimal: re.Match) -> str:
    whole, start, again = decimal.groups()
    top = int(f"{whole}{start}{again}") - int(f"{whole}{start}" or 0)
    return rf"\frac{{{top}}}{{{10 ** len(start) * (10 ** len(again) - 1)}}}"


def _letter(upright: re.Match) -> str:
    letter = upright[1] or upright[2]
    return letter if upright.string[upright.start() - 1 : upright.start()].isdigit() else f" {letter}"


def _braced(fraction: re.Match) -> str:
    top, bottom = (part if part.startswith("{") else f"{{{part}}}" for part in fraction.groups()[1:])
    return rf"\{fraction[1]}{top}{bottom}"


def _radians(angle: re.Match) -> str:
    name, power, opened, degrees, closed = angle.groups()
    if (opened, closed) not in (("", ""), ("(", ")"), ("{", "}")):
        return angle[0] if opened else _radians_of(name, power, degrees) + closed
    return _radians_of(name, power, degrees)


def _radians_of(name: str, power: str | None, degrees: str) -> str:
    return rf"\{name}{power or ''}(\frac{{{degrees}\pi}}{{180}})"
