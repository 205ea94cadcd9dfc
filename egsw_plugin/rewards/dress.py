r"""What LaTeX, Markdown and Unicode put around an answer, or write otherwise, without saying anything by it.

Text alone, in time linear in its length. Where math-verify misreads what is plain to a person, it is written here in a
form that math-verify reads.

>>> print(undressed(r"\displaystyle\nicefrac{1}{2}\hspace{1cm}."), undressed("3×10⁸"))
\frac{1}{2} . 3\times 10^{8}
"""

import re

_SIGNS = {
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
    "¼": r"\frac{1}{4}",
    "½": r"\frac{1}{2}",
    "¾": r"\frac{3}{4}",
    "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}",
    "（": "(",
    "）": ")",
    "，": ",",
    "：": ":",
    "€": "",
    "£": "",
    "¥": "",
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\ufe0f", ""),
    **dict.fromkeys("\u00a0\u2002\u2003", " "),
    **dict.fromkeys("\u2009\u200a\u202f", r"\,"),
}
_TABLE = str.maketrans(_SIGNS)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_DASH = re.compile(r"(?:(?<=^)|(?<=[\s$({\[,=]))–(?=\s?[\d\\.])")
_SIZED = re.compile(r"\\(?:big|Big|bigg|Bigg)[lrm]?(?![A-Za-z])\s*\.?")
_NOTHING = re.compile(
    r"\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle|scriptstyle|bf|rm|it|sf|tt|bfseries|"
    r"mathstrut|strut|newline|noindent|underline|boldsymbol|bm|pmb|ensuremath|middle)(?![A-Za-z])\s*|"
    r"\\math(?:open|close)\s*\{\}|\\(?:text)?color\s*\{[^{}]*\}|"
    r"\\(?:begin|end)\{(?:align|aligned|equation|gather|gathered|split|math|displaymath|center)\*?\}"
)
_SPACED = re.compile(r"\\[hv]space\*?\s*\{[^{}]*\}|\\hskip\s*[\d.]+\s*(?:pt|em|ex|mm|cm)")
_BOLD_NUMBER = re.compile(r"\\mathbf\s*(?=\{[^{}]*[\d\\])")
_AS_TEXT = re.compile(
    r"\\(?:textup|textnormal|textsf|textit|textsl|texttt|textrm|textbf|emph|mathsf|mathit|mathtt)\s*(?=\{)"
)
_NUMBER_AS_TEXT = re.compile(
    r"\\(?:text|mathrm|mbox)\s*\{((?:[\d\s.,+\-*/^()]|\\[dt]?frac(?![A-Za-z])|\\[,;! ]|\{[\d,.]*\})*)\}"
)
_UNIT = re.compile(r"(?<=\d)((?:\s|\\[,;: ]|~)*)\\operatorname\*?\s*(?=\{)")
_FUNCTION = re.compile(
    r"\\operatorname\*?\s*\{(arc(?:sin|cos|tan)|(?:sin|cos|tan)h?|cot|sec|csc|log|ln|exp|gcd|min|max)\}"
)
_FRACTION = re.compile(r"\\(?:nicefrac|sfrac|xfrac)\s*(?=[\d{])")
_BRACE = re.compile(r"\\([lr])brace(?![A-Za-z])\s*")
_DEGREE = re.compile(r"\\degree(?![A-Za-z])")
_EMPTY_SIDE = re.compile(r"\\(?:left|right)\s*\.(?!\d)")
_ALIGNED = re.compile(r"\\(?:begin|end)\{(?:align|aligned|split)\*?\}")
# 1.6e-19 is a number, where math-verify reads e as Euler's.
_POWER_OF_TEN = re.compile(r"(?<![\w.\\}^])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,4})(?![\w.^])")
_MIXED = re.compile(r"(?<![\w.,/}])(\d+) +(\d+)/(\d+)(?![\d/.])")  # 3 1/2, whose parts it multiplies
_PI = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])")
_REPEATING = re.compile(r"(?<![\d.])(\d{0,9})\.(\d{0,9})\\overline\s*\{(\d{1,9})\}")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\w+))")


def undressed(latex: str) -> str:
    r"""``latex`` without commands of size, colour, weight and layout, and with Unicode signs as commands.

    >>> print(undressed(r"\bigl\lbrace 1.6e-19\bigr\rbrace"))
    \{ 1.6\times 10^{-19}\}
    """
    if not latex.isascii():
        latex = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}", latex)
        latex = _RAISED.sub(lambda raised: f"^{{{raised[0].translate(_SUPERSCRIPTS)}}}", latex)
        latex = _DASH.sub("-", latex.translate(_TABLE))
    if "e" in latex or "E" in latex:
        latex = _POWER_OF_TEN.sub(r"\1\\times 10^{\2}", latex)
    if "/" in latex:
        latex = _MIXED.sub(r"\1\\frac{\2}{\3}", latex)
    if "pi" in latex:
        latex = _PI.sub(r"\\pi ", latex)
    if "\\" not in latex:
        return latex
    latex = _REPEATING.sub(_fraction, latex)
    if "\\begin{" in latex and _ALIGNED.search(latex):
        latex = latex.replace("&", "")
    latex = _SPACED.sub(" ", _SIZED.sub("", _NOTHING.sub("", latex)))
    latex = _FUNCTION.sub(r"\\\1 ", latex)
    latex = _AS_TEXT.sub(r"\\text", _UNIT.sub(r"\1\\text", _BOLD_NUMBER.sub("", latex)))
    latex = _NUMBER_AS_TEXT.sub(r"\1", latex)
    latex = _BRACE.sub(lambda side: "\\{ " if side[1] == "l" else "\\}", _FRACTION.sub(r"\\frac", latex))
    latex = _DEGREE.sub(r"^\\circ", latex)
    sides = _EMPTY_SIDE.findall(latex)
    if sides and len(sides) % 2 == 0 and latex.count("\\left") == latex.count("\\right") == len(sides) // 2:
        latex = _EMPTY_SIDE.sub("", latex)
    return latex


def _fraction(decimal: re.Match) -> str:
    whole, start, again = decimal.groups()
    top = int(f"{whole}{start}{again}") - int(f"{whole}{start}" or 0)
    return rf"\frac{{{top}}}{{{10 ** len(start) * (10 ** len(again) - 1)}}}"
