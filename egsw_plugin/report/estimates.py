"""What a validation says about a model, from counts alone: Mean, Pass@k, best@k, majority votes, and intervals.

A prompt has `samples` responses of which `correct` are right; every estimate is a value a prompt, to be averaged over
prompts. NaN marks a prompt that has too few responses for that k.
"""

from collections import Counter
from functools import lru_cache
from math import comb

import numpy as np

LADDER = (1, 4, 8, 16, 32)  # the k of Pass@k
RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 200  # bounds the memory of the draws: this many times the number of prompts


def mean_success(correct: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """The share of right responses of each prompt; its mean over prompts is Mean@k with k responses a prompt.

    Args:
        correct: number of right responses, [prompts].
        samples: number of responses, at least 1, [prompts].

    Returns:
        Shares in [0, 1], [prompts].

    >>> mean_success(np.array([1, 4]), np.array([4, 4])).tolist()
    [0.25, 1.0]
    """
    return correct / samples


def pass_at_k(correct: np.ndarray, samples: np.ndarray, k: int) -> np.ndarray:
    """Pass@k without bias: 1 - C(n-c, k) / C(n, k), the share of the k-subsets that hold a right response.

    Chen and others, arXiv 2107.03374, Eq 1.

    Args:
        correct: c, number of right responses, [prompts].
        samples: n, number of responses, [prompts].
        k: size of the subsets, at least 1.

    Returns:
        Probabilities, NaN where a prompt has fewer than k responses, [prompts].

    >>> pass_at_k(np.array([0, 1, 3]), np.array([4, 4, 4]), 2).tolist()
    [0.0, 0.5, 1.0]
    """
    values = np.full(len(samples), np.nan)
    for n in np.unique(samples[samples >= k]):
        table = np.array([1 - comb(int(n) - c, k) / comb(int(n), k) for c in range(int(n) + 1)])
        values[samples == n] = table[correct[samples == n]]
    return values


def best_at_k(correct: np.ndarray, samples: np.ndarray, k: int) -> np.ndarray:
    """What verl's `best@k/mean` estimates: k draws with replacement, so 1 - (1 - c/n)^k. At most Pass@k.

    Args:
        correct: c, number of right responses, [prompts].
        samples: n, number of responses, [prompts].
        k: number of draws, at least 1.

    Returns:
        Probabilities, NaN where a prompt has fewer than k responses, [prompts].

    >>> best_at_k(np.array([0, 2, 4]), np.array([4, 4, 4]), 2).tolist()
    [0.0, 0.75, 1.0]
    """
    return np.where(samples >= k, 1 - (1 - correct / samples) ** k, np.nan)


def majority_success(answers: list[str | None], right: list[bool]) -> float:
    """Whether the most frequent answer of one prompt is right. Responses without an answer do not vote.

    Of answers that tie, each counts equally: the expected success of breaking the tie by chance. An answer that was
    judged both ways counts by its share of right judgements.

    Args:
        answers: the answer of each response; None where there is none.
        right: the judgement of each response.

    Returns:
        A value in [0, 1]; 0 if no response has an answer.

    >>> majority_success(["7", "7", "8", None], [True, True, False, False])
    1.0
    >>> majority_success(["7", "8", "7", "8", "9"], [True, False, True, False, False])
    0.5
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    wins = Counter(answer for answer, success in zip(answers, right, strict=True) if success)
    shares = [wins[answer] / most for answer, count in votes.items() if count == most]
    return sum(shares) / len(shares)


def bootstrap_interval(
    values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the mean over prompts: whole prompts are drawn with replacement.

    Args:
        values: one estimate a prompt, finite, [prompts].
        resamples: number of draws of as many prompts as there are.
        seed: of the draws; equal numbers of prompts get equal draws.
        level: of the interval.

    Returns:
        Lower and upper end; None for fewer than two prompts, which say nothing about other prompts.

    >>> bootstrap_interval(np.array([1.0, 1.0, 1.0]))
    (1.0, 1.0)
    >>> bootstrap_interval(np.array([0.5])) is None
    True
    """
    if len(values) < 2:
        return None
    means = _draws(len(values), resamples, seed) @ values / len(values)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    # Rounding of the sums must not put an end outside what a mean can be.
    return max(float(low), float(values.min())), min(float(high), float(values.max()))


@lru_cache(maxsize=4)
def _draws(prompts: int, resamples: int, seed: int) -> np.ndarray:
    """How often each prompt is drawn, [resamples, prompts]; kept, since every estimate of a data set needs the same."""
    generator = np.random.default_rng(seed)
    counts = np.zeros((resamples, prompts), dtype=np.float32)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        rows = counts[start : start + _RESAMPLES_AT_ONCE]
        drawn = generator.integers(prompts, size=rows.shape) + prompts * np.arange(len(rows))[:, None]
        rows += np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    return counts
