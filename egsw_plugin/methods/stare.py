"""A weight on the most surprising tokens while the entropy is low (STARE, arXiv 2606.19236)."""

from __future__ import annotations

import dataclasses
import math

import torch

from .. import measure
from ..controllers import Step
from ..kernels.rows import row_sums
from ..kernels.selection import largest
from ..options import Options, documented, option
from ..options.checks import in_range, one_of, optional
from .interface import Batch, Change, Requirements, Transform

RISING = Step(target=0.3, initial=1.1, delta=0.01, min=1.0, max=1.5)
FALLING = Step(target=0.3, initial=0.9, delta=-0.01, min=0.5, max=1.0)
WEIGHT = in_range(0, 1e3, inclusive=True)


@documented
@dataclasses.dataclass(frozen=True)
class STAREOptions(Options):
    """Options of STARE (arXiv 2606.19236), section ``algorithm.credit.stare``."""

    P: float = option(
        0.1, in_range(0, 1, inclusive=True), "share of the tokens of each sign that are weighted", "P", "0.1"
    )
    variant: str = option(
        "O1",
        one_of("O1", "C2"),
        "`O1`: tokens with A > 0 are weighted by W; `C2`: those with A < 0 by M as well",
        paper="O1",
    )
    W: float = option(
        1.1,
        WEIGHT,
        "weight of the most surprising tokens with A > 0",
        "W",
        "1.1 (14B and 32B: 1.05); moved by 0.01 within [1, 1.5] where it is adaptive",
        controllers=(RISING,),
    )
    M: float = option(
        0.9,
        WEIGHT,
        "with variant=C2: weight of the most surprising tokens with A < 0",
        "M",
        "0.9 (14B and 32B: 0.95); moved by 0.01 within [0.5, 1] where it is adaptive",
        controllers=(FALLING,),
    )
    target: float | None = option(
        0.3,
        optional(in_range(0, 1e3, inclusive=True)),
        "weights are 1 in a step whose mean entropy (nats) is not below it; null: they count in every step",
        "target",
        "0.3",
    )

    def cautions(self) -> list[str]:
        """A weight that nobody reads."""
        return ["M has no effect with variant=O1"] if self.variant == "O1" and self.M != 0.9 else []


class STARE(Transform[STAREOptions]):
    """Weighs the most surprising tokens of successes (and of failures) while the batch's mean entropy is low.

    The choice is over the whole batch and by the old policy's log-probabilities; the authors' code chooses within each
    micro-batch, by the current policy's. At least one token of a sign is chosen; tokens that equal the last one are,
    too.

    Metrics: `changed/mean` and `distance/mean`; `chosen/mean`, the share of policy tokens that were weighted;
    `gate/mean`, 1 where the weights counted in this step, else 0; with controllers `W/mean`, `W_target/mean` and the
    same of `M`.
    """

    name = "stare"
    options_type = STAREOptions
    title = "STARE"
    source = "arXiv 2606.19236"
    formula = "while mean H < target: A * W on the ceil(P |T+|) largest -l of T+ = {A > 0};  C2: A * M on those of T-"
    favours = "the most surprising tokens: more credit in successes, with C2 less blame in failures"
    identity = {"W": 1.0, "M": 1.0}
    cost = "one selection over the batch"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: STAREOptions) -> Requirements:
        """Log-probabilities, and the entropy for the gate."""
        gated = options.target is not None
        return Requirements(
            tensors=("old_log_probs", "entropy") if gated else ("old_log_probs",),
            without={"entropy": "{section}.target=null, which leaves the gate open"} if gated else {},
            per_token=True,
            direction=(options.W > 1) - (options.W < 1),
        )

    def apply(self, options: STAREOptions, batch: Batch) -> Change:
        """Weigh the chosen tokens."""
        mask = batch.mask
        factor = torch.ones(mask.shape, dtype=batch.advantages.dtype, device=mask.device)
        chosen, is_open = 0, self._is_open(options, batch)
        sides = [(1, options.W), (-1, options.M)] if options.variant == "C2" else [(1, options.W)]
        for sign, weight in sides if is_open else ():
            side = mask & (batch.advantages.sign() == sign)
            surprisal = -batch.old_log_probs[side]
            kept = largest(surprisal, max(math.ceil(options.P * len(surprisal) - 1e-9), 1))
            factor.masked_scatter_(side, torch.where(kept, weight, 1.0).to(factor.dtype))
            chosen += int(kept.sum())
        advantages = batch.advantages * factor
        count = int(batch.rows.count.sum())
        metrics = {"chosen/mean": chosen / count if count else 0.0, "gate/mean": float(is_open)}
        return Change(advantages, metrics=measure.effect(batch, advantages) | metrics)

    @staticmethod
    def _is_open(options: STAREOptions, batch: Batch) -> bool:
        if options.target is None:
            return True
        total = row_sums(batch.entropy, batch.rows).sum()
        return bool(batch.rows.count.any()) and measure.ratio(total, batch.rows.count.sum()) < options.target
