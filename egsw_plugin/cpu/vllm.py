"""vLLM's side, called through the entry point group ``vllm.general_plugins`` in each of its processes."""

import contextlib
import functools
import time
from typing import Any

from . import asked

SOON = 1.0  # seconds after a message in which vLLM expects the next one
LOOK_MS = 1  # between two looks for it


def register() -> None:
    """Compute with the weights that verl updates, and leave the cores to what computes."""
    if asked():
        import vllm._custom_ops as ops

        # oneDNN would compute with packed copies, which verl's updates never reach.
        ops._supports_onednn = False
        with contextlib.suppress(ImportError):  # another vLLM: it is slower, and right all the same
            from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

            _look_without_a_busy_core(SpinCondition)


def _look_without_a_busy_core(condition: Any) -> None:
    """vLLM's processes ask each other without pause for a second after a message, on a core that another needs.

    They must ask all the same, and often: of two messages within a millisecond the second one's notice is dropped (the
    writer's high-water mark is 1), and who only waited for it would sleep until vLLM looks again, after five seconds.
    """
    wait = condition.wait

    def wait_a_moment(self, timeout_ms=None):
        wait(self, LOOK_MS if time.monotonic() <= self.last_read + SOON else timeout_ms)

    condition.__init__ = functools.partialmethod(condition.__init__, busy_loop_s=0)
    condition.wait = wait_a_moment
