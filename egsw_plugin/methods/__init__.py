"""The family: bases, transforms and policy losses, one file a member.

The two tables are the list. A member stands in it as "module:object" and is imported when it is asked for, since they
are read in every process that imports verl. Members of other packages join through entry points (groups
``egsw_plugin.members`` and ``egsw_plugin.losses``), and one of a file is named PATH.py:OBJECT: see `registry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MemberError
from .registry import Registry, is_file

if TYPE_CHECKING:
    from .interface import Estimating, Member, PolicyLoss

# Names of verl 0.9.1's own, which no other package's member takes. The adapter adds those of the verl that runs.
VERL_ESTIMATORS = (
    "gae",
    "gdpo",
    "gpg",
    "grpo",
    "grpo_passk",
    "grpo_vectorized",
    "opo",
    "optimal_token_baseline",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
    "remax",
    "rloo",
    "rloo_vectorized",
    "tir_optimal_token_baseline",
)
VERL_LOSSES = (
    "bypass_mode",
    "cispo",
    "clip_cov",
    "dppo_kl",
    "dppo_tv",
    "dro",
    "geo_mean",
    "gpg",
    "gspo",
    "kl_cov",
    "sapo",
    "vanilla",
)
# Bases and transforms, by the name under which verl knows the estimator and a configuration the options.
MEMBERS: Registry[Estimating] = Registry(
    "egsw_plugin.members",
    {
        "egsw": "egsw_plugin.methods.egsw:EGSW",
        "gtpo": "egsw_plugin.methods.gtpo:GTPO",
        "grpo_s": "egsw_plugin.methods.grpo_s:GRPOS",
        "success_sign": "egsw_plugin.methods.success_sign:SuccessSign",
        "qae": "egsw_plugin.methods.qae:QAE",
        "sign_weight": "egsw_plugin.methods.sign_weight:SignWeight",
        "high_entropy": "egsw_plugin.methods.high_entropy:HighEntropy",
        "entropy_advantage": "egsw_plugin.methods.entropy_advantage:EntropyAdvantage",
        "repo": "egsw_plugin.methods.repo:REPO",
        "repo_r": "egsw_plugin.methods.repo:REPOR",
        "stare": "egsw_plugin.methods.stare:STARE",
        "ar": "egsw_plugin.methods.ar:AR",
        "batch_clip_cov": "egsw_plugin.methods.covariance:BatchClipCov",
        "batch_kl_cov": "egsw_plugin.methods.covariance:BatchKLCov",
        "archer": "egsw_plugin.methods.archer:Archer",
        "adaptive_clip": "egsw_plugin.methods.adaptive_clip:AdaptiveClip",
        "adaptive_entropy": "egsw_plugin.methods.adaptive_entropy:AdaptiveEntropy",
    },
    VERL_ESTIMATORS,
)
# Policy losses, by loss_mode.
LOSSES: Registry[PolicyLoss[Any]] = Registry(
    "egsw_plugin.losses",
    {
        "egsw": "egsw_plugin.methods.losses:EGSWLoss",
        "gtpo": "egsw_plugin.methods.losses:GTPOLoss",
        "grpo_s": "egsw_plugin.methods.losses:GRPOSLoss",
        "grpo_s_geometric": "egsw_plugin.methods.losses:GeometricGRPOSLoss",
        "egsw_plugin": "egsw_plugin.methods.losses:GenericLoss",
        "ce_gppo": "egsw_plugin.methods.ce_gppo:CEGPPO",
        "fipo": "egsw_plugin.methods.fipo:FIPO",
    },
    VERL_LOSSES,
)


def named(name: str) -> list[Member[Any]]:
    """The members of this name; a policy loss may have that of a base or transform. What one of a file is, its kind
    decides.

    Raises:
        MemberError: it cannot be loaded.

    >>> [type(member).__name__ for member in named("egsw")]
    ['EGSW', 'EGSWLoss']
    """
    members: list[Member[Any]] = []
    errors = []
    for registry in (MEMBERS, LOSSES):
        try:
            members += [registry[name]] if name in registry else []
        except MemberError as error:
            errors.append(error)
    if errors and not (members and is_file(name)):
        raise errors[0]
    return members


__all__ = ["LOSSES", "MEMBERS", "Registry", "named"]
