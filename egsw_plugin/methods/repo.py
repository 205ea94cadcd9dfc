"""Log-probabilities in the advantage, so that the entropy is kept: REPO and REPO-R (arXiv 2603.11682)."""

from __future__ import annotations

import dataclasses

import torch

from .. import measure
from ..controllers import Scale
from ..options import Options, documented, option
from ..options.checks import flag, in_range
from .interface import Batch, Change, Requirements, Transform

MAGNITUDE = in_range(-1, 1, inclusive=True)
CONTROLLED = Scale(target="initial", initial=0.01, min=1e-4, max=0.05)
SIZE = (
    "; above 0 it raises the entropy, below 0 it lowers it. The default is the paper's controller with its "
    "range, which steers to the entropy of the first step; SkyRL's examples have a target of 0.3"
)


def centred(default: bool, paper: str) -> bool:
    """The option `centred`."""
    declared: bool = option(
        default,
        flag,
        "`true`: L = log-probability + entropy, whose mean under the policy is 0; `false`: the log-probability itself",
        "L",
        paper,
    )
    return declared


@documented
@dataclasses.dataclass(frozen=True)
class REPOOptions(Options):
    """Options of REPO (arXiv 2603.11682), section ``algorithm.credit.repo``."""

    beta: float = option(
        CONTROLLED,
        MAGNITUDE,
        f"weight of the log-probability (nats){SIZE}. The values are REPO-R's: REPO's own were not to be had",
        "beta",
        controllers=(CONTROLLED,),
    )
    centred: bool = centred(True, "true")


@documented
@dataclasses.dataclass(frozen=True)
class REPOROptions(Options):
    """Options of REPO-R (arXiv 2603.11682), section ``algorithm.credit.repo_r``."""

    zeta: float = option(
        CONTROLLED,
        MAGNITUDE,
        f"weight of the log-probability (nats) in the factor{SIZE}",
        "zeta",
        "magnitude from 1e-4 to 0.05, halved or doubled",
        controllers=(CONTROLLED,),
    )
    centred: bool = centred(False, "false (for REPO: true)")


def _log_probs(options: REPOOptions | REPOROptions, batch: Batch) -> torch.Tensor:
    return batch.old_log_probs + batch.entropy if options.centred else batch.old_log_probs


def _requirements(value: float, centred: bool) -> Requirements:
    return Requirements(
        tensors=("old_log_probs", "entropy") if centred else ("old_log_probs",),
        without={"entropy": "{section}.centred=false, which takes the log-probability itself"} if centred else {},
        per_token=True,
        direction=(value > 0) - (value < 0),
    )


class REPO(Transform[REPOOptions]):
    """Takes from each advantage beta times the token's centred log-probability, so that likely tokens get less.

    Every token moves, those of groups without an advantage too. The log-probability is the old policy's.

    Metrics: `changed/mean` and `distance/mean`; `sign_flip/mean`, the share of policy tokens whose advantage changes
    its sign; with a controller `beta/mean` and `beta_target/mean` (nats).

    >>> import torch
    >>> A, l, H = torch.tensor([[1.0, -1.0]]), torch.tensor([[-3.0, -0.5]]), torch.tensor([[1.0, 1.0]])
    >>> A - 0.1 * (l + H)
    tensor([[ 1.2000, -1.0500]])
    """

    name = "repo"
    options_type = REPOOptions
    title = "REPO"
    source = "arXiv 2603.11682"
    formula = "A - beta * L,  L = l + H,  l = log pi_old"
    favours = "with beta > 0 tokens that were less likely than expected, in successes and failures alike"
    identity = {"beta": 0.0}
    cost = "one pass over the batch"
    status = "loop, hand-worked numbers, invariances"

    def requirements(self, options: REPOOptions) -> Requirements:
        """Log-probabilities, and the entropy to centre them."""
        return _requirements(options.beta, options.centred)

    def apply(self, options: REPOOptions, batch: Batch) -> Change:
        """Subtract the log-probability."""
        before = batch.advantages
        advantages = before - options.beta * _log_probs(options, batch)
        flipped = measure.share_of(batch, advantages.sign() * before.sign() < 0)
        return Change(advantages, metrics=measure.effect(batch, advantages) | {"sign_flip/mean": flipped})


class REPOR(Transform[REPOROptions]):
    """Multiplies each advantage by a factor linear in the token's log-probability, and never past 0.

    With zeta > 0 unlikely tokens of successes gain most, and unlikely tokens of failures lose least. The
    log-probability is the old policy's.

    Metrics: `changed/mean` and `distance/mean`; `at_cap/mean`, the share of policy tokens whose advantage would have
    passed 0 and is held there; with a controller `zeta/mean` and `zeta_target/mean` (nats).

    >>> import torch
    >>> A, l = torch.tensor([[1.0, -1.0]]), torch.tensor([[-3.0, -3.0]])
    >>> torch.where(A > 0, (A * (1 - 0.1 * l)).clamp(min=0), (A * (1 + 0.1 * l)).clamp(max=0))
    tensor([[ 1.3000, -0.7000]])
    """

    name = "repo_r"
    options_type = REPOROptions
    title = "REPO-R"
    source = "arXiv 2603.11682"
    formula = "max(A * (1 - zeta * l), 0) where A > 0,  min(A * (1 + zeta * l), 0) where A < 0,  l = log pi_old"
    favours = "with zeta > 0 unlikely tokens: more credit in successes, less blame in failures"
    identity = {"zeta": 0.0}
    cost = "one pass over the batch"
    status = "loop, hand-worked numbers, invariances, a run"

    def requirements(self, options: REPOROptions) -> Requirements:
        """Log-probabilities, and the entropy if they are to be centred."""
        return _requirements(options.zeta, options.centred)

    def apply(self, options: REPOROptions, batch: Batch) -> Change:
        """Multiply by the factor."""
        factor = 1 - options.zeta * batch.advantages.sign() * _log_probs(options, batch)
        advantages = batch.advantages * factor.clamp(min=0)
        held = measure.share_of(batch, (factor < 0) & (batch.advantages != 0))
        return Change(advantages, metrics=measure.effect(batch, advantages) | {"at_cap/mean": held})
