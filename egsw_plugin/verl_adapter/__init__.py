"""Everything that knows verl: registration, estimators, policy losses, the bridge to the trainer, start-up checks."""

from typing import Any

import wrapt

from . import contract


def install() -> None:
    """Install each piece when verl imports the module that it belongs to (at once, if verl already has)."""
    wrapt.register_post_import_hook(_registry, contract.CORE)
    wrapt.register_post_import_hook(_validation, contract.VALIDATION)
    wrapt.register_post_import_hook(_trainer, contract.TRAINER)
    wrapt.register_post_import_hook(_old_trainer, contract.OLD_TRAINER)
    wrapt.register_post_import_hook(_worker, contract.LOSSES)


def _registry(core_algos: Any) -> None:
    from . import estimators, worker

    estimators.register(core_algos)
    worker.register(core_algos)


def _validation(config_module: Any) -> None:
    from . import startup

    startup.install(config_module)


def _trainer(trainer_base: Any) -> None:
    from . import hooks

    hooks.install_in_trainer(trainer_base)


def _old_trainer(ray_trainer: Any) -> None:
    from . import hooks

    hooks.install_in_old_trainer(ray_trainer)


def _worker(losses: Any) -> None:
    from . import hooks

    hooks.install_in_worker(losses)
