"""Whether this environment is sound: `egsw-plugin doctor`.

Each check returns a `Result`; one that raises has failed with what it raised. Nothing of verl, and nothing that verl
brings along, is imported before the check that is about it: the command must be able to say that it is not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .versions import INSTALL_VERL, SUPPORTED_PYTHON, SUPPORTED_VERL, TRIED_VERL, installed

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
GROUP, ENTRY = "verl.plugins", "egsw_plugin.entry"
# Whether they suit the installed verl is read from verl's own metadata; TransferQueue is in its extra verl-core.
PACKAGES = ("torch", "ray", "transformers", "tensordict", "TransferQueue", "hydra-core", "wrapt")
EXTRAS = ("", "verl-core")
ENGINES = ("vllm", "sglang")

INSTALL_PLUGIN = f"install the plugin into this environment: in a checkout, {sys.executable} -m pip install ."
REPAIR_LOAD = "repair what the message names; the whole traceback is on stderr"
REPAIR_IMPORT = "repair the import that the message names"


@dataclasses.dataclass(frozen=True)
class Result:
    """What one check found: status is ok, failed or skipped; fix says what to do about a failure."""

    name: str
    status: str
    found: str
    fix: str = ""


def main(config: Path | None, arguments: Sequence[str], ray: bool, as_json: bool, time_limit: float) -> int:
    """Runs every check, prints the results, and returns 0 if none failed, else 1."""
    results = []
    for result in examine(config, arguments, ray, time_limit):
        results.append(result)
        if not as_json:
            print(f"{result.status:8} {result.name:20} {_indented(result.found)}", flush=True)
            if result.fix:
                print(f"{'':8} {'':20} fix: {_indented(result.fix)}", flush=True)
    failed = [result.name for result in results if result.status == FAILED]
    skipped = sum(result.status == SKIPPED for result in results)
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [dataclasses.asdict(result) for result in results]}, indent=2))
    elif failed:
        print(f"\n{len(failed)} of {len(results)} checks failed: {', '.join(failed)}")
    else:
        print(f"\nno check failed; {len(results) - skipped} passed, {skipped} skipped")
    return 1 if failed else 0


def examine(config: Path | None, arguments: Sequence[str], ray: bool, time_limit: float) -> Iterator[Result]:
    """The checks, in the order in which one depends on another."""
    yield _run("Python", python)
    yield (found := _run("verl", verl_version, fix=INSTALL_VERL))
    for package in PACKAGES:
        yield _run(package, package_version, package)
    yield _run("rollout engine", engine)
    yield _run("entry point", entry_point)
    checks: list[tuple[str, Callable, tuple]] = [(name, check, ()) for name, check in IN_PROCESS.items()]
    checks += [("start-up check", startup_hook, ()), ("members", members, ()), ("kernels", compiled_kernels, ())]
    if ray:
        checks.append(("Ray worker", ray_worker, (time_limit,)))
    if config is not None or arguments:
        checks.append(("configuration", configuration, (config, arguments)))
    for name, check, its_arguments in checks:
        if "verl" not in sys.modules:
            yield Result(name, SKIPPED, f"verl cannot be imported: {found.found}")
            continue
        result = _run(name, check, *its_arguments)
        if result.status == found.status == FAILED:
            result = dataclasses.replace(result, fix="first do what the check of verl says")
        yield result
    if not ray:
        yield Result("Ray worker", SKIPPED, "--no-ray: whether workers load the plugin was not tried")
    if config is None and not arguments:
        yield Result("configuration", SKIPPED, "none given: pass --config FILE, or a launch's overrides after --")


def _run(name: str, check: Callable[..., Result], *arguments: Any, fix: str = REPAIR_IMPORT) -> Result:
    """A check's result under its name; what verl prints meanwhile goes to stderr, since stdout may be JSON."""
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # verl's own, of engines that are not installed
            return dataclasses.replace(check(*arguments), name=name)
    except (Exception, SystemExit) as error:
        missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
        if fix == REPAIR_IMPORT and missing.partition(".")[0] == "transfer_queue":
            fix = f"{INSTALL_VERL}, which brings it"
        return Result(name, FAILED, _message(error), fix)


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip()


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 30)


def _ok(found: str) -> Result:
    return Result("", OK, found)


def _failed(found: str, fix: str) -> Result:
    return Result("", FAILED, found, fix)


def python() -> Result:
    """The interpreter's version."""
    lowest, above = SUPPORTED_PYTHON
    found = f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    if lowest <= sys.version_info[:2] < above:
        return _ok(found)
    text = f">={'.'.join(map(str, lowest))},<{'.'.join(map(str, above))}"
    return _failed(found, f"egsw-plugin {__version__} is for Python {text}; make an environment with one of these")


def verl_version() -> Result:
    """Imports verl; its version is the imported package's, which need not be the installed distribution's."""
    if importlib.util.find_spec("verl") is None:
        return _failed("not installed", INSTALL_VERL)
    import verl
    from packaging.specifiers import SpecifierSet

    found = f"{verl.__version__} ({Path(verl.__file__).parent})"
    there = installed("verl")
    if there is not None and there != verl.__version__:
        found += f"; the installed package is {there}, but another folder comes before it on the path"
    if SpecifierSet(SUPPORTED_VERL).contains(verl.__version__, prereleases=True):
        if verl.__version__ not in TRIED_VERL:
            found += f"; not tried with this plugin (tried: {', '.join(TRIED_VERL)}), so see the checks of its parts"
        return _ok(found)
    return _failed(found, f"egsw-plugin {__version__} supports verl{SUPPORTED_VERL}: {INSTALL_VERL}")


def package_version(package: str) -> Result:
    """A package's version against what verl and this plugin say that they need."""
    found, needed = installed(package), _needed(package)
    wanted = f"{package}{needed or ''}"
    if found is None:
        return _failed("not installed", f"pip install '{wanted}'")
    if needed is None or not str(needed):
        return _ok(found)
    if needed.contains(found, prereleases=True):
        return _ok(f"{found} (needed: {needed})")
    return _failed(f"{found} (needed: {needed})", f"pip install '{wanted}'")


def engine() -> Result:
    """What generates the responses: verl needs one of its engines."""
    found = {name: version for name in ENGINES if (version := installed(name)) is not None}
    if not found:
        return _failed(
            f"none of {', '.join(ENGINES)}", f"install the one that you train with: {ENGINES[0]}, for example"
        )
    return _ok(", ".join(f"{name} {version}" for name, version in found.items()))


def compiled_kernels() -> Result:
    """Whether the kernels' loops can be compiled; torch serves where they cannot."""
    from .kernels import compiled

    loops, failure = compiled.attempt()
    if loops is None:
        return Result("", SKIPPED, f"{failure}; the advantage step runs in torch, to the same result and slower")
    return _ok(f"compiled by numba {installed('numba')}")


def _needed(package: str) -> Any:
    """The versions of a package that verl's and this plugin's metadata allow, or None where they do not name it."""
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    except ModuleNotFoundError:
        return None  # verl's own dependency: where it is missing, verl is, and that is reported
    wanted = None
    for distribution in ("verl", "egsw-plugin"):
        if installed(distribution) is None:
            continue
        for line in importlib.metadata.requires(distribution) or ():
            requirement = Requirement(line)
            if canonicalize_name(requirement.name) != canonicalize_name(package):
                continue
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in EXTRAS):
                wanted = requirement.specifier if wanted is None else wanted & requirement.specifier
    return wanted


def entry_point() -> Result:
    """Whether verl will find the plugin, in this environment and with these environment variables."""
    modules = [name.strip() for name in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")]
    if ENTRY in modules:
        return _ok(f"VERL_USE_EXTERNAL_MODULES names {ENTRY}")
    ours = [point for point in importlib.metadata.entry_points(group=GROUP) if point.value.split(":")[0] == ENTRY]
    if not ours:
        return _failed(f"no entry point {ENTRY} in the group {GROUP}", INSTALL_PLUGIN)
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    names = [name.strip() for name in policy.split(",")]
    if policy == "none" or (policy != "auto" and ours[0].name not in names):
        fix = f"unset VERL_USE_EXTERNAL_PLUGINS, or add {ours[0].name} to it"
        return _failed(f"VERL_USE_EXTERNAL_PLUGINS={policy} switches it off", fix)
    return _ok(f"{ours[0].name} = {ENTRY}")


def plugin_loaded() -> Result:
    """Whether the import of verl loaded the plugin in this process."""
    import verl  # noqa: F401

    entry = sys.modules.get(ENTRY)
    if entry is None:
        fix = "see the check of the entry point; under `uv run --frozen` set VERL_USE_UV=0"
        return _failed(f"importing verl did not import {ENTRY}", fix)
    if entry.failure is not None:
        return _failed(entry.failure.strip().splitlines()[-1], REPAIR_LOAD)
    return _ok(f"egsw-plugin {__version__} ({Path(str(entry.__file__)).parent})")


def trainer_bridge() -> Result:
    """Whether verl's trainer has what the entropy bridge touches, and the bridge is in it."""
    trainer_base = importlib.import_module("verl.trainer.ppo.v1.trainer_base")
    from .verl_adapter import contract, hooks

    wrapped = {
        f"PPOTrainer.{name}": getattr(trainer_base.PPOTrainer, name)
        for name in ("_compute_advantage", "_save_checkpoint", "_load_checkpoint")
    }
    wrapped["compute_advantage_for_multi_trajectories"] = trainer_base.compute_advantage_for_multi_trajectories
    return _bridge(contract.broken(contract.CORE, trainer_base), wrapped, hooks)


def worker_bridge() -> Result:
    """The same for the policy loss, which runs in the actor's workers."""
    losses = importlib.import_module("verl.workers.utils.losses")
    from .verl_adapter import contract, hooks

    wrapped = {"ppo_loss": losses.ppo_loss, "kl_penalty": losses.kl_penalty}
    for name in contract.LOSS_USERS:
        try:
            user = importlib.import_module(name)
        except ModuleNotFoundError as missing:
            if not name.startswith(str(missing.name)):
                raise
            continue  # another verl need not have it
        wrapped |= {f"{name}.ppo_loss": user.ppo_loss} if hasattr(user, "ppo_loss") else {}
    return _bridge(contract.broken(losses), wrapped, hooks)


def _bridge(missing: list[str], wrapped: dict[str, Any], hooks: types.ModuleType) -> Result:
    if missing:
        return _failed(f"this verl lacks {'; '.join(missing)}", INSTALL_VERL)
    from .verl_adapter.contract import where

    strangers = [f"{name} is {where(part)}" for name, part in wrapped.items() if not _leads_to(part, hooks)]
    if strangers:
        return _failed("; ".join(strangers) + ", without the bridge", _loaded_or_replaced())
    return _ok(f"in {', '.join(wrapped)}")


def estimators() -> Result:
    """Whether our names lead to our functions in verl's registry of advantage estimators."""
    core_algos = importlib.import_module("verl.trainer.ppo.core_algos")
    from .methods import MEMBERS
    from .methods.places import CHAIN
    from .verl_adapter.estimators import REGISTERED

    return _registry(core_algos.ADV_ESTIMATOR_REGISTRY, [CHAIN, *MEMBERS], REGISTERED)


def policy_losses() -> Result:
    """The same for policy losses."""
    core_algos = importlib.import_module("verl.trainer.ppo.core_algos")
    from .methods import LOSSES
    from .verl_adapter.worker import REGISTERED

    return _registry(core_algos.POLICY_LOSS_REGISTRY, list(LOSSES), REGISTERED)


def members() -> Result:
    """Whether every member can be imported, those of other packages too."""
    from .methods import LOSSES, MEMBERS

    faults = [*MEMBERS.broken().values(), *LOSSES.broken().values(), *MEMBERS.conflicts(), *LOSSES.conflicts()]
    if faults:
        return _failed("; ".join(faults), "repair or uninstall the package that the message names; the others work")
    strangers = [f"{name} of {MEMBERS.whose(name)}" for name in MEMBERS.strangers]
    strangers += [f"{name} of {LOSSES.whose(name)}" for name in LOSSES.strangers]
    return _ok("; ".join([f"{len(MEMBERS.own)} estimators and {len(LOSSES.own)} policy losses of its own", *strangers]))


def _registry(registry: dict[str, Any], names: Sequence[str], ours: dict[str, Any]) -> Result:
    from .verl_adapter.contract import leads_to, where

    absent = [name for name in names if name not in registry]
    strange = [name for name in names if name in registry and not leads_to(registry[name], ours.get(name))]
    faults = [f"{', '.join(absent)}: not registered"] if absent else []
    faults += [f"{name} is {where(registry[name])}, not this plugin's" for name in strange]
    return _failed("; ".join(faults), _loaded_or_replaced()) if faults else _ok(", ".join(names))


def startup_hook() -> Result:
    """Whether verl's validation, which runs before Ray starts, goes through ours."""
    config_module = importlib.import_module("verl.utils.config")
    from .verl_adapter import contract, startup

    if not _leads_to(config_module.validate_config, startup):
        found = (
            f"verl.utils.config.validate_config is {contract.where(config_module.validate_config)}, without our check"
        )
        return _failed(found, _loaded_or_replaced())
    return _ok("in verl.utils.config.validate_config")


# In the order of a run: the trainer's import can bring in other plugins' hooks, which the registries then show.
IN_PROCESS = {
    "plugin loaded": plugin_loaded,
    "trainer bridge": trainer_bridge,
    "worker bridge": worker_bridge,
    "estimators": estimators,
    "policy losses": policy_losses,
}
IN_WORKER = {name: check for name, check in IN_PROCESS.items() if name != "trainer bridge"} | {"members": members}


def _loaded_or_replaced() -> str:
    entry = sys.modules.get(ENTRY)
    if entry is None or entry.failure is not None:
        return "see the check of the plugin's loading"
    return "another plugin has replaced it: uninstall that one, or leave it out with VERL_USE_EXTERNAL_PLUGINS=egsw"


def _leads_to(function: Any, module: types.ModuleType) -> bool:
    """Whether the function, or one that it wraps, is of the module."""
    while function is not None:
        if getattr(function, "__globals__", {}).get("__name__") == module.__name__:
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def ray_worker(time_limit: float) -> Result:
    """The checks of loading and registration in a worker of a local Ray with one CPU.

    In a process of its own, so that a start of Ray that hangs can be ended; Ray's processes end with it.
    """
    command = [sys.executable, "-c", f"from {__name__} import _start_worker; _start_worker()"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=time_limit)
    except subprocess.TimeoutExpired:
        _end(process)
        fix = "free memory and CPU, look at Ray's logs under /tmp/ray, or allow longer with --time-limit"
        return _failed(f"no answer within {time_limit:g} s", fix)
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        return _failed(f"Ray's start or the worker failed with exit code {process.returncode}", "see the errors above")
    results = [Result(**one) for one in json.loads(output.splitlines()[-1])]
    failed = [result for result in results if result.status == FAILED]
    if failed:
        return _failed("\n".join(f"{one.name}: {one.found}" for one in failed), failed[0].fix)
    return _ok(", ".join(result.name for result in results))


def _end(process: subprocess.Popen) -> None:
    """End the process and what it started; Ray's handler of SIGTERM stops its daemons."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
            return


def _start_worker() -> None:
    """Print as JSON, on the last line, what a Ray worker finds."""
    import ray

    # 100 MB: enough for the answer, and not a third of the machine's memory, which is Ray's own choice.
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 1024**2
    )
    try:
        print(json.dumps(ray.get(ray.remote(num_cpus=1)(_in_worker).remote())), flush=True)
    finally:
        ray.shutdown()


def _in_worker() -> list[dict[str, str]]:
    return [dataclasses.asdict(_run(name, check)) for name, check in IN_WORKER.items()]


def configuration(file: Path | None, arguments: Sequence[str]) -> Result:
    """A launch's configuration through verl's validation, as main_ppo calls it, and the check at a trainer's start."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo import utils
    from verl.utils import config as config_module

    from .errors import OptionError
    from .verl_adapter import composition, contract, startup
    from .verl_adapter.configuration import unresolved

    said = io.StringIO()
    try:
        config = composition.compose_launch(file, arguments)
        if lost := unresolved(config):
            raise lost
        # Sections that verl.trainer.main_ppo does not read; these launchers build a form of the old trainer.
        if experimental := [key for key in ("async_training", "rollout") if key in config]:
            startup.check(config, f"the trainer of verl.experimental that reads {experimental[0]}")
        with contextlib.redirect_stdout(said):
            config_module.validate_config(
                config,
                use_reference_policy=utils.need_reference_policy(config),
                use_critic=utils.need_critic(config),
            )
            startup.check_trainer(config, contract.TRAINER)
    except OptionError as error:
        return _failed(f"{error.key}={error.value!r}", error.fix)
    except (Exception, SystemExit) as error:
        return _failed(_message(error), "change what the message names")
    lines = [f"adv_estimator={config.algorithm.adv_estimator}: accepted"]
    missing = set(OmegaConf.missing_keys(config))
    if not OmegaConf.select(config, "reward.reward_model.enable"):
        missing -= {key for key in missing if key.startswith("reward.reward_model.")}  # read by nobody then
    if missing:
        lines.append(f"still without a value (???): {', '.join(sorted(missing))}")
    lines += [line.removeprefix("[egsw] ") for line in said.getvalue().splitlines() if line.startswith("[egsw]")]
    return _ok("\n".join(lines))
