"""What members that look at a token's uncertainty share: the option that says which one, and the tensor it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..options import Options, option
from ..options.checks import one_of


class UncertaintyOptions(Options):
    """Options among which is `entropy`, declared with `kind`."""

    if TYPE_CHECKING:
        entropy: str

    def cautions(self) -> list[str]:
        """What stands in for the entropy."""
        if self.entropy == "full":
            return []
        return [
            "entropy=surprisal takes -log_prob of the sampled tokens in place of the entropy, its expectation: a "
            "noisy stand-in; the metrics are of it, too"
        ]


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
