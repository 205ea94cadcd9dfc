"""`python -m egsw_plugin` is `egsw-plugin`, of this Python and of no other in the path."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
