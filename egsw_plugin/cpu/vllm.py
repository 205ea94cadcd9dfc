"""vLLM's side, called through the entry point group ``vllm.general_plugins`` in each of its processes."""

import contextlib
import functools

from . import asked


def register() -> None:
    """Compute with the weights that verl updates, and leave the cores to what computes."""
    if asked():
        import vllm._custom_ops as ops

        # oneDNN would compute with packed copies, which verl's updates never reach.
        ops._supports_onednn = False
        with contextlib.suppress(ImportError):  # another vLLM: it is slower, and right all the same
            from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

            # vLLM's processes ask each other without pause for a second after a message, on a core that another needs.
            SpinCondition.__init__ = functools.partialmethod(SpinCondition.__init__, busy_loop_s=0)
