"""The recipes as a package, so that an installed plugin has them too: ``hydra.searchpath=[pkg://egsw_plugin.recipes]``.

It holds no code. hydra looks for this file before it reads configurations of a package.
"""
