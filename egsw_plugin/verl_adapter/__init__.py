"""Everything that knows verl: registration, estimators, policy losses, the bridge to the trainer, start-up checks."""

from typing import Any

import wrapt


def install() -> None:
    """Install each piece when verl imports the module that it belongs to (at once, if verl already has)."""
    wrapt.register_post_import_hook(_registry, "verl.trainer.ppo.core_algos")
    wrapt.register_post_import_hook(_validation, "verl.utils.config")
    wrapt.register_post_import_hook(_trainer, "verl.trainer.ppo.v1.trainer_base")
    wrapt.register_post_import_hook(_old_trainer, "verl.trainer.ppo.ray_trainer")
    wrapt.register_post_import_hook(_worker, "verl.workers.utils.losses")


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
