"""Members of the family: each against a loop from its definition, chains by hand, and the kit's invariances on all.

Maps to methods/, testing.py, fields.py, options/declare.py and verl_adapter/{startup,worker,step}.py. Not exercised
here: a trainer (verl_runs/test_family_runs.py).
"""

import contextlib
import dataclasses
import math
import re
import statistics
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import launches
import pytest
import torch
import verl  # noqa: F401  (loads the plugin through its entry point, as a user's run does)
from batches import applied

from egsw_plugin.controllers import Step
from egsw_plugin.errors import BridgeError, MemberError, OptionError, TensorError, UndeclaredError
from egsw_plugin.fields import Arrived, Field, arriving, merge
from egsw_plugin.methods import LOSSES, MEMBERS, Registry, pages
from egsw_plugin.methods.chain import Chain, Link, apply, compile_for, read
from egsw_plugin.methods.interface import Base, Change, PolicyLoss, Requirements, Success, Transform
from egsw_plugin.methods.rules import Rule, token_losses, weight_field
from egsw_plugin.options import NoOptions, Options, decode, documented, encode, option
from egsw_plugin.options.checks import finite, flag, in_range, optional, or_auto, positive, sampled
from egsw_plugin.testing import CheckFailed, check, make_batch
from egsw_plugin.verl_adapter import startup
from egsw_plugin.verl_adapter.step import TrainerStep, entered

ROOT = Path(__file__).parents[1]
EXAMPLE = f"{ROOT / 'examples' / 'late_tokens.py'}:LateTokens"
LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"


@pytest.mark.parametrize("member", list(pages.members()), ids=lambda member: f"{pages.kind(member)} {member.name}")
def test_invariances(member):
    check(member)


def test_invariances_of_the_example():
    check(EXAMPLE)
    assert len((ROOT / "examples" / "late_tokens.py").read_text().splitlines()) <= 40


# --------------------------------------------------------------------------------------------------- loops, and by hand


def compare(name, batch, wanted, **options):
    """wanted: the advantage of row i, token t."""
    result = applied(name, batch, **options).advantages
    for i, row in enumerate(batch.mask.tolist()):
        for t, alive in enumerate(row):
            assert float(result[i, t]) == pytest.approx(wanted(i, t) if alive else 0.0, rel=1e-5, abs=1e-6)


def numbers(batch):
    """Advantages of the base, entropies and log-probabilities as lists."""
    A = batch.base.expand(batch.mask.shape).tolist()
    return A, batch.tensors["entropy"].tolist(), batch.tensors["old_log_probs"].tolist()


@pytest.mark.parametrize("positive,negative", [(0.1, 1.0), (0.0, 1.0), (1.0, 0.0), (2.0, 3.0)])
@pytest.mark.parametrize("per_token", [False, True])
def test_sign_weight(positive, negative, per_token):
    batch = make_batch(1, per_token)
    A, _, _ = numbers(batch)
    wanted = lambda i, t: A[i][t] * (positive if A[i][t] > 0 else negative)  # noqa: E731
    compare("sign_weight", batch, wanted, positive=positive, negative=negative)


@pytest.mark.parametrize("kind", ["full", "surprisal"])
@pytest.mark.parametrize("alpha,kappa", [(0.4, 2.0), (0.1, 2.0), (5.0, 1.0)])
def test_entropy_advantage(alpha, kappa, kind):
    batch = make_batch(2, True)
    A, H, l = numbers(batch)  # noqa: E741
    H = H if kind == "full" else [[-x for x in row] for row in l]
    wanted = lambda i, t: A[i][t] + min(alpha * H[i][t], abs(A[i][t]) / kappa)  # noqa: E731
    compare("entropy_advantage", batch, wanted, alpha=alpha, kappa=kappa, entropy=kind)


def kept_by_loop(batch, rho, scope, ties, kind="full"):
    """Places that are kept: with `keep` those at or above the linear quantile, by statistics' own formula."""
    mask, H = batch.mask.tolist(), batch.tensors["entropy" if kind == "full" else "old_log_probs"].tolist()
    sets = {}
    for i, row in enumerate(mask):
        for t, alive in enumerate(row):
            if alive:
                key = {"batch": 0, "group": int(batch.group_ids[i]), "response": i}[scope]
                sets.setdefault(key, []).append((H[i][t] if kind == "full" else -H[i][t], i, t))
    kept = set()
    for entries in sets.values():
        if ties == "exact":
            number = math.ceil(round(rho * len(entries), 9))
            kept |= {(i, t) for _, i, t in sorted(entries, key=lambda e: -e[0])[:number]}
            continue
        values = sorted(value for value, *_ in entries)
        place = (1 - rho) * (len(values) - 1)
        low = math.floor(place + 1e-9)
        high = min(low + 1, len(values) - 1)
        threshold = values[low] + max(place - low, 0.0) * (values[high] - values[low])
        kept |= {(i, t) for value, i, t in entries if value >= threshold - 1e-9}
    return kept


@pytest.mark.parametrize("ties", ["keep", "exact"])
@pytest.mark.parametrize("scope", ["batch", "group", "response"])
@pytest.mark.parametrize("rho", [0.2, 0.37, 0.9])
def test_high_entropy(rho, scope, ties):
    batch = make_batch(3, True)
    A, _, _ = numbers(batch)
    kept = kept_by_loop(batch, rho, scope, ties)
    options = dict(rho=rho, scope=scope, ties=ties)
    compare("high_entropy", batch, lambda i, t: A[i][t] * ((i, t) in kept), **options)
    factor = int(batch.mask.sum()) / len(kept)
    compare("high_entropy", batch, lambda i, t: A[i][t] * ((i, t) in kept) * factor, denominator="kept", **options)
    metrics = applied("high_entropy", batch, **options).metrics
    assert metrics["high_entropy/kept/mean"] == pytest.approx(len(kept) / int(batch.mask.sum()))


def test_high_entropy_with_ties_by_hand():
    entropy = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.1]])
    batch = batch_by_hand([[1.0]], [[1] * 5], entropy)
    keep = applied("high_entropy", batch, rho=0.4).advantages.tolist()
    exact = applied("high_entropy", batch, rho=0.4, ties="exact").advantages.tolist()
    assert keep == [[1, 1, 1, 1, 0]] and exact == [[1, 1, 0, 0, 0]]


@pytest.mark.parametrize("std", ["sample", "population", "none"])
@pytest.mark.parametrize("quantile", ["lower", "linear"])
@pytest.mark.parametrize("K", [0.4, 0.6, 0.25])
def test_qae(K, quantile, std):
    outcome = torch.randn(18, generator=torch.Generator().manual_seed(5))
    batch = make_batch(4, outcome=outcome)
    there = batch.rows.count > 0
    groups = {}
    for i, group in enumerate(batch.group_ids.tolist()):
        if there[i]:
            groups.setdefault(group, []).append(float(outcome[i]))

    def wanted(i, t):
        rewards = sorted(groups[int(batch.group_ids[i])])
        if quantile == "lower":
            baseline = next(x for n, x in enumerate(rewards, 1) if n / len(rewards) >= K - 1e-9)
        else:
            place = K * (len(rewards) - 1)
            low = math.floor(place)
            baseline = rewards[low] + (place - low) * (rewards[min(low + 1, len(rewards) - 1)] - rewards[low])
        scale = {"sample": statistics.stdev, "population": statistics.pstdev, "none": lambda x: 1.0}[std](rewards)
        return (float(outcome[i]) - baseline) / (scale + 1e-6)

    compare("qae", batch, wanted, K=K, quantile=quantile, std=std)


@pytest.mark.parametrize("successes,moving", [(1, "successes"), (2, "successes"), (3, "failures")])
def test_qae_moves_one_polarity_of_four_responses(successes, moving):
    """K = 0.4: up to 60 % successes, the baseline is 0, and failures do not move."""
    outcome = torch.tensor([1.0] * successes + [0.0] * (4 - successes))
    batch = batch_by_hand([[0.0]] * 4, [[1, 1]] * 4, torch.zeros(4, 2), outcome=outcome)
    advantages = applied("qae", batch).advantages[:, 0]
    assert bool((advantages[outcome == (0 if moving == "successes" else 1)] == 0).all())
    assert bool((advantages[outcome == (1 if moving == "successes" else 0)] != 0).all())


def test_success_sign_and_w_reinforce():
    batch = make_batch(6)
    compare("success_sign", batch, lambda i, t: 1.0 if batch.success[i] else -1.0)
    chain = read({"credit": {"base": "success_sign"}}, "sign_weight")
    result = apply(chain, dataclasses.replace(batch, base=None)).advantages
    assert sorted(set(result[batch.mask].tolist())) == pytest.approx([-1.0, 0.1])


def batch_by_hand(base, mask, entropy, outcome=None):
    mask = torch.tensor(mask)
    rows = len(mask)
    outcome = torch.zeros(rows) if outcome is None else outcome
    ids = torch.zeros(rows, dtype=torch.int64)
    return make_batch(
        0,
        base=torch.tensor(base),
        mask=mask,
        group_ids=ids,
        judged=outcome > 0.5,
        outcome=outcome,
        entropy=entropy,
        old_log_probs=-entropy,
    )


def test_two_orders_of_a_chain_by_hand():
    """A = 1 and -1, H = 1 and 3. The bonus min(0.4 H, |A| / 2) is 0.4 and 0.5.

    Bonus, then successes by 0.1: 1.4 * 0.1 and -1 + 0.5. The other way round, A is 0.1 and the cap 0.05: 0.15.
    """
    batch = batch_by_hand([[1.0], [-1.0]], [[1], [1]], torch.tensor([[1.0], [3.0]]))

    def chained(*names):
        return apply(read({"credit": {"transforms": list(names)}}, "egsw_plugin"), batch).advantages.flatten().tolist()

    assert chained("entropy_advantage", "sign_weight") == pytest.approx([0.14, -0.5])
    assert chained("sign_weight", "entropy_advantage") == pytest.approx([0.15, -0.5])


def test_a_chain_keeps_the_base_and_logs_every_member_once():
    batch = make_batch(7)
    result = apply(read({"credit": {"transforms": ["egsw", "high_entropy"]}}, "egsw_plugin"), batch)
    assert torch.equal(result.base, batch.base)
    prefixes = {name.partition("/")[0] for name in result.metrics}
    assert prefixes == {"egsw", "high_entropy", "credit"}
    assert result.metrics["credit/entropy/mean"] == pytest.approx(result.metrics["egsw/entropy/mean"], rel=1e-6)


def test_how_far_the_entropy_moves_egsws_weights():
    batch = make_batch(8)
    assert applied("egsw", batch, alpha=0.0).metrics["egsw/entropy_shift/mean"] == 0
    small, large = (applied("egsw", batch, alpha=alpha).metrics["egsw/entropy_shift/mean"] for alpha in (0.1, 2.0))
    assert 0 < small < large


@pytest.mark.parametrize("mask", [[[1] * 12, [1] * 9 + [0] * 3], [[1, 0] * 12, [0, 1] * 9 + [0] * 6]])
def test_of_a_large_group_every_nth_token_says_how_far_the_entropy_moves_it(mask, monkeypatch):
    from egsw_plugin.methods import egsw

    entropy = torch.rand(2, len(mask[0]), generator=torch.Generator().manual_seed(0))
    batch = batch_by_hand([[1.0], [-1.0]], mask, entropy)
    columns = batch.rows.columns(entropy)[:, 1:12:3]
    some = batch_by_hand([[1.0], [-1.0]], [[1, 1, 1, 1], [1, 1, 1, 0]], columns)
    wanted = applied("egsw", some).metrics["egsw/entropy_shift/mean"]
    whole = applied("egsw", batch).metrics["egsw/entropy_shift/mean"]
    monkeypatch.setattr(egsw, "SAMPLE", 7)  # of 21 policy tokens
    assert applied("egsw", batch).metrics["egsw/entropy_shift/mean"] == pytest.approx(wanted, rel=1e-6)
    assert wanted != pytest.approx(whole, rel=1e-3)


# --------------------------------------------------------------------------------------------- fields, and loss options


def test_merging_fields():
    one, two = torch.tensor([[2.0]]), torch.tensor([[0.5, 1.0]])
    assert merge({Field.WEIGHT: one}, {Field.WEIGHT: two}, "x")[Field.WEIGHT].tolist() == [[1.0, 2.0]]
    assert merge({Field.ANCHOR: one}, {Field.ANCHOR: two}, "x")[Field.ANCHOR].tolist() == [[2.5, 3.0]]
    with pytest.raises(OptionError, match="clip_high is set by a transform before it"):
        merge({Field.CLIP_HIGH: one}, {Field.CLIP_HIGH: two}, "x")


def test_loss_options_survive_verls_micro_batches():
    """Index, split, and the dynamic batch size of verl's real functions, beside tensors of one length a row."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu
    from verl.workers.engine.utils import prepare_micro_batches

    rows, options = 6, LOSSES["egsw_plugin"].options_type(dual_clip=3.5)
    lengths = torch.tensor([5, 3, 4, 2, 6, 1])
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    ids = torch.nested.nested_tensor_from_jagged(torch.arange(int(offsets[-1])), offsets)
    sent = torch.tensor(encode(options), dtype=torch.float64).expand(rows, -1).contiguous()
    names = {"input_ids": ids, Field.LOSS_OPTIONS.queue_name: sent}
    data = TensorDict(names, batch_size=rows)
    parts = [tu.index_select_tensor_dict(data, [4, 1, 2]), *tu.chunk_tensordict(data, 3)]
    for dynamic in (True, False):
        given = tu.get_tensordict(names, {"use_dynamic_bsz": dynamic, "max_token_len_per_gpu": 8, "sp_size": 1})
        tu.assign_non_tensor(given, micro_batch_size_per_gpu=2, force_group_size=1)
        parts += prepare_micro_batches(given)[0]
    assert len(parts) > 6
    for part in parts:
        arrived = Arrived.of(part)[Field.LOSS_OPTIONS]
        assert len(arrived) == len(part)
        assert all(decode(type(options), row.tolist()) == options for row in arrived)


def test_the_generic_loss_is_ppo_without_fields_and_reads_each():
    generator = torch.Generator().manual_seed(0)
    old, change, A = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    log_prob = old + change
    member = LOSSES["egsw_plugin"]
    fields = {
        Field.WEIGHT: torch.rand(3, 4, generator=generator),
        Field.CLIP_LOW: torch.rand(3, 4, generator=generator),
        Field.CLIP_HIGH: torch.rand(3, 1, generator=generator),
        Field.ANCHOR: torch.rand(3, 4, generator=generator),
    }

    def by_loop(fields, dual_clip, i, t):
        at = lambda field, default: float(fields[field].expand(3, 4)[i, t]) if field in fields else default  # noqa: E731
        ratio, a = math.exp(float(change[i, t])), float(A[i, t])
        held = min(max(ratio, 1 - at(Field.CLIP_LOW, 0.2)), 1 + at(Field.CLIP_HIGH, 0.28))
        loss = max(-ratio * a, -held * a)
        if dual_clip is not None and a < 0:
            loss = min(loss, -dual_clip * a)
        return at(Field.WEIGHT, 1.0) * loss + at(Field.ANCHOR, 0.0) * abs(math.log(ratio))

    for given in ({}, fields, *({field: tensor} for field, tensor in fields.items())):
        for dual_clip in (None, 1.5):
            rule = member.rule(member.options_type(dual_clip=dual_clip))
            losses = token_losses(rule, log_prob, old, A, mask, 0.2, 0.28, given).values
            for i, t in mask.nonzero().tolist():
                assert float(losses[i, t]) == pytest.approx(by_loop(given, dual_clip, i, t), rel=1e-6)
    plain = token_losses(Rule(), log_prob, old, A, mask, 0.2, 0.28).values
    assert torch.equal(
        token_losses(member.rule(member.options_type()), log_prob, old, A, mask, 0.2, 0.28).values, plain
    )


def test_gradient_of_the_generic_loss_against_finite_differences():
    generator = torch.Generator().manual_seed(1)
    old, change, A = (torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    mask, member = torch.ones(2, 3).bool(), LOSSES["egsw_plugin"]
    fields = {field: torch.rand(2, 3, generator=generator, dtype=torch.float64) for field in member.reads}
    rule = member.rule(member.options_type(dual_clip=2.0))
    loss = lambda x: token_losses(rule, x, old, A, mask, 0.2, 0.28, fields).values  # noqa: E731
    assert torch.autograd.gradcheck(loss, (old + change).requires_grad_())


def test_options_of_another_number_are_refused():
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import ActorConfig

    config = ActorConfig(strategy="fsdp", rollout_n=1, use_dynamic_bsz=True)
    x = torch.zeros(2, 2)
    arguments = dict(old_log_prob=x, log_prob=x, advantages=x, response_mask=x.bool(), config=config)
    loss = get_policy_loss_fn("egsw_plugin")
    with pytest.raises(BridgeError, match="its options did not arrive"):
        loss(**arguments)
    with arriving({Field.LOSS_OPTIONS: torch.zeros(2, 3)}), pytest.raises(BridgeError, match=r"shape \(2, 3\)"):
        loss(**arguments)


# ------------------------------------------------------------------------------------------------------------- refusals


def configuration(*overrides):
    return launches.configuration("actor_rollout_ref.rollout.n=8", *overrides)


CHAIN = "algorithm.adv_estimator=egsw_plugin"
ENTROPY = "actor_rollout_ref.actor.calculate_entropy=True"
ON_POLICY = ["data.train_batch_size=64", "actor_rollout_ref.actor.ppo_mini_batch_size=64"]
OFF_POLICY = ["data.train_batch_size=64", "actor_rollout_ref.actor.ppo_mini_batch_size=16"]
GENERIC = f"{LOSS}=egsw_plugin"
KL = "actor_rollout_ref.actor.use_kl_loss=True"
KL_COEF_0 = "actor_rollout_ref.actor.kl_loss_coef=0.0"


@pytest.mark.parametrize(
    "overrides,message",
    [
        ([CHAIN, "+algorithm.credit={transforms: [egsw, egsw]}"], "egsw stands in it twice"),
        ([CHAIN, "+algorithm.credit={transforms: [egws]}"], "did you mean 'egsw'"),
        ([CHAIN, "+algorithm.credit={transforms: egsw}"], "use a list of names"),
        ([CHAIN, "+algorithm.credit={transforms: [qae]}"], "qae is a base"),
        ([CHAIN, "+algorithm.credit={base: high_entropy}"], "high_entropy is a transform"),
        ([CHAIN, "+algorithm.credit={base: grop}"], "use a base estimator registered in verl"),
        ([CHAIN, "+algorithm.credit={high_entorpy: {rho: 0.1}}"], "did you mean algorithm.credit.high_entropy"),
        ([CHAIN, "+algorithm.credit={transforms: [high_entropy], high_entropy: {rho: 2}}"], "> 0 and <= 1"),
        ([CHAIN, "+algorithm.credit={transforms: [high_entropy], high_entropy: {rho: 0}}"], "> 0 and <= 1"),
        (
            ["algorithm.adv_estimator=egsw", "+algorithm.credit={transforms: [egsw]}"],
            "set algorithm.adv_estimator=egsw_pl",
        ),
        (["algorithm.adv_estimator=qae", "+algorithm.credit={base: grpo}"], "qae is a base itself"),
        (
            ["algorithm.adv_estimator=egsw", "+algorithm.egsw.alpha=1", "+algorithm.credit.egsw.alpha=1"],
            "it is set by algorithm.egsw.alpha, too",
        ),
        (
            ["algorithm.adv_estimator=high_entropy", "+algorithm.high_entropy.rho=0.1"],
            "belong under algorithm.credit.high",
        ),
        (["algorithm.adv_estimator=adaptive_entropy"], "set actor_rollout_ref.actor.calculate_entropy=True"),
        (
            ["algorithm.adv_estimator=adaptive_entropy", ENTROPY, "actor_rollout_ref.actor.entropy_coeff=0.1"],
            "set this one to 0",
        ),
        (
            [
                "algorithm.adv_estimator=adaptive_entropy",
                ENTROPY,
                "+algorithm.credit.adaptive_entropy.coefficient={controller: pid}",
            ],
            "use one of step, scale",
        ),
        (
            [
                "algorithm.adv_estimator=adaptive_entropy",
                ENTROPY,
                "+algorithm.credit.adaptive_entropy.coefficient={max: -1}",
            ],
            "coefficient.max=-1",
        ),
        (
            ["algorithm.adv_estimator=high_entropy", "algorithm.rollout_correction.bypass_mode=True"],
            "algorithm.credit.high_entropy.entropy=surprisal",
        ),
        ([CHAIN, "+algorithm.credit={transforms: [egsw], egsw: {channel: loss}}"], f"set {LOSS}=egsw"),
        (["algorithm.adv_estimator=grpo", f"{LOSS}=fipo", *ON_POLICY], "fipo does nothing: every log-ratio is 0"),
        (["algorithm.adv_estimator=grpo", f"{LOSS}=ce_gppo", *ON_POLICY], "ce_gppo does nothing"),
        (["algorithm.adv_estimator=batch_kl_cov", GENERIC, *ON_POLICY], "batch_kl_cov does nothing"),
        (["algorithm.adv_estimator=adaptive_clip", GENERIC, *ON_POLICY], "adaptive_clip does nothing"),
        (
            ["algorithm.adv_estimator=archer", GENERIC, "+algorithm.credit.archer.kl=false", *ON_POLICY],
            "archer does nothing",
        ),
        (["algorithm.adv_estimator=archer", GENERIC, *OFF_POLICY], "there is no KL loss; set"),
        (
            ["algorithm.adv_estimator=archer", GENERIC, KL, KL_COEF_0, *OFF_POLICY],
            "kl_loss_coef=0.0: it is what archer weighs, by algorithm.credit.archer.kl; set it above 0, as to 0.001, "
            "or +algorithm.credit.archer.kl=false",
        ),
        (["algorithm.adv_estimator=archer", KL, *OFF_POLICY], f"would ignore the clip_lows; set {GENERIC}"),
        (
            ["algorithm.adv_estimator=archer", KL, f"{LOSS}=grpo_s", *OFF_POLICY],
            f"would ignore the clip_lows; set {GENERIC}",
        ),
        (["algorithm.adv_estimator=batch_kl_cov", *OFF_POLICY], "would ignore the anchors"),
        (
            [CHAIN, "+algorithm.credit={transforms: [adaptive_clip, batch_kl_cov]}", *OFF_POLICY],
            "both adaptive_clip and",
        ),
        (
            ["algorithm.adv_estimator=stare", "algorithm.rollout_correction.bypass_mode=True"],
            "algorithm.credit.stare.target=null",
        ),
        (
            ["algorithm.adv_estimator=repo", "algorithm.rollout_correction.bypass_mode=True"],
            "algorithm.credit.repo.centred=false",
        ),
        (["algorithm.adv_estimator=repo_r", "+algorithm.credit.repo_r.zeta={min: -2}"], "zeta.min=-2"),
        (["algorithm.adv_estimator=batch_clip_cov", "+algorithm.credit.batch_clip_cov.low=9"], "not above high"),
        (
            ["algorithm.adv_estimator=batch_clip_cov", "+algorithm.credit.batch_clip_cov.seed=0.5"],
            "whole number from 0",
        ),
        (
            ["algorithm.adv_estimator=grpo", f"{LOSS}=fipo", "+algorithm.credit.fipo.decai=3", *OFF_POLICY],
            "did you mean 'decay'",
        ),
    ],
)
def test_refused_before_the_first_rollout(overrides, message):
    with pytest.raises(OptionError) as error:
        startup.check(configuration(*overrides))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "overrides,message",
    [
        (["algorithm.adv_estimator=adaptive_entropy", ENTROPY], "no checkpoint is written"),
        ([CHAIN, "+algorithm.credit={transforms: [egsw, high_entropy], egsw: {alpha: -1}}"], "they oppose each other"),
        (["algorithm.adv_estimator=grpo", "+algorithm.credit={transforms: [egsw]}"], "has no effect"),
        (
            ["algorithm.adv_estimator=egsw", "+algorithm.high_entropies={x: 1}"],
            "if algorithm.credit.high_entropy is meant, set that",
        ),
        ([CHAIN, "+algorithm.credit={transforms: [repo_r, ar]}"], "they oppose each other"),
        (["algorithm.adv_estimator=archer", GENERIC, KL, *ON_POLICY], "the bounds of the clip have no effect"),
        (
            [
                "algorithm.adv_estimator=batch_kl_cov",
                GENERIC,
                *ON_POLICY,
                "actor_rollout_ref.rollout.agent.agent_loop_config_path=mine.yaml",
            ],
            "unless sessions of your agent loop have several outputs",
        ),
        (["algorithm.adv_estimator=repo_r"], "no checkpoint is written, so that repo_r.zeta cannot be resumed"),
        (["algorithm.adv_estimator=stare", "+algorithm.credit.stare.M=0.5"], "M has no effect with variant=O1"),
        (
            ["algorithm.adv_estimator=grpo", f"{LOSS}=fipo", "+algorithm.credit.fipo.dual_clip=null", *OFF_POLICY],
            "drop has no effect with dual_clip=null",
        ),
        (
            [
                CHAIN,
                "+algorithm.credit={base: success_sign, transforms: [sign_weight]}",
                "reward.reward_model.enable=True",
            ],
            "scores are graded, and success_sign takes those above algorithm.credit.success_sign.threshold",
        ),
    ],
)
def test_warned_of_at_the_start(overrides, message, capsys, monkeypatch):
    from egsw_plugin import console

    monkeypatch.setattr(console, "_warned", set())
    config = configuration(*overrides)
    warnings = list(startup._warnings(config, startup.check(config)))
    assert any(message in warning for warning in warnings), warnings


@pytest.mark.parametrize("name", ["egsw", "high_entropy", "entropy_advantage", "archer"])
def test_what_stands_in_for_the_entropy_is_said(name):
    options_type = MEMBERS[name].options_type
    assert options_type().cautions() == []
    (caution,) = options_type(entropy="surprisal").cautions()
    assert caution.startswith("entropy=surprisal takes -log_prob of the sampled tokens in place of the entropy")


# ------------------------------------------------------------------------------------------------------------ strangers

TOY = '''
import contextlib
import dataclasses
import torch
from egsw_plugin.methods.interface import Change, Transform
from egsw_plugin.options import Options, option
from egsw_plugin.options.checks import positive


@dataclasses.dataclass(frozen=True)
class ToyOptions(Options):
    """Options of the toy."""

    factor: float = option(2.0, positive, "what advantages are multiplied by; > 0")


class Toy(Transform[ToyOptions]):
    """Multiplies every advantage."""

    name = "toy"
    options_type = ToyOptions
    identity = {"factor": 1.0}

    def apply(self, options, batch):
        return Change(batch.advantages * options.factor)
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package with a toy member, one whose import fails, and some that take names of ours and of verl's."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toys.py").write_text(TOY)
    (folder / "toys_broken.py").write_text("raise RuntimeError('no such GPU')\n")
    info = folder / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    points = "toy = toys:Toy\nbroken_toy = toys_broken:Toy\negsw = toys:Toy\ngrpo = toys:GRPO\n"
    losses = "vanilla = toys:Vanilla\n"
    (info / "entry_points.txt").write_text(f"[egsw_plugin.members]\n{points}\n[egsw_plugin.losses]\n{losses}")
    return folder


def python(package, code):
    run = [sys.executable, "-c", code]
    import os

    environment = {**os.environ, "PYTHONPATH": f"{package}:{ROOT / 'tests'}"}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_member_of_another_package_is_everywhere(package):
    out = python(
        package,
        f"""
import verl, torch
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, get_adv_estimator_fn
from egsw_plugin import doctor
from egsw_plugin.cli import main
from egsw_plugin.methods import MEMBERS
from egsw_plugin.testing import check
from egsw_plugin.verl_adapter import startup
from hydra import compose, initialize_config_module

assert "toy" in ADV_ESTIMATOR_REGISTRY and "egsw" in MEMBERS.own and MEMBERS["egsw"].title == "EGSW"
assert check("toy") > 2
assert main(["options", "toy"]) == 0
assert main(["options", "broken_toy"]) == 1
found = doctor.members()
print(found.status, found.found)
mask = torch.ones(4, 3, dtype=torch.int64)
rewards = torch.zeros(4, 3); rewards[0, 2] = 1
def estimate(name, config):
    return get_adv_estimator_fn(name)(rewards, mask, ["a", "a", "b", "b"], config)[0]
twice = estimate("toy", {{"credit": {{"toy": {{"factor": 3.0}}}}}})
assert torch.equal(twice, 3 * estimate("toy", {{"credit": {{"toy": {{"factor": 1.0}}}}}}))
with initialize_config_module("verl.trainer.config", version_base=None):
    for credit in ("{{transforms: [toy, egsw]}}", "{{transforms: [{package}/toys.py:Toy]}}"):
        try:
            config = compose("ppo_trainer", overrides=["algorithm.adv_estimator=egsw_plugin",
                "actor_rollout_ref.rollout.n=8", f"+algorithm.credit={{credit}}"])
            plan = startup.check(config)
            print([link.name for link in plan.links])
        except Exception as error:
            print(type(error).__name__, error)
""",
    )
    assert "`factor`" in out
    assert "broken_toy of package toys 1.0" in out and "no such GPU" in out
    assert "egsw of package toys 1.0 (egsw_plugin.members) is left out" in out
    assert "['toy', 'egsw']" in out
    assert "calls itself 'toy', which is the name of a member of package toys" in out


def test_a_member_of_another_package_takes_no_name_of_verls(package):
    out = python(
        package,
        """
from egsw_plugin.methods import LOSSES, MEMBERS
from egsw_plugin.methods.chain import read

print(*MEMBERS.conflicts(), *LOSSES.conflicts(), sep="\\n")
print("grpo" in MEMBERS, "vanilla" in LOSSES, read({}, "egsw").base)
import verl
from launches import configuration
from egsw_plugin.verl_adapter import startup
print([link.name for link in startup.check(configuration("algorithm.adv_estimator=egsw")).links])
MEMBERS.take(["toy"])  # as the adapter does with the names of another verl
print("toy" in MEMBERS, MEMBERS.conflicts()[0])
""",
    )
    for name, group in (("grpo", "members"), ("vanilla", "losses")):
        assert f"{name} of package toys 1.0 (egsw_plugin.{group}) is left out: the name is taken by verl\n" in out
    assert "False False grpo\n['egsw']\nFalse toy of package toys 1.0 (egsw_plugin.members) is left out" in out


def test_a_member_of_a_file(capsys):
    from egsw_plugin.cli import main

    assert main(["options", EXAMPLE]) == 0
    assert "`decay`" in capsys.readouterr().out
    config = configuration(f"algorithm.adv_estimator={EXAMPLE}", "+algorithm.credit.late_tokens.decay=0.5")
    plan = startup.check(config)
    assert plan.chain.transforms[0].options.decay == 0.5
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    mask, rewards = torch.ones(2, 3, dtype=torch.int64), torch.zeros(2, 3)
    rewards[0, 2] = 1
    A, _ = get_adv_estimator_fn(EXAMPLE)(rewards, mask, ["a", "a"], config.algorithm)
    torch.testing.assert_close(A[:, 1:], A[:, :-1] / 2)


@pytest.mark.parametrize(
    "name,message",
    [
        ("/nowhere/mine.py:Mine", "there is no file /nowhere/mine.py"),
        (f"{ROOT / 'examples' / 'late_tokens.py'}:Mine", "has no attribute 'Mine'"),
        (f"{ROOT / 'examples' / 'late_tokens.py'}:LateTokensOptions", "it must be a Base or Transform"),
    ],
)
def test_a_file_without_such_a_member(name, message):
    with pytest.raises(MemberError, match=message):
        MEMBERS[name]
    with pytest.raises(OptionError, match=message):
        startup.check(configuration(f"algorithm.adv_estimator={name}"))


def test_a_member_that_lacks_its_method_is_refused_at_start_up(tmp_path):
    path = tmp_path / "half.py"
    path.write_text(
        "from egsw_plugin.methods.interface import Transform\n\nclass Half(Transform):\n    name = 'half'\n"
    )
    with pytest.raises(OptionError, match=r"half.py:Half of file .* cannot be loaded: .*abstract.*apply"):
        startup.check(configuration(f"algorithm.adv_estimator={path}:Half"))


@pytest.mark.parametrize("own", ["base", "transforms"])
def test_a_members_options_take_no_key_of_algorithm_credit(tmp_path, own):
    (tmp_path / "mine.py").write_text(TOY.replace('name = "toy"', f'name = "{own}"'))
    with pytest.raises(MemberError, match=f"algorithm.credit.{own} is no member's options: use another name"):
        MEMBERS[f"{tmp_path}/mine.py:Toy"]


@pytest.mark.parametrize("value", ["null", "[1]"])
def test_a_check_that_raises_a_type_error_refuses_the_value(tmp_path, value):
    check = "lambda value: float(value)"
    (tmp_path / "mine.py").write_text(TOY.replace("positive, ", f"{check}, "))
    override = f"+algorithm.credit.toy.factor={value}"
    with pytest.raises(OptionError, match=r"algorithm.credit.toy.factor=.*float\(\) argument must be"):
        startup.check(configuration(f"algorithm.adv_estimator={tmp_path}/mine.py:Toy", override))


def test_an_option_called_base_is_the_members_own_where_it_sets_no_base(tmp_path):
    path = tmp_path / "power.py"
    path.write_text(TOY.replace("factor", "base").replace('"toy"', '"power"'))
    chain = read({"credit": {"transforms": [f"{path}:Toy"], "power": {"base": 0.8}}}, "egsw_plugin")
    assert (chain.base, chain.transforms[0].options.base) == ("grpo", 0.8)
    with pytest.raises(OptionError, match="in a chain the base is"):
        read({"credit": {"transforms": ["egsw"], "egsw": {"base": "rloo"}}}, "egsw_plugin")


OWN = """
import contextlib
import dataclasses
from egsw_plugin.controllers import Step
from egsw_plugin.methods.interface import Change, PolicyLoss, Transform
from egsw_plugin.methods.rules import Rule
from egsw_plugin.options import Options, option
from egsw_plugin.options.checks import finite


@dataclasses.dataclass(frozen=True)
class Mine(Options):
    factor: float = option(1.0, finite, "a factor", controllers=(Step(target=0.3, max=2.0),))
    form: str | None = option(None, str, "its form")


class Loss(PolicyLoss[Mine]):
    name = "own_loss"
    options_type = Mine

    def rule(self, options):
        return Rule()


class Times(Transform[Mine]):
    name = "own_times"
    options_type = Mine

    def apply(self, options, batch):
        return Change(batch.advantages * options.factor)
"""


@pytest.fixture
def own(tmp_path):
    """A configuration with a user's own policy loss, whose options may be moved by a controller, or be text."""
    path = tmp_path / "own.py"
    path.write_text(OWN)

    def make(loss, *overrides, estimator="grpo"):
        estimator = estimator.replace("own.py", str(path))
        overrides = [f"algorithm.adv_estimator={estimator}", f"+algorithm.credit.own_loss={loss}", *overrides]
        return configuration(f"{LOSS}={path}:Loss", *overrides)

    return make


def test_an_option_that_cannot_travel_to_the_workers_is_refused_at_start_up(own):
    startup.check(own("{factor: 2}"))
    with pytest.raises(OptionError, match=r"algorithm.credit.own_loss.form='plain': .*declare it as one"):
        startup.check(own("{form: plain}"))


def test_a_losss_controller_of_the_entropy_is_refused_where_verl_computes_none(own):
    bypass = "algorithm.rollout_correction.bypass_mode=True"
    fix = r"bypass_mode=True: verl then computes no entropy; set it to False, or .*own_loss\.factor\.measure=surprisal"
    with pytest.raises(OptionError, match=fix):
        startup.check(own("{factor: {target: 0.3}}", bypass))
    startup.check(own("{factor: {target: 0.3, measure: surprisal}}", bypass))


def test_a_losss_controller_measures_what_the_chain_does_not(own, tmp_path):
    from transformers import Qwen2Config
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn
    from verl.trainer.ppo.v1 import PPOTrainerSync

    Qwen2Config(vocab_size=1000, hidden_size=8, num_attention_heads=1, num_hidden_layers=1).save_pretrained(tmp_path)
    trainer, name = object.__new__(PPOTrainerSync), f"{tmp_path}/own.py:Times"
    factor = "+algorithm.credit.own_times.factor={target: 0.3}"
    trainer.config = own(
        "{factor: {target: 0.3, measure: surprisal}}",
        factor,
        f"actor_rollout_ref.model.path={tmp_path}",
        estimator="own.py:Times",
    )
    plan = startup.check(trainer.config)
    values = []
    for trainer.global_steps in (1, 2):
        batch = types.SimpleNamespace(keys=["a_0_0", "a_1_0"], tags=[{}, {}], partition_id="train")
        rewards, mask = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.ones(2, 2, dtype=torch.int64)
        tensors = {"entropy": torch.full((2, 2), 0.5), "old_log_probs": torch.full((2, 2), -0.1)}
        with entered(TrainerStep(trainer, batch, {}, None, plan)) as step:
            get_adv_estimator_fn(name)(rewards, mask, ["a", "a"], trainer.config.algorithm, **tensors)
        values.append(step.values)
    # The entropy of 0.5 is above the target, the surprisal of 0.1 below it.
    assert values[1] == pytest.approx({"own_times.factor": 0.99, "own_loss.factor": 1.01})


@pytest.mark.parametrize(
    "options,part,message",
    [
        ("int", "0.5", "has options_type=.*; it must be a class of Options"),
        ("Mine", "0.5", "its option part has no check; declare it as part: ... = option"),
        ("Mine", "option(2, int, 'n')", r"has the check int, .* use whole\(LOW, HIGH\) of egsw_plugin.options.checks"),
        ("Mine", "option(0.5, float, 'x')", "has the check float, .* use finite"),
        ("Mine", "option(True, bool, 'on')", "has the check bool, .* use flag"),
        ("Mine", "option('0.5', finite, 'x')", r"option part has the default 0.5; use a finite number, not text"),
        ("Mine", "option('bth', one_of('both', 'up'), 'x')", r"has the default bth; use one of .*did you mean 'both'"),
    ],
)
def test_options_that_are_not_declared(tmp_path, options, part, message):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\nfrom egsw_plugin.methods.interface import Transform\n"
        "from egsw_plugin.options import Options, option\nfrom egsw_plugin.options.checks import finite, one_of\n"
        f"@dataclasses.dataclass(frozen=True)\nclass Mine(Options):\n    part: float = {part}\n"
        f"class M(Transform):\n    name = 'mine'\n    options_type = {options}\n"
        "    def requirements(self, options): ...\n    def apply(self, options, batch): ...\n"
    )
    with pytest.raises(MemberError, match=message):
        MEMBERS[f"{path}:M"]


@pytest.mark.parametrize(
    "inner,message",
    [
        ("option(2, int, 'n')", r"its option part.inner has the check int, .* use whole\(LOW, HIGH\)"),
        ("2", "its option part.inner has no check; declare it as inner: ... = option"),
    ],
)
def test_options_of_a_sub_section_that_are_not_declared(tmp_path, inner, message):
    path = tmp_path / "parts.py"
    path.write_text(
        "import dataclasses\nfrom egsw_plugin.methods.interface import Transform\n"
        "from egsw_plugin.options import Options, option\n"
        f"@dataclasses.dataclass(frozen=True)\nclass Part(Options):\n    inner: int = {inner}\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(Options):\n    part: Part = option(Part(), Part, 'a part')\n"
        "class M(Transform):\n    name = 'parts'\n    options_type = Mine\n    def apply(self, options, batch): ...\n"
    )
    with pytest.raises(MemberError, match=message):
        MEMBERS[f"{path}:M"]


def test_an_option_that_is_not_declared_is_named_where_the_class_is_documented():
    @dataclasses.dataclass(frozen=True)
    class Part(Options):
        inner: int = 2

    @dataclasses.dataclass(frozen=True)
    class Mine(Options):
        part: Part = option(Part(), Part, "a part")

    with pytest.raises(OptionError, match=r"^Part.inner=2: declare it as inner: ... = option\(DEFAULT"):
        documented(Mine)


def test_our_own_lists_have_no_name_twice_and_import_nothing():
    code = (
        "import sys; from egsw_plugin.methods import MEMBERS, LOSSES; print(len(list(MEMBERS)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(list(MEMBERS))), "False"]
    assert isinstance(LOSSES, Registry)


@pytest.mark.parametrize("averages,message", [(True, None), (False, "averages_credit, at ratio 1, is the other way")])
def test_the_kit_knows_a_loss_that_averages_credit(averages, message):
    rule = LOSSES["grpo_s"].rule(NoOptions())
    body = {"name": "own", "sequence_ratio": True, "averages_credit": averages, "rule": lambda self, options: rule}
    with contextlib.nullcontext() if message is None else pytest.raises(CheckFailed, match=message):
        check(type("Own", (PolicyLoss,), body))


class Faulty(Transform):
    """A transform with a fault."""

    name = "faulty"

    def __init__(self, apply, requirements=None):
        self._apply, self._requirements = apply, requirements or Requirements(per_token=True, tensors=("entropy",))

    def requirements(self, options):
        return self._requirements

    def apply(self, options, batch):
        return self._apply(batch)


@pytest.mark.parametrize(
    "apply_,message",
    [
        (lambda b: Change(b.advantages * b.entropy.std(), metrics={"at_cap/mean": 0.3}), None),
        (lambda b: Change(b.advantages * (b.entropy - 0.7) / 0, metrics={}), "the advantages that grpo, faulty made"),
        (lambda b: Change(b.advantages * torch.nan, metrics={"x/mean": 0.3}), "the advantages that grpo, faulty made"),
        (lambda b: Change(b.advantages, {Field.WEIGHT: b.entropy / 0}), "field weight that grpo, faulty .* inf at row"),
        (lambda b: Change(b.advantages, {Field.WEIGHT: b.entropy.masked_fill(~b.mask, torch.nan)}), None),
    ],
)
@pytest.mark.parametrize("per_token", [False, True])
def test_what_is_not_finite_at_a_policy_token_does_not_reach_verl(apply_, message, per_token):
    """Whatever the metrics say; outside the mask anything may stand."""
    batch, chain = make_batch(9, per_token), Chain("faulty", "grpo", (Link(Faulty(apply_), NoOptions(), "faulty"),))
    if message is None:
        assert bool(apply(chain, batch).advantages.isfinite().all())
    else:
        with pytest.raises(TensorError, match=message):
            apply(chain, batch)


@pytest.mark.parametrize("tensors", ["entropy", ("old_log_prob",), ("entropy", "returns"), None])
def test_tensors_that_there_are_not_are_refused_at_start_up(tensors, tmp_path):
    path = tmp_path / "comma.py"
    needs = f"    def requirements(self, options):\n        return Requirements(tensors={tensors!r})\n"
    text = TOY.replace("import Change,", "import Change, Requirements,")
    path.write_text(text.replace('"toy"', '"comma"').replace("    def apply", f"{needs}\n    def apply"))
    with pytest.raises(
        MemberError, match=r"comma has Requirements.tensors=.*; use entropy, old_log_probs.*with the comma"
    ):
        startup.check(configuration(f"algorithm.adv_estimator={path}:Toy"))


def test_a_member_may_ask_for_all_that_verls_trainer_has(tmp_path):
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    needs = (
        "    def requirements(self, options):\n"
        '        return Requirements(tensors=("rollout_log_probs", "ref_log_prob", "values"), per_token=True)\n\n'
    )
    text = TOY.replace("import Change,", "import Change, Requirements,").replace('"toy"', '"asks"')
    text = text.replace('    identity = {"factor": 1.0}\n', "").replace("    def apply", f"{needs}    def apply")
    text = text.replace("* options.factor", '+ batch.tensors["ref_log_prob"] + batch.tensors["values"]')
    (path := tmp_path / "asks.py").write_text(text)
    check(name := f"{path}:Toy")
    settings = {
        "actor_rollout_ref.rollout.calculate_log_probs": "rollout_log_probs",
        "actor_rollout_ref.actor.use_kl_loss": "ref_log_prob",
        "critic.enable": "values",
    }
    for key, tensor in settings.items():
        made = [f"{other}=True" for other in settings if other != key]
        with pytest.raises(OptionError, match=rf"{key}=.*: asks needs {tensor}, which verl then .*; set it to True"):
            startup.check(configuration(f"algorithm.adv_estimator={name}", f"{key}=False", *made))
    config = configuration(f"algorithm.adv_estimator={name}", *(f"{key}=True" for key in settings))
    startup.check(config)
    rewards, mask = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.ones(2, 2, dtype=torch.int64)
    batch = {name: torch.full((2, 2), value) for name, value in zip(settings.values(), (-0.3, -0.1, 0.5), strict=True)}
    keys = types.SimpleNamespace(keys=["a_0_0", "a_1_0"], tags=[{}, {}], partition_id="train")
    step = TrainerStep(types.SimpleNamespace(config=config), keys, {}, None, startup.check(config))
    step.data = types.SimpleNamespace(batch=batch)
    with entered(step):
        advantages, _ = get_adv_estimator_fn(name)(rewards, mask, ["a", "a"], config.algorithm)
    half = 0.5**0.5
    assert torch.allclose(advantages, torch.tensor([[half + 0.4] * 2, [-half + 0.4] * 2]), atol=1e-4)
    batch["ref_log_prob"] = batch["ref_log_prob"] * torch.nan
    with entered(step), pytest.raises(TensorError, match="ref_log_prob of row 0, token 0 is nan"):
        get_adv_estimator_fn(name)(rewards, mask, ["a", "a"], config.algorithm)


@pytest.mark.parametrize(
    "field,message",
    [
        (Field.ENTROPY_COEF, r"faulty gave entropy_coef of shape \[18, 7\]; it is one number for a row, \[18, 1\]"),
        ("weight", "faulty gave a field 'weight'; use one of egsw_plugin.fields, as Field.WEIGHT"),
    ],
)
def test_a_field_that_the_worker_could_not_take_is_refused(field, message):
    faulty = Faulty(lambda batch: Change(batch.advantages, {field: batch.entropy}))
    with pytest.raises(TensorError, match=message):
        apply(Chain("faulty", "grpo", (Link(faulty, NoOptions(), "faulty"),)), make_batch(9))


def test_a_base_that_divides_by_a_groups_deviation_is_refused():
    class Divides(Base):
        """Reward less the mean, over the deviation."""

        name = "divides"

        def advantages(self, options, batch):
            return Change(((batch.outcome - batch.outcome.mean()) / batch.outcome.std()).unsqueeze(1))

    chain = Chain("divides", Link(Divides(), NoOptions(), "divides"))
    equal, empty = make_batch(9, outcome=torch.ones(18)), make_batch(9)
    empty.outcome[empty.rows.count == 0] = 0.0
    assert bool(apply(chain, dataclasses.replace(empty, base=None)).advantages.isfinite().all())
    with pytest.raises(TensorError, match=r"not finite: the advantages that divides made .*, nan at row 0"):
        apply(chain, dataclasses.replace(equal, base=None))


def in_place(batch):
    batch.tensors["entropy"].data.mul_(2)
    return Change(batch.advantages)


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda b: Change(b.advantages.mul_(1.1)), "faulty changes the batch's base in place, which others read"),
        (lambda b: Change(b.advantages + b.entropy.clamp_(max=1)), "faulty changes the batch's entropy in place"),
        (lambda b: Change(b.advantages * b.mask.logical_not_()), "faulty changes the batch's mask in place"),
        (lambda b: Change(b.advantages * b.outcome.sub_(0.5).mean()), "faulty changes the batch's outcome in place"),
        (lambda b: Change(b.advantages.numpy()), "advantages of type ndarray; it must be a tensor"),
        (lambda b: Change(b.advantages.half()), r"advantages of dtype torch.float16; it must be float32 or float64"),
        (lambda b: Change(b.advantages, metrics={"x/mean": torch.ones(3)}), "faulty gave the metric x/mean=tensor"),
        (lambda b: Change(b.advantages, metrics={"x/mean": math.inf}), "x/mean=inf of this batch: this metric of its"),
        (
            lambda b: Change(b.advantages, {Field.WEIGHT: b.entropy - 1e3}),
            r"the field weight of faulty is -\d+\.\d+ at row 0, token 0; it must be >= 0",
        ),
    ],
)
def test_what_a_member_must_not_give(make, message):
    needs = Requirements(tensors=("entropy",), fields={Field.WEIGHT: ""}, per_token=True)
    link = Link(Faulty(make, needs), NoOptions(), "algorithm.faulty")
    batch = make_batch(9, mask=torch.ones(18, 7, dtype=torch.int64))
    with pytest.raises(TensorError, match=message):
        apply(Chain("own", "grpo", (link,)), batch)


def test_a_base_of_half_precision_and_a_chain_in_inference_mode():
    batch, chain = make_batch(9), read({"credit": {"transforms": ["egsw", "sign_weight"]}}, "egsw_plugin")
    expected = apply(chain, batch).advantages
    half = apply(chain, dataclasses.replace(batch, base=batch.base.bfloat16())).advantages
    assert half.dtype == torch.float32 and torch.allclose(half, expected, atol=0.05)
    with torch.inference_mode():
        assert torch.equal(apply(chain, make_batch(9)).advantages, expected)


def test_a_negative_weight_where_no_policy_token_is():
    needs = Requirements(fields={Field.WEIGHT: ""})
    outside = Faulty(lambda b: Change(b.advantages, {Field.WEIGHT: torch.where(b.mask, 1.0, -1.0)}), needs)
    result = apply(Chain("own", "grpo", (Link(outside, NoOptions(), "own"),)), make_batch(9))
    assert bool((result.fields[Field.WEIGHT] < 0).any())


def test_a_member_sees_the_tensors_that_it_asks_for_and_no_others():
    """One that reads what its neighbour asked for would fail alone."""
    batch = make_batch(9)
    first = Link(Faulty(lambda b: Change(b.advantages + b.entropy)), NoOptions(), "algorithm.first")
    reader = Faulty(lambda b: Change(b.advantages * b.entropy), Requirements(per_token=True))
    second = Link(reader, NoOptions(), "algorithm.second")
    apply(Chain("own", "grpo", (first,)), batch)
    with pytest.raises(UndeclaredError, match=r"algorithm\.second\): it reads entropy without asking"):
        apply(Chain("own", "grpo", (first, second)), batch)
    with pytest.raises(TensorError, match="faulty needs entropy, which the batch does not have"):
        apply(Chain("own", "grpo", (first,)), dataclasses.replace(batch, tensors={}))


@pytest.mark.parametrize("name,message", [("egsw", "a name of egsw-plugin"), ("opo", "a name of verl")])
def test_the_kit_refuses_a_name_that_is_taken(name, message, tmp_path):
    """As a run does, where the file's member would stand beside the other of its name."""
    with pytest.raises(MemberError, match=f"Own calls itself {name!r}, {message}"):
        check(type("Own", (Transform,), {"name": name, "apply": lambda self, options, batch: Change(batch.advantages)}))
    path = tmp_path / "own.py"
    path.write_text(
        "from egsw_plugin.methods.interface import Transform\n"
        f"class Own(Transform):\n    name = {name!r}\n    def apply(self, options, batch): ...\n"
    )
    with pytest.raises(MemberError, match=f"calls itself {name!r}, which is the name of a member of"):
        MEMBERS[f"{path}:Own"]


def test_requirements_that_are_none_and_a_member_that_there_is_not():
    with pytest.raises(MemberError, match=r"faulty\.requirements gave a function; return Requirements"):
        check(Faulty(lambda b: Change(b.advantages), lambda: None))
    with pytest.raises(MemberError, match="there is no member 'gtop'; did you mean 'gtpo'"):
        check("gtop")


@pytest.mark.parametrize(
    "apply,message",
    [
        (lambda b: Change(b.advantages * b.entropy.nansum()), "more columns|what stands there|matters|not finite"),
        (lambda b: Change(b.advantages * torch.arange(len(b.outcome)).unsqueeze(1)), "row order"),
        (lambda b: Change(b.advantages * torch.rand(1)), "repeated"),
        (in_place, "in place"),
        (lambda b: Change(b.advantages / b.entropy), "not finite"),
        (lambda b: Change(b.advantages, {Field.WEIGHT: b.entropy}), "publishes"),
        (lambda b: Change(b.advantages, metrics={"mean_share": 1.0}), "must end in"),
        (lambda b: Change(b.advantages, metrics={"Total/mean": 1.0}), "holds 'total' before its end, by which verl"),
        (lambda b: Change(b.advantages, metrics={"x/mean": math.nan}), "faulty made x/mean=nan"),
        (lambda b: Change(b.advantages * b.old_log_probs), r"faulty \(.*faulty\): it reads old_log_probs"),
        (
            lambda b: Change(b.advantages * b.success.unsqueeze(1)),
            r"faulty \(.*\): no member says what the success that it reads is; .*success=Success",
        ),
    ],
)
def test_the_kit_finds_faults(apply, message):
    """A kit that finds nothing tests nothing."""
    with pytest.raises((CheckFailed, TensorError), match=message):
        check(Faulty(apply))


@pytest.mark.parametrize("name,option_name", [("total_credit", "beta"), ("own", "summit")])
def test_the_kit_reads_the_names_of_a_member_and_of_an_option_that_moves(name, option_name):
    rule = Step(target=0.3, initial=0.1)
    declared = option(0.5, in_range(0, 1, inclusive=True), "its part", controllers=(rule,))
    options = dataclasses.make_dataclass("Own", [(option_name, float, declared)], bases=(Options,), frozen=True)
    body = {"name": name, "options_type": options, "apply": lambda self, options, batch: Change(batch.advantages)}
    with pytest.raises(CheckFailed, match=f"{name}/.*/mean holds '(total|sum)' before its end"):
        check(type("Own", (Transform,), body))


def test_the_kit_finds_a_transform_that_throws_away_what_another_has_made():
    faulty = Faulty(lambda batch: Change(batch.base))
    faulty.identity = {}
    with pytest.raises(CheckFailed, match=r"identity {} changes advantages, another transform's: .*batch.advantages"):
        check(faulty)


def test_what_a_check_of_ones_own_says():
    """Words of the declaration, of the function, or both."""

    @sampled([0.5])
    def own(value):
        raise ValueError("use a share > 0")

    @sampled([0.5], values="a share > 0")
    def declared(value):
        return float(value)

    for check_, value, message in (
        (own, 0, "use a share > 0"),
        (optional(own), 0, "use null, or a share > 0"),
        (declared, "x", "use a share > 0; could not convert string to float: 'x'"),
        (optional(declared), "x", "use null, or a share > 0; could not convert string to float: 'x'"),
        (or_auto(finite), "aut", "use auto, or a finite number"),
        (optional(finite), "1", "use null, or a finite number, not text"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            check_(value)


@sampled([0.5, 0.8])
def any_number(value):
    """Its default, 0, is none of its samples."""
    return float(value)


@dataclasses.dataclass(frozen=True)
class Refusing(Options):
    """Some values are refused, whatever the other option is."""

    first: float = option(0.0, any_number, "any")
    second: bool = option(False, flag, "any")

    def refusals(self):
        return [("first", "leave it out")] if self.first else []


@dataclasses.dataclass(frozen=True)
class Part(Options):
    """A sub-section."""

    kept: float = option(0.0, any_number, "any")
    lost: float = option(0.0, any_number, "any")


@dataclasses.dataclass(frozen=True)
class RefusingBelow(Options):
    """The same, of an option of a sub-section."""

    part: Part = option(Part(), Part, "a part")

    def refusals(self):
        return [("part.lost", "leave it out")] if self.part.lost else []


@dataclasses.dataclass(frozen=True)
class ToBeSet(Options):
    """One that has no default that works, and one that moves by default and is compared."""

    first: float | None = option(None, optional(positive), "any")
    low: float = option(
        Step(target=0.3, initial=0.1), in_range(0, 1, inclusive=True), "x", controllers=(Step(target=0.3),)
    )

    def refusals(self):
        return [("first", "set it above low")] if self.first is None or self.low > self.first else []


@dataclasses.dataclass(frozen=True)
class AlwaysRefusing(Refusing):
    """The defaults, too."""

    def refusals(self):
        return [("second", "set another option")]


@pytest.mark.parametrize(
    "options_type,message",
    [
        (Refusing, "faulty: all samples of first are refused; give `options`"),
        (RefusingBelow, "faulty: all samples of part.lost are refused; give `options`"),
        (ToBeSet, "faulty with its defaults: refused: first: set it above low"),
        (AlwaysRefusing, "faulty with its defaults: refused: second: set another option"),
    ],
)
def test_the_kit_passes_over_no_option(options_type, message):
    faulty = Faulty(lambda batch: Change(batch.advantages))
    faulty.options_type = options_type
    with pytest.raises(CheckFailed, match=message):
        check(faulty)
    with pytest.raises(CheckFailed, match=r"egsw with {'weigh_kl': True}: refused: weigh_kl: .*channel=loss"):
        check(MEMBERS["egsw"], {"weigh_kl": True})


def test_the_kit_tries_an_option_that_must_be_set():
    own = Faulty(lambda batch: Change(batch.advantages))
    own.options_type = ToBeSet
    assert check(own, {"first": 2.0}) > 5


def test_members_that_disagree_on_success_are_told_where_to_set_it_alike():
    algorithm = {"gtpo": {"success": "acc"}, "credit": {"base": "gtpo", "transforms": ["judging"]}}
    success = Requirements(success=Success())
    body = {"name": "judging", "requirements": lambda self, options: success, "apply": lambda *_: None}
    judging = Link(type("Judging", (Transform,), body)(), NoOptions(), "algorithm.credit.judging")
    chain = read({**algorithm, "credit": {"base": "gtpo", "transforms": ["sign_weight"]}}, "egsw_plugin")
    fix = "algorithm.gtpo.success='acc': a chain has one rule, and judging has success score; set them alike"
    with pytest.raises(OptionError, match=fix):
        _ = dataclasses.replace(chain, transforms=(judging,)).success


@pytest.mark.parametrize(
    "read_,message",
    [
        (lambda b: b.success.unsqueeze(1), "no member says what the success that it reads is; declare"),
        (lambda b: b.entropy, "it reads entropy without asking for it; name it in Requirements.tensors"),
        (lambda b: b.tensors["values"], "it reads values without asking for it; name it in Requirements.tensors"),
    ],
)
def test_what_a_member_reads_undeclared_ends_the_run_before_its_first_step(read_, message):
    """With the member's name: nothing else says which of several it was."""
    level = Link(Faulty(lambda b: Change(b.advantages), Requirements()), NoOptions(), "algorithm.level")
    own = Faulty(lambda b: Change(b.advantages * read_(b)), Requirements(per_token=True))
    body = {"name": "first", "advantages": lambda self, options, batch: Change(read_(batch))}
    first = Link(type("First", (Base,), body)(), NoOptions(), "algorithm.credit.first")
    for chain, name in (
        (Chain("own", "grpo", (level, Link(own, NoOptions(), "algorithm.own"))), r"faulty \(algorithm\.own\)"),
        (Chain("own", first, (level,)), r"first \(algorithm\.credit\.first\)"),
    ):
        with pytest.raises(UndeclaredError, match=f"^{name}: {message}"):
            compile_for(chain)
    compile_for(Chain("own", "grpo", (Link(Faulty(lambda b: 1 / 0), NoOptions(), "own"),)))


def undefined_without_tokens(tokens):
    return {"actor/ratio/max": float(tokens.ratio[tokens.mask].detach().max())} if bool(tokens.mask.any()) else {}


@pytest.mark.parametrize(
    "rule,declared,message",
    [
        (Rule(metrics=undefined_without_tokens), {}, "actor/ratio/max must be there in every micro-batch"),
        (
            Rule(metrics=lambda tokens: {"actor/ratio/mean": float(tokens.ratio[tokens.mask].detach().mean())}),
            {},
            "actor/ratio/mean is nan in some micro-batch",
        ),
        (Rule(factor=weight_field), {}, "it asks for weight, which its `reads` do not name"),
        (Rule(), {"needs": {Field.WEIGHT: "egsw"}}, "it needs weight, which its `reads` do not name"),
        (
            Rule(factor=lambda tokens: tokens.fields[Field.WEIGHT]),
            {"reads": frozenset({Field.WEIGHT})},
            "it fails where weight did not arrive .*: name in `needs`",
        ),
        (
            Rule(factor=lambda tokens: tokens.fields[Field.ANCHOR] if Field.WEIGHT in tokens.fields else None),
            {"reads": frozenset({Field.WEIGHT, Field.ANCHOR})},
            "it fails where anchor did not arrive",
        ),
        (Rule(metrics=lambda tokens: {"actor/total_gain": 1.0}), {}, "actor/total_gain holds 'total'"),
        (Rule(metrics=lambda tokens: {"actor/domination/mean": 1.0}), {}, "actor/domination/mean holds 'min'"),
        (Rule(), {"requirements": lambda self, options: Requirements(tensors=("nonsense",))}, "refused: .*'nonsense'"),
        (Rule(metrics=lambda tokens: {"actor/gain": 1.0, "actor/gain/max": 1.0}), {}, None),
        (Rule(factor=weight_field), {"reads": frozenset({Field.WEIGHT})}, None),
    ],
)
def test_the_kit_finds_faults_of_policy_losses(rule, declared, message):
    own = type("Own", (PolicyLoss,), {"name": "own", "rule": lambda self, options: rule, **declared})
    if message is None:
        assert check(own)
    else:
        with pytest.raises(CheckFailed, match=message):
            check(own)


def with_gradient(batch):
    with torch.enable_grad():
        return Change(batch.advantages, {Field.ANCHOR: batch.entropy * 2})


def test_the_kit_takes_a_tensor_of_the_batch_as_a_field_and_no_gradient():
    needs = Requirements(per_token=True, tensors=("entropy",), fields={Field.ANCHOR: ""})
    assert check(Faulty(lambda batch: Change(batch.advantages, {Field.ANCHOR: batch.entropy}), needs))
    with pytest.raises(CheckFailed, match="a gradient through anchor"):
        check(Faulty(with_gradient, needs))


def test_the_page_says_how_to_see_results_without_verl(capsys):
    page = (ROOT / "docs" / "extending.md").read_text()
    (block,) = [part for part in page.split("\n\n") if "chain = read(" in part]
    imports = page.split("\n\n")[page.split("\n\n").index(block) - 1]
    exec(textwrap.dedent(f"{imports}\n{block}").replace("/home/me", str(ROOT / "examples")), {})
    assert "tensor([[" in capsys.readouterr().out
    batch = make_batch(0)
    assert "`x.expand(batch.mask.shape)[batch.mask]`" in page
    assert batch.advantages.expand(batch.mask.shape)[batch.mask].ndim == 1
