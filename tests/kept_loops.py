"""The compiled loops on disk, for test processes alone, each of which would compile them anew, for half a minute.

numba asks whether the file has changed, in which all of them are; settings of numba's own it does not ask for.
"""

import os

FOLDER = "KEPT_LOOPS"


def keep():
    """Have this process keep the loops in the folder that pytest's has chosen, if it has, and take them from there."""
    if FOLDER not in os.environ or any(name.startswith("NUMBA_") for name in os.environ):
        return
    try:
        import numba

        from egsw_plugin.kernels import loops
    except Exception:  # as without numba; what the package makes of that is tested
        return
    numba.config.CACHE_DIR = os.environ[FOLDER]
    for loop in vars(loops).values():
        if hasattr(loop, "enable_caching"):
            loop.enable_caching()
