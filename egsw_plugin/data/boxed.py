r"""The answer of a worked solution: what its last ``\boxed`` holds."""

import re

from ..errors import DataError

_COMMAND = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BARE = re.compile(r"[^$\n]*?(?=\$|\\\]|\\\)|\n|$)")  # \boxed without braces: to the end of its formula


def last_boxed(solution: str) -> str:
    r"""The content of the last ``\boxed`` or ``\fbox`` of a solution.

    Braces are balanced; an escaped brace (``\{``) is text. MATH has a few ``\boxed 7`` without braces: the content is
    then the rest of the formula, as verl's and Minerva's readers have it.

    Args:
        solution: LaTeX.

    Returns:
        The content with the white space that it has; never blank.

    Raises:
        DataError: No box, a brace that is never closed, or an empty box.

    >>> last_boxed(r"First $\boxed{1}$, so $x = \boxed{\frac{1}{2}}$.")
    '\\frac{1}{2}'
    >>> last_boxed(r"The set is $\boxed{\{1, 2\}}$")
    '\\{1, 2\\}'
    >>> last_boxed(r"so $\boxed 7$.")
    '7'
    """
    commands = list(_COMMAND.finditer(solution))
    if not commands:
        raise DataError(r"the solution has no \boxed{}")
    start = commands[-1].end()
    bare = _BARE.match(solution, start)
    content = bare[0] if bare and not solution.startswith("{", start) else _braced(solution, start)
    if not content.strip():
        raise DataError(r"the last \boxed{} of the solution is empty")
    return content


def _braced(text: str, start: int) -> str:
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 1  # the character after a backslash opens and closes nothing
        elif text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : at]
        at += 1
    raise DataError(r"the last \boxed{} of the solution is never closed")
