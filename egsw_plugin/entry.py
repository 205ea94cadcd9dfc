"""What verl loads in the driver, the task runner and every worker (entry point group ``verl.plugins``).

It imports no part of verl: everything is installed when verl itself imports the module concerned. verl swallows an
exception here at debug level, so a failure is printed, and a run that asks for an estimator or a policy loss of this
plugin, or for one that verl does not have, is refused with the reason.
"""

import sys
import traceback
from typing import Any

failure: str | None = None  # traceback of a failure to load in this process; `egsw-plugin doctor` reads it


def load() -> None:
    """Install the plugin's hooks in this process."""
    global failure
    try:
        from . import cpu, verl_adapter

        cpu.install_if_asked()
        verl_adapter.install()
    except Exception:
        failure = reason = traceback.format_exc()
        print(f"[egsw] egsw-plugin failed to load in this process:\n{reason}", file=sys.stderr, flush=True)
        _refuse_runs(reason)


def _refuse_runs(reason: str) -> None:
    """Make verl's own validation refuse what its registries lack, and what we put there before the failure, since
    another hook may be missing; standard library and verl alone."""
    config_module: Any = sys.modules.get("verl.utils.config")
    verl_validate = getattr(config_module, "validate_config", None)
    if verl_validate is None:
        return

    def validate_config(config: Any, *args: Any, **kwargs: Any) -> Any:
        from verl.trainer.ppo import core_algos

        name, loss = config.algorithm.adv_estimator, config.actor_rollout_ref.actor.policy_loss.loss_mode
        for key, value, registry in (
            ("algorithm.adv_estimator", name, core_algos.ADV_ESTIMATOR_REGISTRY),
            ("actor_rollout_ref.actor.policy_loss.loss_mode", loss, core_algos.POLICY_LOSS_REGISTRY),
        ):
            held = registry.get(value)
            if held is None or str(getattr(held, "__module__", "")).split(".")[0] == "egsw_plugin":
                raise RuntimeError(f"{key}={value}: egsw-plugin failed to load, and nobody else has it:\n{reason}")
        return verl_validate(config, *args, **kwargs)

    config_module.validate_config = validate_config


load()
