"""The package that users install: what sdist and wheel hold, and a recipe out of the wheel, without a checkout.

A file that is missing from the wheel shows on nobody's machine here, since this checkout is installed as editable. Maps
to pyproject.toml and the link egsw_plugin/recipes. Not exercised: dependencies, which .ci/pythons installs.
"""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from egsw_plugin import recipes

ROOT = Path(__file__).parents[1]
SITE_PACKAGES = Path(pytest.__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
COMPOSE = """
import sys
from hydra import compose, initialize_config_module
import egsw_plugin
with initialize_config_module("verl.trainer.config", version_base=None):
    config = compose("ppo_trainer", ["hydra.searchpath=[pkg://egsw_plugin.recipes]", "+method=gtpo"])
print(config.algorithm.adv_estimator, config.actor_rollout_ref.actor.clip_ratio_high, egsw_plugin.__file__)
"""


def python(*arguments, cwd, **environment):
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist of a copy of the checkout, and a wheel of what the sdist unpacks to, as `python -m build` makes them."""
    folder = tmp_path_factory.mktemp("package")
    source, dist = folder / "source", folder / "dist"
    dist.mkdir()
    for name in ("egsw_plugin", "recipes"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    sdist = dist / python("-c", BUILD, "build_sdist", str(dist), cwd=source)
    shutil.unpack_archive(sdist, folder)
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    return sdist, dist / python("-c", BUILD, "build_wheel", str(dist), cwd=unpacked)


def test_the_wheel_holds_every_file_of_the_package_and_the_recipes(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    for folder, inside in (("egsw_plugin", "egsw_plugin"), ("recipes", "egsw_plugin/recipes")):
        paths = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        wanted = {f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" for path in paths}
        assert wanted and wanted <= names, wanted - names
    strangers = {name for name in names if not name.startswith("egsw_plugin/") and ".dist-info/" not in name}
    assert not strangers


def test_the_sdist_holds_no_half_of_the_tests(built):
    with tarfile.open(built[0]) as file:
        assert not [name for name in file.getnames() if "/tests" in name]


def test_a_recipe_of_the_installed_package(built, tmp_path):
    """verl's configuration with a method of ours, as a launch anywhere composes it."""
    site = tmp_path / "site"
    zipfile.ZipFile(built[1]).extractall(site)
    path = os.pathsep.join([str(site), str(SITE_PACKAGES)])
    found = python("-S", "-c", COMPOSE, cwd=tmp_path, PYTHONPATH=path)  # -S: without the editable installation
    assert found == f"gtpo 0.28 {site / 'egsw_plugin' / '__init__.py'}"


def test_a_recipe_of_a_checkout():
    """An editable installation finds them through the link."""
    overrides = ["hydra.searchpath=[pkg://egsw_plugin.recipes]", "+method=grpo_s"]
    with initialize_config_module("verl.trainer.config", version_base=None):
        assert compose("ppo_trainer", overrides).algorithm.adv_estimator == "grpo_s"
    assert list(recipes.__path__) == [str(ROOT / "egsw_plugin" / "recipes")]


def test_recipes_hold_no_code():
    (module,) = (ROOT / "recipes").rglob("*.py")
    (only,) = ast.parse(module.read_text()).body
    assert isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)


def test_commands_say_what_is_missing(tmp_path):
    """An interpreter without any package."""
    command = [sys.executable, "-S", "-c", "import sys; from egsw_plugin.cli import main; sys.exit(main())", "options"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no module" in done.stderr and "pip install 'verl[verl-core]>=0.9'" in done.stderr
