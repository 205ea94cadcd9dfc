"""Each recipe of a member of the family by itself, as a combination: what must be seen of it in verl's metrics.

Maps to methods/*.py under verl's V1 trainer. A chain of several, in every test run, is test_family_runs.py.
"""

import pytest
from launch import TIME_LIMIT, train

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
