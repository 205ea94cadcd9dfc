"""What this plugin runs on; pyproject.toml and the README repeat it, and tests compare them. Imports nothing."""

SUPPORTED_VERL = ">=0.9.1,<0.10"
SUPPORTED_PYTHON = ((3, 10), (3, 13))  # from the first, below the second
INSTALL_VERL = f"pip install 'verl[verl-core]{SUPPORTED_VERL}'"
