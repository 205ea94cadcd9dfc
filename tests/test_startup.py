"""Refusals before the first rollout, through verl's own configuration and its own validation.

A bad option that shows after ninety seconds and a rollout costs a user an hour of a cluster; one that never shows costs
weeks. Maps to verl_adapter/startup.py and entry.py. `test_refused_before_ray_starts` runs verl's real entry point.
"""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numba
import pytest
import torch
import verl
import verl.utils.config
from batches import random_batch
from forks import forked
from launches import COMPLETE, configuration
from verl.trainer.ppo import core_algos

from egsw_plugin.errors import BridgeError, OptionError
from egsw_plugin.kernels import compiled, loops
from egsw_plugin.verl_adapter import contract, startup

LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"
BYPASS = "algorithm.rollout_correction.bypass_mode"
ROLLOUT = "actor_rollout_ref.rollout"
PROBE = "import verl, sys; from verl.utils.config import validate_config"


def validate(*overrides):
    """What `python -m verl.trainer.main_ppo` does before it starts Ray."""
    verl.utils.config.validate_config(configuration(*overrides), use_reference_policy=False, use_critic=False)


EGSW = "algorithm.adv_estimator=egsw"


@pytest.mark.parametrize(
    "overrides,key,fix",
    [
        (["+algorithm.egsw.alhpa=0.1"], "algorithm.egsw.alhpa=0.1", "did you mean 'alpha'?"),
        (["+algorithm.egsw.window=0.1"], "algorithm.egsw.window=0.1", "the options are base, alpha"),
        (["+algorithm.egsw.temperature=0"], "algorithm.egsw.temperature=0", "finite number > 0"),
        (["+algorithm.egsw.temperature=-1"], "algorithm.egsw.temperature=-1", "finite number > 0"),
        (["+algorithm.egsw.temperature=null"], "algorithm.egsw.temperature=None", "finite number > 0"),
        (["+algorithm.egsw.alpha=inf"], "algorithm.egsw.alpha=inf", "finite number"),
        (["+algorithm.egsw.alpha=nan"], "algorithm.egsw.alpha=nan", "finite number"),
        (["+algorithm.egsw.alpha=true"], "algorithm.egsw.alpha=True", "finite number"),
        (["+algorithm.egsw.alpha=half"], "algorithm.egsw.alpha='half'", "finite number"),
        (["+algorithm.egsw.base=grop"], "algorithm.egsw.base='grop'", "gpg, grpo, grpo_passk"),
        (["+algorithm.egsw.base=egsw"], "algorithm.egsw.base='egsw'", "use a base estimator registered in verl"),
        (["+algorithm.egsw.granularity=token"], "algorithm.egsw.granularity='token'", "step, trajectory"),
        (["+algorithm.egsw.scope=groups"], "algorithm.egsw.scope='groups'", "did you mean 'group'?"),
        (["+algorithm.egsw.denominator=dead"], "algorithm.egsw.denominator='dead'", "alive, all"),
        (["+algorithm.egsw.normalize=one"], "algorithm.egsw.normalize='one'", "mean_one, sum_one"),
        (["+algorithm.egsw.entropy=half"], "algorithm.egsw.entropy='half'", "full, surprisal"),
        (["+algorithm.egsw.channel=both"], "algorithm.egsw.channel='both'", "advantage, loss"),
        (["+algorithm.egsw=0.5"], "algorithm.egsw=0.5", "use a section of options"),
        (["+algorithm.egws.alpha=0.1"], "algorithm.egws={'alpha': 0.1}", "did you mean algorithm.egsw?"),
        (["+algorithm.EGSW.alpha=0.1"], "algorithm.EGSW={'alpha': 0.1}", "did you mean algorithm.egsw?"),
        (["+algorithm.alpha=0.1"], "algorithm.alpha=0.1", "did you mean algorithm.egsw.alpha?"),
        (["+algorithm.egsw.base=remax"], "algorithm.egsw.base='remax'", "use a base estimator registered in verl"),
        (
            ["+algorithm.egsw.base=gae", "critic.enable=True", "algorithm.use_pf_ppo=True"],
            "algorithm.use_pf_ppo=True",
            "set it to False",
        ),
        (["+egsw.alpha=0.1"], "egsw={'alpha': 0.1}", "belong under algorithm.egsw"),
        (["+actor_rollout_ref.egsw.alpha=0.1"], "actor_rollout_ref.egsw", "belong under algorithm.egsw"),
        (
            ["algorithm.rollout_correction.bypass_mode=True"],
            "algorithm.rollout_correction.bypass_mode=True",
            "algorithm.egsw.entropy=surprisal",
        ),
        (
            [f"{BYPASS}=True", "+algorithm.egsw.entropy=surprisal", f"{ROLLOUT}.calculate_log_probs=False"],
            f"{ROLLOUT}.calculate_log_probs=False",
            "egsw needs old_log_probs, which verl then does not compute; set it to True",
        ),
        (["trainer.use_v1=False"], "trainer.use_v1=False", "set trainer.use_v1=True, or patch verl (patches/apply.py)"),
        (["+algorithm.egsw.base=gae"], "algorithm.egsw.base='gae'", "set critic.enable=True"),
        (
            ["+algorithm.egsw.base=gae", "critic.enable=True", "+algorithm.egsw.denominator=all"],
            "algorithm.egsw.denominator='all'",
            "use alive",
        ),
        (
            ["+algorithm.egsw={base: reinforce_plus_plus, denominator: all}", "algorithm.gamma=0.9"],
            "algorithm.egsw.denominator='all'",
            "reinforce_plus_plus's advantages vary within a response; use alive",
        ),
        (
            ["+algorithm.egsw={base: reinforce_plus_plus, denominator: all}", "algorithm.use_kl_in_reward=True"],
            "algorithm.egsw.denominator='all'",
            "reinforce_plus_plus's advantages vary within a response; use alive",
        ),
        (
            ["+algorithm.egsw={base: gtpo, denominator: all}"],
            "algorithm.egsw.denominator='all'",
            "gtpo's advantages vary within a response; use alive",
        ),
        (["algorithm.norm_adv_by_std_in_grpo=1"], "algorithm.norm_adv_by_std_in_grpo=1", "use true or false"),
        (["algorithm.gamma='0.9'"], "algorithm.gamma='0.9'", "use a finite number, not text"),
        (
            ["+algorithm.egsw={base: rloo_vectorized, scope: batch}", "actor_rollout_ref.rollout.n=1"],
            "actor_rollout_ref.rollout.n=1",
            "set it to 2 or more",
        ),
        (
            ["+algorithm.egsw={base: grpo_passk, scope: batch}", "actor_rollout_ref.rollout.n=1"],
            "actor_rollout_ref.rollout.n=1",
            "base grpo_passk compares responses; set it to 2 or more",
        ),
        (["+algorithm.egsw.channel=loss"], "algorithm.egsw.channel='loss'", f"set {LOSS}=egsw"),
        ([f"{LOSS}=egsw"], f"{LOSS}='egsw'", "algorithm.egsw.channel=loss"),
        (["+algorithm.egsw.weigh_kl=True"], "algorithm.egsw.weigh_kl=True", "algorithm.egsw.channel=loss only"),
        (
            ["+algorithm.egsw={weigh_kl: true, channel: loss}", f"{LOSS}=egsw"],
            "algorithm.egsw.weigh_kl=True",
            "set actor_rollout_ref.actor.use_kl_loss=True",
        ),
        (["+algorithm.egsw={weigh_kl: yes}"], "algorithm.egsw.weigh_kl='yes'", "true or false"),
    ],
)
def test_refused_with_key_value_and_fix(overrides, key, fix):
    with pytest.raises(OptionError) as caught:
        validate(EGSW, *overrides)
    assert key in str(caught.value)
    assert fix in str(caught.value)


MINI_BATCH = "actor_rollout_ref.actor.ppo_mini_batch_size"
SEVEN = ["actor_rollout_ref.rollout.n=7", "data.train_batch_size=128", f"{MINI_BATCH}=128"]
DYNAMIC = ["actor_rollout_ref.actor.use_dynamic_bsz=True", "critic.use_dynamic_bsz=True"]
ULYSSES = "ulysses_sequence_parallel_size"
SPLIT = [f"actor_rollout_ref.actor.{ULYSSES}=2", "actor_rollout_ref.model.use_remove_padding=True"]


@pytest.mark.parametrize(
    "overrides,fix",
    [
        (
            [*SEVEN, "trainer.n_gpus_per_node=6"],
            f"{MINI_BATCH}=128: 128 prompts of actor_rollout_ref.rollout.n=7 are 896 rows, which 6 workers "
            "(trainer.nnodes=1 times trainer.n_gpus_per_node=6) cannot share equally; set it to a multiple of 6, or "
            "trainer.n_gpus_per_node to 1 or 2 or 4 or 7 or 8",
        ),
        ([*SEVEN, "trainer.nnodes=3"], "which 24 workers (trainer.nnodes=3 times trainer.n_gpus_per_node=8)"),
        ([*SEVEN, *SPLIT, "trainer.n_gpus_per_node=6"], "which 3 workers"),
        (
            [*SEVEN, "trainer.n_gpus_per_node=8", "critic.enable=True", "critic.ppo_mini_batch_size=4"],
            "critic.ppo_mini",
        ),
    ],
)
def test_a_mini_batch_that_workers_cannot_share_is_refused(overrides, fix):
    """verl's own validation lets it pass with dynamic batches, and fails in the first update."""
    for estimator in (EGSW, "algorithm.adv_estimator=grpo"):
        with pytest.raises(OptionError) as caught:
            validate(estimator, *DYNAMIC, *overrides)
        assert fix in str(caught.value)
        validate(estimator, *DYNAMIC, *overrides, "trainer.val_only=True")


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.n_gpus_per_node=7"],
        ["trainer.n_gpus_per_node=8", *SPLIT],
        ["trainer.n_gpus_per_node=14", *SPLIT],
        ["trainer.n_gpus_per_node=14", SPLIT[1], f"actor_rollout_ref.actor.fsdp_config.{ULYSSES}=2"],
        ["trainer.n_gpus_per_node=8", "critic.enable=False", "critic.ppo_mini_batch_size=4"],
    ],
)
def test_a_mini_batch_that_workers_can_share_is_not_refused(overrides):
    validate(EGSW, *SEVEN, *DYNAMIC, *overrides)


@pytest.mark.parametrize("name", ["EGSW", "egws", "eqsw"])
def test_a_misspelt_estimator_is_refused(name):
    with pytest.raises(OptionError, match=f"algorithm.adv_estimator='{name}'.*did you mean 'egsw'"):
        validate(f"algorithm.adv_estimator={name}")


SOFT = """
import dataclasses
from egsw_plugin.methods.interface import PolicyLoss
from egsw_plugin.methods.rules import Rule
from egsw_plugin.options import Options, option
from egsw_plugin.options.checks import whole

@dataclasses.dataclass(frozen=True)
class SoftOptions(Options):
    power: int = option(2, whole(1, 4), "a power")

class Soft(PolicyLoss[SoftOptions]):
    name = "soft"
    options_type = SoftOptions

    def rule(self, options):
        return Rule()
"""


@pytest.mark.parametrize(
    "key,fix",
    [
        ("algorithm.power", "did you mean algorithm.credit.soft.power?"),
        ("actor_rollout_ref.actor.policy_loss.power", "did you mean algorithm.credit.soft.power?"),
        ("algorithm.soft.power", "these options belong under algorithm.credit.soft."),
        ("actor_rollout_ref.actor.policy_loss.soft.power", "these options belong under algorithm.credit.soft."),
        ("algorithm.credit.soft.pwer", "did you mean 'power'?"),
    ],
)
def test_a_misplaced_option_of_a_files_member_is_refused(tmp_path, key, fix):
    (tmp_path / "soft.py").write_text(SOFT)
    chosen = ["algorithm.adv_estimator=grpo", f"{LOSS}={tmp_path}/soft.py:Soft"]
    with pytest.raises(OptionError) as caught:
        validate(*chosen, f"+{key}=3")
    assert fix in str(caught.value)
    assert startup.check(configuration(*chosen, "+algorithm.credit.soft.power=3")).loss.options.power == 3


def test_our_loss_without_our_estimator_is_refused():
    needs = r"needs algorithm.adv_estimator=egsw and \+algorithm.egsw.channel=loss; algorithm.adv_estimator is 'grpo'"
    with pytest.raises(OptionError, match=needs):
        validate("algorithm.adv_estimator=grpo", f"{LOSS}=egsw")


KL = "actor_rollout_ref.actor.use_kl_loss"

AGGREGATION = "actor_rollout_ref.actor.loss_agg_mode"
CLIP = "actor_rollout_ref.actor.clip_ratio"
HIGH = f"{CLIP}_high=0.28"
OVERLONG = "+reward.reward_kwargs.overlong_buffer_cfg={enable: true, len: 8}"


@pytest.mark.parametrize(
    "overrides,key,fix",
    [
        (["+algorithm.gtpo.alpha3=1"], "algorithm.gtpo.alpha3=1", "did you mean 'alpha"),
        (["+algorithm.gtpo.beta1=1"], "algorithm.gtpo.beta1=1", "that is algorithm.grpo_s.beta1"),
        (
            ["+algorithm.gtpo.alpha1=nan"],
            "algorithm.gtpo.alpha1=nan",
            "use 0, or a number of either sign between 1e-15 and 1e+15",
        ),
        (["+algorithm.gtpo.alpha2=high"], "algorithm.gtpo.alpha2='high'", "use 0, or a number"),
        (["+algorithm.gtpo.norm_set=own"], "algorithm.gtpo.norm_set='own'", "all_with_zeros, own_set, joint, none"),
        (["+algorithm.gtpo.norm_scope=all"], "algorithm.gtpo.norm_scope='all'", "group, batch"),
        (["+algorithm.gtpo.entropy_scope=batches"], "algorithm.gtpo.entropy_scope=", "did you mean 'batch'"),
        (["+algorithm.gtpo.failure=none"], "algorithm.gtpo.failure='none'", "shaped, zero, unbased"),
        (["+algorithm.gtpo.mean=harmonic"], "algorithm.gtpo.mean='harmonic'", "arithmetic, geometric"),
        (["+algorithm.gtpo.std=biased"], "algorithm.gtpo.std='biased'", "population, sample"),
        (["+algorithm.gtpo.eps=-1"], "algorithm.gtpo.eps=-1", ">= 0"),
        (["+algorithm.gtpo.entropy_floor=0"], "algorithm.gtpo.entropy_floor=0", ">= 1e-30"),
        (["+algorithm.gtpo.entropy_clip=0.2"], "algorithm.gtpo.entropy_clip=0.2", "[low, high]"),
        (["+algorithm.gtpo.entropy_clip=[0.3,0.2]"], "algorithm.gtpo.entropy_clip=[0.3, 0.2]", "low < high"),
        (["+algorithm.gtpo.entropy_clip=[-1,0.2]"], "algorithm.gtpo.entropy_clip=[-1, 0.2]", "0 <= low"),
        (["+algorithm.gtpo.entropy_clip=[1,2,3]"], "algorithm.gtpo.entropy_clip=[1, 2, 3]", "[low, high]"),
        (["+algorithm.gtpo.success=1"], "algorithm.gtpo.success=1", "such as acc"),
        (["+algorithm.gtpo.threshold=true"], "algorithm.gtpo.threshold=True", "finite number"),
        (["+algorithm.gtpo.unmixed=skip"], "algorithm.gtpo.unmixed='skip'", "drop, keep"),
        (["+algorithm.gtpo.overlong=true"], "algorithm.gtpo.overlong=True", "use a section of options"),
        (["+algorithm.gtpo.overlong.enable=1"], "algorithm.gtpo.overlong.enable=1", "true or false"),
        (["+algorithm.gtpo.overlong.gamma1=0.5"], "algorithm.gtpo.overlong.gamma1=0.5", "> 0.5 and < 1"),
        (["+algorithm.gtpo.overlong.gama1=0.6"], "algorithm.gtpo.overlong.gama1=0.6", "did you mean 'gamma1'"),
        (["+algorithm.gtp.alpha1=1"], "algorithm.gtp={'alpha1': 1}", "did you mean algorithm.gtpo?"),
        (["+algorithm.alpha1=1"], "algorithm.alpha1=1", "did you mean algorithm.gtpo.alpha1?"),
        (["+algorithm.gamma1=0.6"], "algorithm.gamma1=0.6", "did you mean algorithm.gtpo.overlong.gamma1?"),
        (["+critic.gtpo.alpha1=1"], "critic.gtpo", "belong under algorithm.gtpo"),
        (["+reward.gtpo.alpha1=1"], "reward.gtpo", "belong under algorithm.gtpo"),
        (["+gtpo.alpha1=1"], "gtpo={'alpha1': 1}", "belong under algorithm.gtpo"),
        ([f"{LOSS}=gpto"], f"{LOSS}='gpto'", "did you mean 'gtpo'?"),
        ([f"{LOSS}=grpo-s"], f"{LOSS}='grpo-s'", "did you mean 'grpo_s'?"),
        ([f"{LOSS}=egsw"], f"{LOSS}='egsw'", "algorithm.adv_estimator=egsw and +algorithm.egsw.channel=loss"),
        (["trainer.use_v1=False"], "trainer.use_v1=False", "set trainer.use_v1=True, or patch verl (patches/apply.py)"),
        ([f"{BYPASS}=True"], f"{BYPASS}=True", "set it to False"),
    ],
)
def test_gtpo_is_refused_with_key_value_and_fix(overrides, key, fix):
    with pytest.raises(OptionError) as caught:
        validate("algorithm.adv_estimator=gtpo", *overrides)
    assert key in str(caught.value)
    assert fix in str(caught.value)
    assert "surprisal" not in str(caught.value)  # an option of EGSW alone


@pytest.fixture
def warnings_of(capsys, monkeypatch):
    """What the plugin warns of as the trainer is built."""
    from egsw_plugin import console

    def collect(*overrides):
        monkeypatch.setattr(console, "_warned", set())
        capsys.readouterr()
        startup.check_trainer(configuration(*overrides), contract.TRAINER)
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("[egsw] warning")]

    return collect


@pytest.mark.parametrize(
    "overrides,fixes",
    [
        (["gtpo"], [f"{LOSS}=gtpo", HIGH]),
        (["gtpo", f"{LOSS}=gtpo", f"{AGGREGATION}=seq-mean-token-mean"], [f"{AGGREGATION}=token-mean", HIGH]),
        (["grpo_s"], [f"{LOSS}=grpo_s", f"{AGGREGATION}=seq-mean-token-mean", HIGH]),
        (["grpo_s", f"{LOSS}=grpo_s", f"{CLIP}_high=0.28"], [f"{AGGREGATION}=seq-mean-token-mean"]),
        (["grpo_s", f"{LOSS}=gtpo", f"{AGGREGATION}=seq-mean-token-mean"], [f"{LOSS}=grpo_s", HIGH]),
        (["grpo", f"{LOSS}=grpo_s"], [f"{AGGREGATION}=seq-mean-token-mean", HIGH]),
        (["gtpo", f"{LOSS}=gtpo", f"{KL}=True"], [f"{KL}=False", HIGH]),
        # GSPO's bounds, for the ratio of a response, and CISPO's, whose loss is another.
        (["gtpo", f"{LOSS}=gtpo", f"{CLIP}_low=3e-4", f"{CLIP}_high=4e-4"], [f"{CLIP}_low=0.2", HIGH]),
        (["grpo", f"{LOSS}=gtpo", f"{CLIP}_low=10"], [f"{CLIP}_low=0.2", HIGH]),
    ],
)
def test_a_pairing_that_is_not_the_papers_gets_one_warning(warnings_of, overrides, fixes):
    name, *rest = overrides
    (warning,) = warnings_of(f"algorithm.adv_estimator={name}", *rest)
    assert "is not the objective of arXiv 2508.04349" in warning
    assert warning.endswith(f"for that set {' '.join(fixes)}")


@pytest.mark.parametrize(
    "overrides",
    [
        ["grpo"],
        ["grpo", f"{LOSS}=gtpo"],
        ["egsw"],
        ["egsw", f"{LOSS}=gtpo"],
        ["gtpo", f"{LOSS}=gtpo"],
        ["grpo_s", f"{LOSS}=grpo_s", f"{AGGREGATION}=seq-mean-token-mean"],
        ["grpo_s", f"{LOSS}=grpo_s_geometric", f"{AGGREGATION}=seq-mean-token-mean"],
    ],
)
def test_what_is_as_it_should_be_gets_no_warning(warnings_of, overrides):
    name, *rest = overrides
    assert warnings_of(f"algorithm.adv_estimator={name}", *rest) == []


@pytest.mark.parametrize(
    "override,text",
    [
        ("+algorithm.gtpo.norm_set=own_set", "the sign of the reward is lost"),
        ("+algorithm.gtpo={norm_set: own_set, failure: zero}", "norm_set=own_set changes nothing"),
        ("+algorithm.gtpo.unmixed=keep", "unit variance"),
        ("algorithm.use_kl_in_reward=True", "so the penalty has no effect"),
        ("algorithm.norm_adv_by_std_in_grpo=False", "has no effect on gtpo"),
        ("+algorithm.gtpo.overlong.gamma1=0.6", "no effect without overlong.enable=True"),
        ("+algorithm.gtpo={norm_set: none, std: sample}", "so std and eps have no effect"),
        ("critic.enable=True", "gtpo does not read its values; set critic.enable=False"),
        (OVERLONG, "set +algorithm.gtpo.success=acc"),
        ("reward.reward_model.enable=True", "scores are graded, and gtpo takes those above algorithm.gtpo.threshold"),
    ],
)
def test_what_has_no_effect_or_loses_something_is_warned_of(warnings_of, override, text):
    (warning,) = warnings_of("algorithm.adv_estimator=gtpo", f"{LOSS}=gtpo", override)
    assert text in warning


def test_a_length_penalty_in_the_reward_does_not_reach_the_advantages(warnings_of):
    overrides = [f"{LOSS}=gtpo", OVERLONG, "+algorithm.gtpo.success=acc"]
    (warning,) = warnings_of("algorithm.adv_estimator=gtpo", *overrides)
    assert "does not reach the advantages" in warning and "algorithm.gtpo.overlong.enable=True" in warning


def test_a_reward_model_beside_a_field_that_decides_success_gets_no_warning(warnings_of):
    overrides = [f"{LOSS}=gtpo", "reward.reward_model.enable=True", "+algorithm.gtpo.success=acc"]
    assert warnings_of("algorithm.adv_estimator=gtpo", *overrides) == []


@pytest.mark.parametrize("loss", ["geo_mean", "grpo_s", "grpo_s_geometric"])
@pytest.mark.parametrize("name", ["egsw", "gtpo", "high_entropy", "ar"])
def test_token_credit_that_a_loss_averages_away_is_refused(name, loss):
    fix = f"use {'gtpo' if name == 'gtpo' else 'vanilla'}, or gspo"
    with pytest.raises(OptionError, match=f"{LOSS}='{loss}'.*{name} gives each token its own, which is lost; {fix}"):
        validate(f"algorithm.adv_estimator={name}", f"{LOSS}={loss}")
    validate(EGSW, "+algorithm.egsw.granularity=trajectory", f"{LOSS}={loss}")
    validate("algorithm.adv_estimator=grpo_s", f"{LOSS}={loss}")


def test_gspo_has_nothing_to_warn_of(warnings_of):
    """One ratio a response, but each token's gradient is its own advantage's."""
    assert warnings_of(EGSW, f"{LOSS}=gspo") == []


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["+algorithm.egsw.alpha=0", "+algorithm.egsw.temperature=1e9"],
        ["+algorithm.egsw.alpha=-2"],
        ["+algorithm.egsw.base=rloo"],
        ["+algorithm.egsw.base=gae", "critic.enable=True"],
        ["+algorithm.egsw={base: reinforce_plus_plus, denominator: all}"],
        ["+algorithm.egsw.base=reinforce_plus_plus", "algorithm.gamma=0.9"],
        ["+algorithm.egsw={base: grpo, denominator: all}", "algorithm.gamma=0.9"],
        ["+algorithm.egsw.entropy=surprisal", "algorithm.rollout_correction.bypass_mode=True"],
        ["+algorithm.egsw.channel=loss", f"{LOSS}=egsw"],
    ],
)
def test_what_can_work_is_not_refused(overrides):
    validate(EGSW, *overrides)


def test_a_critic_that_nothing_reads_is_warned_of(warnings_of):
    (warning,) = warnings_of(EGSW, "critic.enable=True")
    assert warning.endswith("egsw does not read its values; set +algorithm.egsw.base=gae, or critic.enable=False")
    assert warnings_of(EGSW, "critic.enable=True", "+algorithm.egsw.base=gae") == []


def test_options_of_an_estimator_that_is_not_chosen_are_warned_of(warnings_of):
    (warning,) = warnings_of("algorithm.adv_estimator=grpo", "+algorithm.egsw.alpha=0.25")
    assert "algorithm.egsw is set, but algorithm.adv_estimator is grpo" in warning


def test_loops_are_compiled_without_a_word_about_their_batch(warnings_of):
    assert warnings_of(EGSW, "+algorithm.egsw={temperature: auto, effective_share: 0.3}") == []


@pytest.mark.parametrize("loop", ["egsw", "measure_mask"])
def test_a_loop_that_numba_cannot_compile_is_said_and_left_to_torch(warnings_of, monkeypatch, loop):
    """As with another numba than the one that was tried, which compiles the smallest of them all the same."""
    monkeypatch.setattr(compiled, "_REFUSED", [])
    monkeypatch.setattr(loops, loop, numba.njit(lambda *args: object() + args))
    (warning,) = warnings_of(EGSW)
    assert "the advantage step runs in torch, to the same result, slower and in more memory: TypingError" in warning
    rewards, mask, index, entropy = random_batch(1)
    advantages, _ = core_algos.get_adv_estimator_fn("egsw")(rewards, mask, index, entropy=entropy)
    monkeypatch.undo()
    assert torch.allclose(advantages, core_algos.get_adv_estimator_fn("egsw")(rewards, mask, index, entropy=entropy)[0])


def test_a_members_own_loop_that_cannot_be_compiled_says_nothing_of_ours(warnings_of, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_LOOP)
    assert warnings_of(f"algorithm.adv_estimator={path}:Own") == []
    assert compiled.attempt()[0] is not None


OWN_LOOP = """
import numba
from egsw_plugin.methods.interface import Change, Requirements, Transform
from egsw_plugin.options import NoOptions

class Own(Transform[NoOptions]):
    name = "own"
    options_type = NoOptions

    def requirements(self, options):
        return Requirements()

    def apply(self, options, batch):
        return Change(numba.njit(lambda x: object() + x)(batch.advantages.numpy()))
"""


@pytest.mark.parametrize("name", ["egsw", "gtpo", "grpo_s"])
def test_one_response_a_prompt_is_refused_where_nothing_would_happen(name):
    with pytest.raises(OptionError, match=r"actor_rollout_ref.rollout.n=1: .*2 or more"):
        validate(f"algorithm.adv_estimator={name}", "actor_rollout_ref.rollout.n=1")


def test_one_response_a_prompt_can_be_weighed_over_the_batch():
    validate(EGSW, "actor_rollout_ref.rollout.n=1", "+algorithm.egsw.scope=batch")


@pytest.mark.parametrize("base,warned", [("grpo", True), ("opo", True), ("reinforce_plus_plus", False)])
def test_one_response_a_prompt_without_a_baseline_is_warned_of(warnings_of, base, warned):
    weighed = f"+algorithm.egsw={{scope: batch, base: {base}}}"
    said = warnings_of(EGSW, "actor_rollout_ref.rollout.n=1", weighed)
    fix = "algorithm.egsw.base=gae with critic.enable=True"
    assert [f"rollout.n=1: {base} has no other response" in line and fix in line for line in said] == [True] * warned


def test_a_policy_loss_is_not_an_estimator():
    with pytest.raises(OptionError, match=r"this is a policy loss; set .*loss_mode=grpo_s_geometric"):
        validate("algorithm.adv_estimator=grpo_s_geometric")


DISTILLED = ["distillation.enabled=True", "distillation.distillation_loss.use_task_rewards=False"]


@pytest.mark.parametrize("overrides", [[EGSW], ["algorithm.adv_estimator=grpo", f"{LOSS}=gtpo"]])
def test_distillation_that_throws_the_policy_loss_away_is_refused(overrides):
    with pytest.raises(OptionError, match=r"distillation_loss.use_task_rewards=False: .*set it to True"):
        startup.check(configuration(*overrides, *DISTILLED))
    startup.check(configuration(*overrides, DISTILLED[0]))
    startup.check(configuration("algorithm.adv_estimator=grpo", *DISTILLED))


@pytest.mark.parametrize(
    "overrides,key",
    [
        ([EGSW], "algorithm.adv_estimator='egsw'"),
        (["algorithm.adv_estimator=grpo", "+algorithm.record.every=5"], "algorithm.record.every=5"),
        (["algorithm.adv_estimator=grpo", f"{LOSS}=ce_gppo"], f"{LOSS}='ce_gppo'"),
    ],
)
def test_verls_experimental_trainers_are_no_v1_trainers(overrides, key):
    """They derive from the old one, do not call its constructor, and leave trainer.use_v1 True."""
    from verl.experimental.one_step_off_policy.ray_trainer import OneStepOffRayTrainer

    config = configuration(*overrides, "actor_rollout_ref.hybrid_engine=False")
    with pytest.raises(OptionError, match=f"{key}: .*OneStepOffRayTrainer.*start verl.trainer.main_ppo"):
        OneStepOffRayTrainer(config, None, {}, None)
    startup.check(config)


@pytest.mark.parametrize("estimator", ["grpo", "gtpo"])
@pytest.mark.parametrize("loss", ["egsw_plugin", "ce_gppo", "fipo"])
def test_options_of_a_policy_loss_do_not_travel_in_the_old_trainer(monkeypatch, estimator, loss):
    """The worker would miss them after the first rollout, on a patched verl too."""
    monkeypatch.setattr(startup, "_patched", lambda: True)
    given = [f"algorithm.adv_estimator={estimator}", f"{LOSS}={loss}"]
    with pytest.raises(OptionError, match=rf"{LOSS}='{loss}': verl's old trainer .*set trainer.use_v1=True"):
        validate(*given, "trainer.use_v1=False")
    validate(*given)
    validate(f"algorithm.adv_estimator={estimator}", f"{LOSS}=gtpo", "trainer.use_v1=False")  # it has none


def python(code, **environment):
    """Run code in a fresh process, as verl starts its own."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


def test_refused_before_ray_starts(tmp_path):
    """verl's real entry point, as in a launcher."""
    command = [
        sys.executable,
        "-m",
        "verl.trainer.main_ppo",
        EGSW,
        "+algorithm.egsw.alhpa=1",
        f"hydra.run.dir={tmp_path}",
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode != 0
    assert "algorithm.egsw.alhpa=1: there is no such option; did you mean 'alpha'?" in run.stderr
    assert "ray init kwargs" not in run.stdout


def test_import_of_verl_brings_in_nothing_but_the_plugin():
    """What the plugin costs a process that does not need it: no module of verl, torch or vLLM that was not there."""
    code = """
import sys, verl
from importlib.metadata import entry_points
without = set(sys.modules)
for plugin in entry_points(group="verl.plugins"):  # as verl does at the end of its import
    plugin.load()
print(*sorted(set(sys.modules) - without))
"""
    extra = set(python(code, VERL_USE_EXTERNAL_PLUGINS="none").stdout.split())
    assert "egsw_plugin.verl_adapter" in extra
    assert not [name for name in extra if name.split(".")[0] in ("verl", "torch", "vllm", "ray", "transformers")]


@pytest.mark.parametrize("early", ["", "import verl.trainer.ppo.ray_trainer, verl.trainer.ppo.v1.trainer_base"])
def test_every_hook_acts_whether_verl_imports_its_module_before_the_plugin_or_after(tmp_path, early):
    (tmp_path / "early.py").write_text(early)
    code = """
import verl
from verl.trainer.ppo import core_algos, ray_trainer
from verl.trainer.ppo.v1 import trainer_base
from verl.utils import config
from verl.workers.utils import losses
trainer = trainer_base.PPOTrainer
for part in (
    core_algos.ADV_ESTIMATOR_REGISTRY["egsw"].__wrapped__,  # under torch.no_grad
    *(core_algos.POLICY_LOSS_REGISTRY["gtpo"], config.validate_config),
    *(trainer.__init__, trainer._compute_advantage, trainer._save_checkpoint, trainer._load_checkpoint),
    *(trainer_base.compute_advantage_for_multi_trajectories, ray_trainer.RayPPOTrainer.__init__),
    *(losses.ppo_loss, losses.kl_penalty),
):
    assert part.__globals__["__name__"].startswith("egsw_plugin.verl_adapter."), part
print("all are ours")
"""
    run = python(code, PYTHONPATH=str(tmp_path), VERL_USE_EXTERNAL_MODULES="early")
    assert "all are ours" in run.stdout, run.stderr


def test_what_took_verls_loss_by_name_before_the_plugin_calls_ours(tmp_path):
    """verl imports the packages of VERL_USE_EXTERNAL_MODULES before plugins, and one may import verl's workers."""
    (tmp_path / "early.py").write_text(
        "import sys, verl.workers.engine_workers\nassert 'egsw_plugin.entry' not in sys.modules\n"
    )
    code = """
import verl
from verl.trainer.distillation import losses as distillation
from verl.workers import engine_workers
from verl.workers.utils import losses
from egsw_plugin import doctor
assert engine_workers.ppo_loss is distillation.ppo_loss is losses.ppo_loss
print(doctor.worker_bridge())
engine_workers.ppo_loss = losses.ppo_loss.__wrapped__
print(doctor.worker_bridge())
"""
    run = python(code, PYTHONPATH=str(tmp_path), VERL_USE_EXTERNAL_MODULES="early")
    assert run.returncode == 0, run.stderr
    sound, replaced = run.stdout.splitlines()[-2:]
    assert "status='ok'" in sound and "verl.workers.engine_workers.ppo_loss" in sound
    assert "verl.workers.engine_workers.ppo_loss is verl.workers.utils.losses.ppo_loss" in replaced


def test_a_plugin_that_fails_to_load_says_why(tmp_path):
    """verl swallows the exception; the user must see it, and the run must not start."""
    (tmp_path / "wrapt.py").write_text("raise ImportError('wrapt is broken on this machine')\n")
    code = f"""
{PROBE}
from hydra import compose, initialize_config_module
with initialize_config_module("verl.trainer.config", version_base=None):
    config = compose("ppo_trainer", overrides=["algorithm.adv_estimator=grpo", *{COMPLETE}])
validate_config(config, use_reference_policy=False, use_critic=False)
print("grpo is accepted")
config.algorithm.adv_estimator = "egsw"
validate_config(config, use_reference_policy=False, use_critic=False)
"""
    run = python(code, PYTHONPATH=str(tmp_path))
    assert run.stderr.count("[egsw] egsw-plugin failed to load") == 1
    assert "wrapt is broken on this machine" in run.stderr
    assert "grpo is accepted" in run.stdout
    assert "RuntimeError: algorithm.adv_estimator=egsw: egsw-plugin failed to load" in run.stderr


def test_a_plugin_that_fails_half_way_refuses_what_it_has_registered(tmp_path):
    """The hooks that were to come are missing: the run would break after its first rollout."""
    (tmp_path / "early.py").write_text("from verl.trainer.ppo import core_algos\ndel core_algos.register_policy_loss\n")
    code = f"""
{PROBE}
sys.path.insert(0, {str(Path(__file__).parent)!r})
from launches import configuration
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
assert "egsw" in ADV_ESTIMATOR_REGISTRY
validate_config(configuration("algorithm.adv_estimator=grpo"), use_reference_policy=False, use_critic=False)
print("grpo is accepted")
validate_config(configuration({EGSW!r}), use_reference_policy=False, use_critic=False)
"""
    run = python(code, PYTHONPATH=str(tmp_path), VERL_USE_EXTERNAL_MODULES="early")
    assert "grpo is accepted" in run.stdout, run.stderr
    assert "RuntimeError: algorithm.adv_estimator=egsw: egsw-plugin failed to load" in run.stderr


def test_names_of_ours_that_another_package_took_before_us(tmp_path):
    """They stay that package's, and a run is refused that names one of them."""
    (tmp_path / "early.py").write_text("""
from verl.trainer.ppo import core_algos

@core_algos.register_policy_loss("gtpo")
def her_loss(**kwargs):
    raise NotImplementedError

@core_algos.register_adv_est("grpo_s")
def her_estimator(**kwargs):
    raise NotImplementedError
""")
    code = f"""
{PROBE}
sys.path.insert(0, {str(Path(__file__).parent)!r})
from launches import configuration
from egsw_plugin.errors import OptionError
for overrides in (["egsw"], ["grpo"], ["grpo", "{LOSS}=gtpo"], ["grpo_s"], ["gtpo"], ["qae", "{LOSS}=grpo_s"]):
    config = configuration("algorithm.adv_estimator=" + overrides[0], *overrides[1:])
    try:
        validate_config(config, use_reference_policy=False, use_critic=False)
        print("SAID accepted")
    except OptionError as error:
        print("SAID", error)
"""
    run = python(code, PYTHONPATH=str(tmp_path), VERL_USE_EXTERNAL_MODULES="early")
    said = [line.removeprefix("SAID ") for line in run.stdout.splitlines() if line.startswith("SAID")]
    assert len(said) == 6, run.stderr
    assert said[0] == said[1] == said[4] == said[5] == "accepted"
    place = re.escape(str(tmp_path / "early.py"))
    assert re.match(rf"{LOSS}='gtpo': verl has early.her_loss \({place}:4\) under this name of egsw-plugin's", said[2])
    assert re.match(rf"algorithm.adv_estimator='grpo_s': verl has early.her_estimator \({place}:8\) under", said[3])
    assert all("VERL_USE_EXTERNAL_PLUGINS=none" in refusal for refusal in said[2:4])


def test_a_policy_loss_that_replaced_ours_is_refused(monkeypatch):
    """verl lets a later one take the name: in the trainer's process, or in a worker's alone."""
    from verl.workers.utils import losses

    monkeypatch.setitem(core_algos.POLICY_LOSS_REGISTRY, "gtpo", core_algos.POLICY_LOSS_REGISTRY["vanilla"])
    refusal = f"{LOSS}='gtpo': this verl has a function of its own .*, {core_algos.__name__}.compute_policy_loss"
    with pytest.raises(OptionError, match=refusal):
        startup.check_trainer(configuration("algorithm.adv_estimator=grpo", f"{LOSS}=gtpo"), contract.TRAINER)
    with pytest.raises(OptionError, match=refusal):
        losses.ppo_loss(SimpleNamespace(policy_loss={"loss_mode": "gtpo"}), None, None)
    startup.check_trainer(configuration("algorithm.adv_estimator=grpo", f"{LOSS}=grpo_s"), contract.TRAINER)


def test_a_function_that_wraps_ours_is_ours(monkeypatch):
    """As a package that measures times puts one there."""

    config = configuration("algorithm.adv_estimator=gtpo", f"{LOSS}=gtpo")
    for key, registry in (
        ("algorithm.adv_estimator", core_algos.ADV_ESTIMATOR_REGISTRY),
        (LOSS, core_algos.POLICY_LOSS_REGISTRY),
    ):
        ours = registry["gtpo"]
        monkeypatch.setitem(registry, "gtpo", functools.wraps(ours)(lambda *args, ours=ours: ours(*args)))
        startup.check_trainer(config, contract.TRAINER)
        monkeypatch.setitem(registry, "gtpo", lambda *args, ours=ours: ours(*args))
        with pytest.raises(
            OptionError, match=rf"^{key}='gtpo': verl has {__name__}.*lambda> \(.*test_startup.py:\d+\)"
        ):
            startup.check_trainer(config, contract.TRAINER)
        monkeypatch.setitem(registry, "gtpo", ours)


def test_records_of_a_verl_estimator_need_the_trainers_part_of_verl(monkeypatch):
    recorded = configuration("algorithm.adv_estimator=grpo", "+algorithm.record.every=5")
    startup.check_trainer(recorded, contract.TRAINER)
    monkeypatch.delattr("verl.trainer.ppo.v1.trainer_base.PPOTrainer._compute_advantage")
    with pytest.raises(BridgeError, match=r"It lacks .*PPOTrainer\._compute_advantage"):
        startup.check_trainer(recorded, contract.TRAINER)
    startup.check_trainer(configuration("algorithm.adv_estimator=grpo"), contract.TRAINER)


def test_a_verl_is_judged_by_what_it_has_and_not_by_its_number(tmp_path):
    """The installed verl under another version number: every file linked but the one that holds the number."""
    installed = Path(verl.__file__).parent
    copy = tmp_path / "verl"
    copy.mkdir()
    for entry in installed.iterdir():
        if entry.name not in ("version", "__init__.py"):
            (copy / entry.name).symlink_to(entry)
    (copy / "__init__.py").write_text((installed / "__init__.py").read_text())
    (copy / "version").mkdir()
    (copy / "version" / "version").write_text("7.0.0")
    code = f"""
{PROBE}
from hydra import compose, initialize_config_module
with initialize_config_module("verl.trainer.config", version_base=None):
    config = compose("ppo_trainer", overrides=["algorithm.adv_estimator=egsw", "actor_rollout_ref.rollout.n=4"])
from egsw_plugin.verl_adapter import contract, startup
startup.check_trainer(config, contract.TRAINER)
print("it is accepted")
import verl.workers.utils.losses as losses
losses.kl_penalty = lambda p, q: p - q
startup.check_trainer(config, contract.TRAINER)
"""
    run = python(code, PYTHONPATH=str(tmp_path))
    assert "[egsw] warning: verl 7.0.0 has what egsw-plugin" in run.stdout + run.stderr
    assert "on verl 7.0.0: adv_estimator=egsw" in run.stdout and "it is accepted" in run.stdout
    assert "BridgeError: algorithm.adv_estimator=egsw: this verl (7.0.0) is not as egsw-plugin" in run.stderr
    lacking = "verl.workers.utils.losses.kl_penalty(logprob, ref_logprob)"
    assert f"It lacks {lacking}; install one that was tried: 0.9.1" in run.stderr


def test_loops_are_compiled_as_the_trainer_is_built():
    """In another process, where nothing is compiled yet: the first step finds all that it calls."""
    before = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
import kept_loops, verl
kept_loops.keep()
from batches import random_batch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from forks import forked
from launches import COMPLETE, configuration
from egsw_plugin.kernels import loops
from egsw_plugin.verl_adapter import contract, startup

def signatures():
    return {{name: len(loop.signatures) for name, loop in vars(loops).items() if hasattr(loop, "signatures")}}

def check(name):
    assert not any(signatures().values())
    startup.check_trainer(configuration(f"algorithm.adv_estimator={{name}}"), contract.TRAINER)
    before = signatures()
    rewards, mask, index, entropy = random_batch(1)
    get_adv_estimator_fn(name)(rewards, mask, index, entropy=entropy)
    print(before == signatures(), sum(before.values()))
"""
    for name, output in forked(before, {name: f"check({name!r})" for name in ("egsw", "gtpo")}).items():
        same, number = output.split()[-2:]
        assert same == "True" and int(number) > 3, (name, output)
