"""What this plugin runs on; pyproject.toml and the README repeat it, and tests compare them. Imports nothing."""

SUPPORTED_VERL = ">=0.9"  # what pip must find; a run is refused for what verl lacks, never for its number
TRIED_VERL = {  # version: what was run on it
    "0.9.1": "everything",
    "0.9.0": "the contract's tests; those of bridge and losses with an earlier version of this plugin",
    "0.10.0.dev": "the same, on verl's main of 2026-08-22",
}
SUPPORTED_PYTHON = ((3, 10), (3, 13))  # from the first, below the second
INSTALL_VERL = f"pip install 'verl[verl-core]{SUPPORTED_VERL}'"
