"""Run verl and vLLM without an accelerator: a platform and a few patches, inert unless VERL_PLATFORM=cpu."""

import os


def asked() -> bool:
    """True in a process whose environment holds VERL_PLATFORM=cpu."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def install_if_asked() -> None:
    """Register the platform and hook the patches; imports nothing unless asked."""
    if asked():
        from . import patches, platform

        platform.register()
        patches.install()
