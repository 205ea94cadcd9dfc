"""Members of the family in real runs: driver, fields to the loss, controllers, and the metrics that prove their effect.

Maps to methods/*.py under verl's V1 trainer. In every test run: one chain with a policy loss of its own. As a
combination (make test-combinations): each recipe by itself. Killing and resuming is test_family_runs.py.
"""

import pytest
from launch import LOSS_MODE, TIME_LIMIT, train

from egsw_plugin.records import read_records, whatif

# What must be seen of a recipe in step 2 of the tiny task: a metric, and what it is between.
EFFECTS = {
    "repo": ("repo/changed/mean", 0.9, 1.0),
    "repo_r": ("repo_r/changed/mean", 0.1, 1.0),
    "stare": ("stare/chosen/mean", 0.01, 0.2),
    "ar": ("ar/factor/mean", 0.8, 0.9999),
    "batch_clip_cov": ("batch_clip_cov/covariance/max", 0.01, 100),
    "batch_kl_cov": ("batch_kl_cov/chosen/mean", 1e-4, 0.05),
    "archer": ("archer/uncertain/mean", 0.1, 0.6),
    "adaptive_clip": ("adaptive_clip/upper/mean", 2.7, 2.8),  # one step up
    "ce_gppo": ("actor/pg_clipfrac", 0.0, 1.0),
    "fipo": ("actor/fipo_factor/mean", 0.8, 1.2),
    "success_sign": ("success_sign/success/mean", 0.05, 0.95),
    "qae": ("qae/zero/mean", 0.1, 1.0),
    "sign_weight": ("sign_weight/above_zero/mean", 0.01, 0.99),
    "high_entropy": ("high_entropy/kept/mean", 0.15, 0.25),
    "entropy_advantage": ("entropy_advantage/changed/mean", 0.1, 1.0),
    "adaptive_entropy": ("adaptive_entropy/coefficient/mean", 5e-5, 2e-4),  # one step up
}
CHAIN = (
    "+algorithm.credit={base: qae, transforms: [repo_r, stare, batch_clip_cov, archer], "
    "repo_r: {zeta: {target: 9.0}}, stare: {target: null, variant: C2, M: {target: 9.0}}, "
    "batch_clip_cov: {ratio: 0.02, low: 0.0}, fipo: {decay: 4.0}}"
)


@pytest.mark.verl_run
@pytest.mark.timeout(TIME_LIMIT + 100)
def test_a_chain_of_four_with_a_loss_of_its_own(tmp_path):
    """The entropy is always below 9 nats, so that zeta doubles in each step, and M falls by 0.01."""
    run = train(
        tmp_path / "out",
        CHAIN,
        f"{LOSS_MODE}=fipo",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "+algorithm.record={every: 2, groups: 2}",
        ADV="egsw_plugin",
    )
    assert run.code == 0
    check_records(run, tmp_path)
    assert run.column("repo_r/zeta/mean") == pytest.approx([0.01, 0.02])
    assert run.column("stare/M/mean") == pytest.approx([0.9, 0.89])
    for step in run.steps:
        assert step["repo_r/changed/mean"] > 0 and step["stare/chosen/mean"] > 0
        assert 0 < step["batch_clip_cov/chosen/mean"] <= 0.02
        assert 0.1 < step["archer/uncertain/mean"] < 0.6
        assert step["actor/kl_loss"] >= 0 and step["actor/grad_norm"] > 0
        assert step["actor/fipo_factor/mean"] != 1 and 0.8 <= step["actor/fipo_factor/mean"] <= 1.2


def check_records(run, folder):
    """Two whole groups of steps 1 and 2, mixed ones first: the numbers of the step, on the tokens of the step."""
    first, second = read_records(folder)
    assert (first.step, second.step) == (1, 2)
    for record, step in zip((first, second), run.steps, strict=True):
        uids = [row["uid"] for row in record.rows]
        assert len(set(uids)) == 2 and len(uids) == 2 * uids.count(uids[0])
        assert (
            len({row["reward"] for row in record.rows if row["uid"] == uids[0]}) > 1
            or not step["credit/mixed_groups/mean"]
        )
        for row in record.rows:
            lengths = {len(row[name]) for name in ("ids", "tokens", "policy", "old_log_prob", "entropy", "advantage")}
            assert len(lengths) == 1 and all(row["policy"])
            assert all(entropy >= 0 for entropy in row["entropy"]) and all(p <= 1e-3 for p in row["old_log_prob"])
            assert row["success"] == (row["score"] > 0.5) and "".join(row["tokens"])[:3] == row["response"][:3]
        found = whatif.measure(whatif.chain_of("egsw"), [record])
        assert 0.5 < found["effective_share"] <= 1


@pytest.mark.combination
@pytest.mark.timeout(TIME_LIMIT + 100)
@pytest.mark.parametrize("name", EFFECTS)
def test_the_recipe_of_a_member(tmp_path, name):
    run = train(tmp_path / "out", ADV=name)
    metric, low, high = EFFECTS[name]
    assert run.code == 0 and len(run.steps) == 2
    assert low <= run.steps[-1][metric] <= high
    assert all(value > 0 for value in run.column("actor/grad_norm"))


def test_every_recipe_of_a_member_is_run():
    from egsw_plugin.methods import LOSSES, MEMBERS

    own = {"egsw", "gtpo", "grpo_s", "grpo_s_geometric", "egsw_plugin"}  # the first ones, in the other runs
    assert set(EFFECTS) == {*MEMBERS.own, *LOSSES.own} - own
