r"""Sets, intervals, vectors, relations and assignments in the one of their usual forms that math-verify reads.

Text alone, in time linear in its length.

>>> print(usual(r"\langle 1,2\rangle"), usual("]0,1["), usual("5=x"), usual(r"5\ge x> 2"))
(1,2) (0,1) x=5 2<x\le 5
"""

import re

_FRENCH = re.compile(r"(?:\\left\s*)?([\[\]])([^()\[\]]*,[^()\[\]]*?)(?:\\right\s*)?([\[\]])")
_CASES = re.compile(r"\\begin\{(cases|array)\}(?:\{[lcr|\s]*\})?(.*)\\end\{\1\}", re.DOTALL)
_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?")
_ROWS = re.compile(r"\s*\[\s*((?:\[[^\[\]]*\]\s*,?\s*)+)\]\s*")
_ONE_ROW = re.compile(r"\[([^\[\]]*)\]")
_BRACED = re.compile(r"\\(begin|end)\{(?:Bmatrix|smallmatrix)\}")
_OR = re.compile(r"(?<=[\])])\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*or\s*\}|\bor\b)\s*(?=[\[(])")
_SUCH_THAT = re.compile(r"\\\{\s*([A-Za-z])\s*(?:\\mid(?![A-Za-z])|:|\|)\s*(.*\b\1\b.*)\\\}")
_BY_SIGN = re.compile(r"\\pm(?![A-Za-z])\s*")
_OPPOSITE = re.compile(r"\\mp(?![A-Za-z])\s*")
_RELATION = re.compile(r"\\(?:leqslant|geqslant|leq|geq|le|ge|lt|gt)(?![A-Za-z])|[<>]=?")
_TURNED = {"<": "<", "le": r"\le ", "lt": "<", ">": "<", "ge": r"\le ", "gt": "<", "<=": r"\le ", ">=": r"\le "}
_BOTH = re.compile(r"\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*and\s*\}|\band\b|\\land(?![A-Za-z])|\\wedge(?![A-Za-z])|,)\s*")
_OTHER = re.compile(r"\bor\b|[,;]")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?")
_BEHIND = re.compile(r"([-+]?(?:\d+(?:\.\d+)?|\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}))\s*=\s*([A-Za-z](?:_\{?\w\}?)?)")
_BECOMES = re.compile(
    r"([A-Za-z](?:_\{?\w\}?)?)\s*(?:\\(?:to|rightarrow|longrightarrow|coloneqq|equiv|simeq|sim|cong)(?![A-Za-z])|:=|≡|→)\s*"
)


def _both_signs(latex: str) -> str:
    r"""The member of a list or set that holds the sign, once with each.

    >>> print(_both_signs(r"\{1\pm\sqrt{5},-2\}"), _both_signs(r"(1, \pm 2)"))
    \{1+\sqrt{5}, 1-\sqrt{5}, -2\} (1, +2), (1, -2)
    """
    inner = latex[2:-2] if latex.startswith("\\{") and latex.endswith("\\}") else latex
    members, depth, begin = [], 0, 0
    for place, sign in enumerate(inner):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            members.append(inner[begin:place])
            begin = place + 1
    both = []
    for member in [*members, inner[begin:]]:
        signed = [_OPPOSITE.sub("-", _BY_SIGN.sub("+", member)), _OPPOSITE.sub("+", _BY_SIGN.sub("-", member))]
        both += signed if _BY_SIGN.search(member) else [member]
    listed = ", ".join(one.strip() for one in both)
    return listed if inner is latex else rf"\{{{listed}\}}"


def usual(latex: str) -> str:
    r"""``latex``, where it is of one of these forms as a whole; otherwise as it stands.

    >>> print(usual("[[1,2],[3,4]]"), usual(r"\begin{cases}x=1\\y=2\end{cases}"), usual("x=5"))
    \begin{pmatrix}1&2\\3&4\end{pmatrix} x=1, y=2 x=5
    """
    latex = latex.strip()
    if "\\" in latex:
        if "angle" in latex:
            latex = re.sub(r"\\langle(?![A-Za-z])\s*", "(", re.sub(r"\s*\\rangle(?![A-Za-z])", ")", latex))
        if r"\pm" in latex and len(_BY_SIGN.findall(latex)) == 1 and "\\text" not in latex:
            latex = _both_signs(latex)
        if latex.startswith("\\{") and (such := _SUCH_THAT.fullmatch(latex)):
            latex = such[2].strip()
        if "\\begin{" in latex:
            latex = _plain_rows(_BRACED.sub(r"\\\1{pmatrix}", latex))
    if "[" in latex or "]" in latex:
        rows = _ROWS.fullmatch(latex)
        if rows:
            inner = r"\\".join(row.replace(",", "&") for row in _ONE_ROW.findall(rows[1]))
            return rf"\begin{{pmatrix}}{inner}\end{{pmatrix}}"
        interval = _FRENCH.fullmatch(latex)
        if interval and (interval[1] == "]" or interval[3] == "["):
            left, right = "[("[interval[1] == "]"], "])"[interval[3] == "["]
            return left + interval[2] + right
        latex = _OR.sub(r"\\cup ", latex)
    elif "infty" in latex:
        latex = _OR.sub(r"\\cup ", latex)
    if "=" in latex and (behind := _BEHIND.fullmatch(latex)):
        return f"{behind[2]}={behind[1]}"
    becomes = _BECOMES.match(latex)
    if becomes:
        return f"{becomes[1]}={latex[becomes.end() :]}"
    return _chain(latex) if _RELATION.search(latex) else latex


def _plain_rows(latex: str) -> str:
    """Rows without columns are a list."""
    found = _CASES.fullmatch(latex)
    if not found or "&" in found[2]:
        return latex
    rows = [row.strip().rstrip(",;") for row in _ROW.split(found[2])]
    return ", ".join(row for row in rows if row)


def _chain(latex: str) -> str:
    r"""Two bounds as one chain that rises: ``5 > x > 2`` and ``x > 2, x < 5``."""
    signs = [
        sign[0].lstrip("\\").removesuffix("slant").replace("leq", "le").replace("geq", "ge")
        for sign in _RELATION.finditer(latex)
    ]
    sides = [side.strip() for side in _RELATION.split(latex)]
    if len(signs) != 2 or any("\\begin" in side or side.count("|") % 2 for side in sides):
        return latex
    rising = [sign[0] in "<l" for sign in signs]
    middle = [part.strip() for part in _BOTH.split(sides[1])]
    if len(middle) == 1:
        if not any(rising) and not _OTHER.search(sides[1]):
            return f"{sides[2]}{_TURNED[signs[1]]}{sides[1]}{_TURNED[signs[0]]}{sides[0]}"
        return latex
    if len(middle) == 2 and sides[0] == middle[1] and _VARIABLE.fullmatch(sides[0]) and rising[0] != rising[1]:
        low, high = (middle[0], sides[2]) if rising[1] else (sides[2], middle[0])
        lower, upper = signs if rising[1] else reversed(signs)
        return f"{low}{_TURNED[lower]}{sides[0]}{_TURNED[upper]}{high}"
    return latex


_EITHER = re.compile(
    r"\s*([A-Za-z])\s*(<|\\leq?(?![A-Za-z])|\\leqslant|>|\\geq?(?![A-Za-z])|\\geqslant)\s*([^<>=]*?)\s*"
    r"(?:\\(?:text|mathrm|mbox)\s*\{\s*or\s*\}|\bor\b)\s*\1\s*(<|\\leq?(?![A-Za-z])|\\leqslant|>|\\geq?(?![A-Za-z])|\\geqslant)"
    r"\s*([^<>=]*?)\s*"
)


def as_union(latex: str) -> str:
    r"""Two rays, stated as conditions, as a union.

    >>> print(as_union(r"x<2\text{ or }x\ge 5"))
    (-\infty,2)\cup [5,\infty)
    """
    found = _EITHER.fullmatch(latex)
    if not found or any(sign in found[3] + found[5] for sign in ("\\le", "\\ge", ",")):
        return latex
    return r"\cup ".join(_ray(found[at], found[at + 1]) for at in (2, 4))


def _ray(sign: str, bound: str) -> str:
    if sign.startswith((">", r"\g")):
        return ("(" if sign == ">" else "[") + rf"{bound},\infty)"
    return rf"(-\infty,{bound}" + (")" if sign == "<" else "]")
