"""What members that look at a token's uncertainty share: the option that says which one, and the tensor it takes."""

from __future__ import annotations

from typing import Any

from ..options import option
from ..options.checks import one_of


def kind(paper: str) -> Any:
    """The option `entropy`; paper: what the paper takes."""
    return option(
        "full",
        one_of("full", "surprisal"),
        "`full`: of the old policy over the whole vocabulary, in nats; `surprisal`: -old_log_prob of the sampled token",
        "H",
        paper,
    )


def needs(kind: str) -> dict[str, Any]:
    """What `Requirements` says of the tensor.

    >>> needs("surprisal")["tensors"]
    ('old_log_probs',)
    """
    return {
        "tensors": ("entropy",) if kind == "full" else ("old_log_probs",),
        "without": {"entropy": "{section}.entropy=surprisal, which uses -log_prob of the sampled tokens"},
    }
