r"""Grading processes: comparisons of answers with a time limit that holds, from any thread, whatever the text.

math-verify's own time limits are signals, which work in the main thread alone, and verl calls reward functions in
threads. Hostile text can also exhaust memory or kill the interpreter. So comparisons run in a few processes, started at
the first call and replaced when they run late or die.

>>> grade(r"\boxed{\frac12}", r"\boxed{0.5}")
True
"""

import importlib.util
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import util
from typing import Any

from ..errors import GraderError

try:
    from pebble import ProcessExpired, ProcessPool

    # Imported by the grading processes alone, where nobody reads why they die.
    if importlib.util.find_spec("math_verify") is None:
        raise ModuleNotFoundError("No module named 'math_verify'", name="math_verify")
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"no module {missing.name!r}: egsw_plugin.rewards needs pip install 'egsw-plugin[recipes]', "
        "into the environment that verl's processes use"
    ) from missing

PROCESSES = 2  # for each process that grades; verl has reward.num_workers of those
COMPARISONS = 2000  # after which a grading process is replaced, for the memory that sympy's caches take
START = 120.0  # seconds in which a grading process must start, on a busy machine

logger = logging.getLogger(__name__)


class Pool:
    """This process's grading processes, and in a fork of it the fork's own; for the life of both.

    Args:
        prepare: What each of them calls first.
    """

    def __init__(self, prepare: Callable[[], None]):
        self._prepare = prepare
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a fork has neither the pool's threads nor its children

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(PROCESSES)  # so that no comparison waits inside pebble's queue
        self._pool: ProcessPool | None = None
        self._at_exit: util.Finalize | None = None

    def current(self) -> ProcessPool:
        with self._lock:
            if self._pool is None:
                # Spawned: a fork of a threaded process (a Ray worker) can inherit a lock that nobody will release.
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPool(PROCESSES, COMPARISONS, initializer=self._prepare, context=context)
                if self._at_exit is None:
                    # Unlike atexit this runs in children of multiprocessing too, and before their children are joined.
                    self._at_exit = util.Finalize(None, self.discard, exitpriority=100)
            return self._pool

    def discard(self, broken: ProcessPool | None = None) -> None:
        with self._lock:
            pool = self._pool
            if pool is None or (broken is not None and pool is not broken):
                return  # another thread was faster
            self._pool = None
        with suppress(Exception):  # what a broken pool still holds does not matter
            pool.stop()
            pool.join()

    def run(self, function: Callable, *arguments: Any, seconds: float) -> Any:
        """``function(*arguments, seconds)`` in a grading process; see `grade`. The last argument is the answer."""
        answer = str(arguments[-1])
        with self._free:
            deaths = 0
            for _attempt in range(3):
                pool = self.current()
                try:
                    future = pool.schedule(function, (*arguments, seconds), timeout=seconds)
                except RuntimeError:  # it broke between two comparisons
                    self.discard(pool)
                    continue
                try:
                    return future.result(timeout=seconds + START)
                except TimeoutError:
                    if future.done():
                        return _ungraded(f"took longer than {seconds:g} s", answer)
                    self.discard(pool)
                except ProcessExpired:
                    deaths += 1
                    if deaths == 2:  # the first may have been somebody else's doing
                        return _ungraded("killed the grading process twice", answer)
                except (BrokenProcessPool, CancelledError):
                    self.discard(pool)
                except Exception as error:
                    return _ungraded(f"made the comparison fail with {type(error).__name__}", answer)
        raise GraderError("the processes that grade answers do not start or do not stay; their own output says why")


def _prepare() -> None:
    from .equivalence import prepare

    prepare()


def _compare(truth: str, answer: str, seconds: float) -> bool | None:
    from .equivalence import equivalent_within

    return equivalent_within(answer, truth, seconds)


def _ungraded(reason: str, answer: str) -> None:
    logger.warning("an answer %s and counts as wrong: %s", reason, ascii(answer[:200]))


def grade(answer: str, truth: str, seconds: float = 10.0) -> bool | None:
    """Whether an answer equals the truth, by `equivalence.equivalent` in a grading process.

    Args:
        answer, truth: As `equivalence.equivalent` takes them.
        seconds: The time after which the comparison is stopped.

    Returns:
        None where there is no verdict: it ran late, failed, or killed its process (twice).

    Raises:
        GraderError: The grading processes do not start.

    >>> grade(r"\\boxed{3}", r"\\boxed{4}")
    False
    """
    return _pool.run(_compare, truth, answer, seconds=seconds)


_pool = Pool(_prepare)
