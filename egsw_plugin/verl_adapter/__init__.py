"""Everything that knows verl: registration, estimators, policy losses, the bridge to the trainer, start-up checks."""

import wrapt

from . import contract

# Module of verl, and the functions of this package that take it once verl has imported it. None is imported before.
HOOKS = (
    (contract.CORE, "estimators:register"),
    (contract.CORE, "worker:register"),
    (contract.VALIDATION, "startup:install"),
    (contract.TRAINER, "hooks:install_in_trainer"),
    (contract.OLD_TRAINER, "hooks:install_in_old_trainer"),
    (contract.LOSSES, "hooks:install_in_worker"),
)


def install() -> None:
    """Have each hook called when verl imports the module that it belongs to (at once, if verl already has)."""
    for module, hook in HOOKS:
        wrapt.register_post_import_hook(f"{__name__}.{hook}", module)
