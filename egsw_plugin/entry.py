"""What verl loads in the driver, the task runner and every worker (entry point group ``verl.plugins``).

It imports no part of verl: everything is installed when verl itself imports the module concerned. verl swallows an
exception here at debug level, so a failure is printed, and a run that asks for one of our estimators is refused with
the reason.
"""

import sys
import traceback

METHOD_NAMES = ("egsw", "gtpo", "grpo_s")  # repeated here because egsw_plugin.methods may be what failed to import
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
    """Make verl's own validation refuse our estimators; standard library and verl's loaded modules only."""
    config_module = sys.modules.get("verl.utils.config")
    verl_validate = getattr(config_module, "validate_config", None)
    if verl_validate is None:
        return

    def validate_config(config, *args, **kwargs):
        name = config.algorithm.adv_estimator
        if name in METHOD_NAMES:
            raise RuntimeError(f"algorithm.adv_estimator={name}: egsw-plugin failed to load:\n{reason}")
        return verl_validate(config, *args, **kwargs)

    config_module.validate_config = validate_config


load()
