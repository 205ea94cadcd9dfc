"""CPU support (stub)."""


def install_if_asked():
    """Placeholder until the CPU platform lands."""
