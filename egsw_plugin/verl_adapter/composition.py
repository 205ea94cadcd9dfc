"""verl's configuration as a launch composes it: from a file, the arguments of ``verl.trainer.main_ppo``, or both."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import verl.trainer
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from ..errors import OptionError

MAIN = "verl.trainer.main_ppo"
VERL_CONFIGS = "verl.trainer.config"
DEPTH = 3  # folders above a file of recipes in which its parts are looked for
NEEDED = ("algorithm", "actor_rollout_ref", "data", "trainer")


def compose_launch(file: Path | None, arguments: Sequence[str]) -> DictConfig:
    """The configuration of ``python -m verl.trainer.main_ppo ARGUMENTS``, with `file` as the primary one if given.

    The file is a configuration that hydra saved (a run's ``.hydra/config.yaml``, or what ``--cfg job`` prints), or one
    with a list of defaults; arguments are hydra overrides, and where there is no file ``--config-path`` and
    ``--config-name``. Raises `OptionError` for what cannot be read, and hydra's own errors.
    """
    places, overrides = _read(arguments)
    if file is not None:
        for flag, value in vars(places).items():
            if value is not None:
                raise OptionError(f"--{flag.replace('_', '-')}", value, "--config FILE names the configuration already")
        config = _compose_file(file, overrides)
    else:
        config = _compose_places(places.config_path, places.config_name or "ppo_trainer", overrides)
    lacking = [section for section in NEEDED if not isinstance(config.get(section), DictConfig)]
    if lacking:
        name = str(file or places.config_name)
        fix = f"no whole configuration of verl's: it lacks {', '.join(lacking)}; save one with --cfg job at the end of "
        raise OptionError("--config", name, f"{fix}the launch command, or name a file with a list of defaults")
    return config


def _read(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """hydra's flags that say where the configuration is, and the overrides; a launch command before them is dropped."""
    arguments = list(arguments)
    if MAIN in arguments:
        arguments = arguments[arguments.index(MAIN) + 1 :]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    try:
        places, overrides = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise OptionError("arguments", " ".join(arguments), str(error)) from error
    for override in overrides:
        if override.startswith("-") or ("=" not in override and not override.startswith("~")):
            fix = (
                "after -- come hydra overrides (KEY=VALUE, +KEY=VALUE, ~KEY), --config-path and --config-name, or a "
                f"command with {MAIN}; of a script that starts it: bash SCRIPT --cfg job > job.yaml, and --config "
                "job.yaml"
            )
            raise OptionError("argument", override, fix)
    return places, overrides


def _compose_places(path: str | None, name: str, overrides: list[str]) -> DictConfig:
    if path is None or path.startswith("pkg://"):
        GlobalHydra.instance().clear()
        with initialize_config_module((path or VERL_CONFIGS).removeprefix("pkg://"), version_base=None):
            return compose(name, overrides=overrides)
    folder = Path(verl.trainer.__path__[0], path)  # to which hydra takes it as relative: that of main_ppo
    if not folder.is_dir() and not Path(path).is_absolute():
        raise OptionError("--config-path", path, f"there is no folder {folder}; use an absolute path")
    return _compose_in(folder.resolve(), name, overrides)


def _compose_in(folder: Path, name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base=None):
        return compose(name, overrides=overrides)


def _compose_file(file: Path, overrides: list[str]) -> DictConfig:
    file = file.resolve()
    if not file.is_file():
        raise OptionError("--config", str(file), "there is no such file")
    if file.suffix != ".yaml":
        raise OptionError("--config", str(file), "hydra reads files that end in .yaml only")
    try:
        raw = OmegaConf.load(file)
    except Exception as error:  # of YAML's parser, of omegaconf, or of the encoding
        raise OptionError("--config", str(file), f"not readable as YAML: {error}") from error
    if not isinstance(raw, DictConfig):
        raise OptionError("--config", str(file), "not a mapping of keys to values")
    if "defaults" not in raw:
        return _compose_in(file.parent, file.stem, overrides)
    searched = any(override.lstrip("+").startswith("hydra.searchpath=") for override in overrides)
    if not searched and OmegaConf.select(raw, "hydra.searchpath") is None:
        overrides = [*overrides, f"hydra.searchpath=[pkg://{VERL_CONFIGS}]"]
    # Parts such as /machine are in a folder beside or above the file: which one, only --config-path of a launch says.
    errors = []
    for folder in file.parents[:DEPTH]:
        try:
            return _compose_in(folder, str(file.relative_to(folder).with_suffix("")), overrides)
        except MissingConfigException as error:
            errors.append(error)
    raise errors[0]
