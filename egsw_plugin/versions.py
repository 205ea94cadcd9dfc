"""What this plugin runs on, which pyproject.toml and the README repeat and tests compare, and what is installed."""

from importlib import metadata

SUPPORTED_VERL = ">=0.9"  # what pip must find; a run is refused for what verl lacks, never for its number
TRIED_VERL = {  # version: what was run on it
    "0.9.1": "everything",
    "0.9.0": "the contract's tests; those of bridge and losses with an earlier version of this plugin",
    "0.10.0.dev": "the same, on verl's main of 2026-08-22",
}
SUPPORTED_PYTHON = ((3, 10), (3, 13))  # from the first, below the second
INSTALL_VERL = f"pip install 'verl[verl-core]{SUPPORTED_VERL}'"


def installed(distribution: str) -> str | None:
    """The version of a distribution in this environment, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
