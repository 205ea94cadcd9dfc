"""What verl loads in every process (entry point group ``verl.plugins``)."""

from . import cpu

cpu.install_if_asked()
