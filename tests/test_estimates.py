"""The estimates of a validation: against enumeration, against verl's own numbers, and in their limits.

Every number that a report states comes from these functions. Not exercised here: reading dumps (test_report.py).
"""

from itertools import combinations, product

import numpy as np
import pytest

from egsw_plugin.report.estimates import (
    best_at_k,
    bootstrap_interval,
    majority_success,
    mean_success,
    pass_at_k,
)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_right_response(n):
    for c, k in product(range(n + 1), range(1, n + 1)):
        responses = [1] * c + [0] * (n - c)
        subsets = list(combinations(responses, k))
        expected = sum(any(subset) for subset in subsets) / len(subsets)
        assert pass_at_k(np.array([c]), np.array([n]), k)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_best_at_k_is_the_share_of_all_draws_with_replacement(n):
    for c, k in product(range(n + 1), range(1, n + 1)):
        draws = list(product([1] * c + [0] * (n - c), repeat=k))
        expected = sum(any(draw) for draw in draws) / len(draws)
        assert best_at_k(np.array([c]), np.array([n]), k)[0] == pytest.approx(expected, abs=1e-12)


def test_numbers_worked_by_hand():
    # 32 responses: 1 - C(31,4)/C(32,4) = 4/32; 1 - C(30,4)/C(32,4) = 1 - 28*27/(32*31)
    correct, samples = np.array([0, 1, 2, 32]), np.full(4, 32)
    assert mean_success(correct, samples).tolist() == [0, 1 / 32, 2 / 32, 1]
    assert pass_at_k(correct, samples, 4) == pytest.approx([0, 0.125, 1 - 756 / 992, 1])
    assert pass_at_k(correct, samples, 32).tolist() == [0, 1, 1, 1]
    assert pass_at_k(correct, samples, 1) == pytest.approx(mean_success(correct, samples))
    assert best_at_k(correct, samples, 32)[1] == pytest.approx(1 - (31 / 32) ** 32)


def test_a_prompt_with_fewer_than_k_responses_has_no_value():
    correct, samples = np.array([1, 1]), np.array([2, 4])
    for estimate in (pass_at_k, best_at_k):
        assert np.isnan(estimate(correct, samples, 4)).tolist() == [True, False]


def test_many_responses_do_not_overflow():
    assert pass_at_k(np.array([1]), np.array([4096]), 32)[0] == pytest.approx(32 / 4096)


def test_pass_at_k_grows_with_k_and_is_at_least_best_at_k():
    correct, samples = np.arange(17), np.full(17, 16)
    values = np.array([pass_at_k(correct, samples, k) for k in range(1, 17)])
    assert (np.diff(values, axis=0) >= -1e-12).all()
    assert all((pass_at_k(correct, samples, k) >= best_at_k(correct, samples, k) - 1e-12).all() for k in (1, 4, 16))


@pytest.mark.parametrize(
    "answers, right, expected",
    [
        (["7", "7", "8"], [True, True, False], 1.0),
        (["8", "7", "8"], [False, True, False], 0.0),
        (["7", "8"], [True, False], 0.5),  # a tie counts by the share of tied answers that are right
        (["8", "7"], [False, True], 0.5),  # in any order
        (["7", "8", "9"], [True, False, False], 1 / 3),
        ([None, None, "7"], [False, False, True], 1.0),  # no answer, no vote
        ([None, None], [False, False], 0.0),
        ([], [], 0.0),
        (["7", "7"], [True, False], 0.5),  # judged both ways
    ],
)
def test_majority(answers, right, expected):
    assert majority_success(answers, right) == pytest.approx(expected)


def test_interval_in_its_limits():
    assert bootstrap_interval(np.ones(30)) == (1, 1)
    assert bootstrap_interval(np.zeros(30)) == (0, 0)
    assert bootstrap_interval(np.full(30, 0.1)) == (0.1, 0.1)
    assert bootstrap_interval(np.array([1.0])) is None and bootstrap_interval(np.array([])) is None
    low, high = bootstrap_interval(np.array([0.0, 1.0]))  # means 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    assert (low, high) == (0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_draw_is_a_draw_of_all(seed):
    """The interval of a single one is a point, one of the means of two prompts."""
    low, high = bootstrap_interval(np.array([1.0, 2.0]), resamples=1, seed=seed)
    assert low == high and low in (1, 1.5, 2)


def test_interval_repeats_with_its_seed_and_narrows_with_the_level():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values) == bootstrap_interval(values.copy())
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)
    (low, high), (lower, higher) = bootstrap_interval(values, level=0.5), bootstrap_interval(values)
    assert lower < low < values.mean() < high < higher


def test_interval_is_close_to_the_normal_one_for_many_prompts():
    values = np.random.default_rng(0).random(2000)
    half = 1.96 * values.std() / 2000**0.5
    assert bootstrap_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)


@pytest.mark.parametrize("k", [1, 4])
def test_interval_covers_the_truth_in_a_simulation(k):
    # Success chances p from Beta(2, 3): E[1-p] = 3/5 and E[(1-p)^4] = (3*4*5*6)/(5*6*7*8); 8 responses of 100 prompts.
    truth = {1: 1 - 3 / 5, 4: 1 - 360 / 1680}[k]
    generator, covered = np.random.default_rng(0), []
    for _ in range(400):
        correct = generator.binomial(8, generator.beta(2, 3, size=100))
        low, high = bootstrap_interval(pass_at_k(correct, np.full(100, 8), k), resamples=1000)
        covered.append(low <= truth <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_mean_and_best_are_verls_own():
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    generator = np.random.default_rng(0)
    right = generator.random((12, 8)) < generator.random((12, 1))
    ids = [f"p{prompt}" for prompt in range(12) for _ in range(8)]
    theirs = process_validation_metrics(["x"] * 96, ids, {"acc": right.astype(float).ravel().tolist()})["x"]["acc"]
    correct, samples = right.sum(axis=1), np.full(12, 8)
    assert theirs["mean@8"] == pytest.approx(mean_success(correct, samples).mean())
    for k in (4, 8):
        assert theirs[f"best@{k}/mean"] == pytest.approx(best_at_k(correct, samples, k).mean(), abs=0.01)
        assert theirs[f"best@{k}/mean"] < pass_at_k(correct, samples, k).mean()
