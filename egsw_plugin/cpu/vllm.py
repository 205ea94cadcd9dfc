"""vLLM's side, called through the entry point group ``vllm.general_plugins`` in each of its processes."""

from . import asked


def register() -> None:
    """Turn oneDNN off: vLLM would compute with packed copies of the weights, which verl's updates never reach."""
    if asked():
        import vllm._custom_ops as ops

        ops._supports_onednn = False
