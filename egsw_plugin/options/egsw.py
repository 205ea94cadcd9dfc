"""Options of EGSW."""

from __future__ import annotations

import dataclasses

from .checks import estimator_name, finite, flag, one_of, positive
from .declare import Options, documented, option


@documented
@dataclasses.dataclass(frozen=True)
class EGSWOptions(Options):
    """Options of EGSW (arXiv 2503.22456), section ``algorithm.egsw``.

    The paper does not publish its values of alpha and P and calls the method sensitive to them: the defaults of
    `alpha` and `temperature` are ours.

    >>> EGSWOptions().describe()
    'base=grpo alpha=0.5 temperature=3.0 granularity=step scope=group denominator=alive ...'
    """

    base: str = option(
        "grpo",
        estimator_name,
        "estimator registered in verl that its V1 trainer can feed (not gdpo, remax, optimal_token_baseline, "
        "tir_optimal_token_baseline); supplies A. gae needs critic.enable=True",
        "A",
        "GRPO",
    )
    alpha: float = option(
        0.5, finite, "weight of the entropy (nats) in the logit; any finite number", "alpha", "not public"
    )
    temperature: float = option(3.0, positive, "temperature of the softmax over responses; > 0", "P", "not public")
    granularity: str = option(
        "step",
        one_of("step", "trajectory"),
        "`step`: one logit a policy token; `trajectory`: one logit a response, A_i + alpha * mean_t H[i, t]",
        paper="both",
    )
    scope: str = option(
        "group",
        one_of("group", "batch"),
        "the responses that the softmax runs over: those of a `group`, or of the `batch`",
        paper="group",
    )
    denominator: str = option(
        "alive",
        one_of("alive", "all"),
        "`alive`: a response takes part up to its last policy token; `all`: it stays in the sum with H = 0 and its own "
        "A, which must be constant over the response. No difference with granularity=trajectory",
    )
    normalize: str = option(
        "mean_one",
        one_of("mean_one", "sum_one"),
        "`mean_one`: weights times the number of responses in the denominator, so that a uniform weight is 1; "
        "`sum_one`: the literal formula, which divides the step size by about the group size",
        paper="sum_one",
    )
    entropy: str = option(
        "full",
        one_of("full", "surprisal"),
        "`full`: of the old policy over the whole vocabulary, in nats; `surprisal`: -old_log_prob of the sampled token",
        "H",
        "full",
    )
    channel: str = option(
        "advantage",
        one_of("advantage", "loss"),
        "`advantage`: weights fold into the advantages; `loss`: advantages stay the base's and policy loss egsw "
        "(actor_rollout_ref.actor.policy_loss.loss_mode=egsw) multiplies the weights in",
    )
    weigh_kl: bool = option(
        False,
        flag,
        "with channel=loss: the KL loss of a token (actor_rollout_ref.actor.use_kl_loss=True) is weighed like its "
        "policy loss",
    )

    def cautions(self) -> list[str]:
        """What stands in for the entropy."""
        if self.entropy == "full":
            return []
        return [
            "entropy=surprisal weighs by -log_prob of the sampled tokens, whose expectation is the entropy: a noisy "
            "stand-in for it; the metrics are named egsw/surprisal/mean and so on"
        ]
