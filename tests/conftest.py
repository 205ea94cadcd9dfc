"""Order: whatever starts the real trainer comes last, so that a fast failure shows first. And both kinds of kernels."""

import os

import hypothesis
import kept_loops
import pytest
import torch

from egsw_plugin.kernels import compiled

# For runs of tests that ran before, in another mode, where each example is slow: `--hypothesis-profile=few`.
hypothesis.settings.register_profile("few", max_examples=15, deadline=None)


def pytest_configure(config):
    """Keep the compiled loops for all test processes, and for those of them that ask for it; or leave them as they are
    written. (A run does not take them so, as NUMBA_DISABLE_JIT would have it.)"""
    if "INTERPRETED_LOOPS" in os.environ:
        import numba

        numba.config.DISABLE_JIT = True
    if hasattr(config, "cache"):
        os.environ[kept_loops.FOLDER] = str(config.cache.mkdir("numba"))
    kept_loops.keep()


def pytest_collection_finish(session):
    """One thread, here and in the processes that tests start: others would wait for tensors of some numbers, busily.

    Not for real runs, which are launched as a user launches them.
    """
    if not any(item.get_closest_marker(mark) for item in session.items for mark in ("verl_run", "combination")):
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("verl_run") is not None)


@pytest.fixture(scope="module", params=["compiled", "torch"])
def implementation(request):
    """The kernels' compiled loops, and the plain torch that stands in for them."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(compiled, "loops_for", lambda tensor: None)
        yield request.param


@pytest.fixture(scope="module")
def graded_in_this_process():
    """The comparison of a grading process, without the way there."""
    from egsw_plugin.rewards import math
    from egsw_plugin.rewards.equivalence import equivalent_within

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("egsw_plugin.rewards.equivalence.limit_time", lambda seconds: None)
        patch.setattr(math, "grade", lambda answer, truth, seconds: equivalent_within(answer, truth, seconds))
        yield
