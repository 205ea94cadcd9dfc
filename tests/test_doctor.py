"""`egsw-plugin doctor` in environments that are broken on purpose, each a real process.

A doctor that calls a broken environment sound is worse than none, and one that crashes says nothing. Maps to
egsw_plugin/doctor.py and verl_adapter/composition.py. Not exercised: a Ray worker whose environment differs from the
driver's, which takes a cluster.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from egsw_plugin import doctor, versions
from egsw_plugin.verl_adapter import contract

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib  # Python 3.10, for which pytest brings it

ROOT = Path(__file__).parents[1]
SITE_PACKAGES = Path(pytest.__file__).parents[1]
# The package alone: beside it in a checkout can lie what a build left (*.egg-info), which counts as installed.
SOURCE = tempfile.TemporaryDirectory()
(Path(SOURCE.name) / "egsw_plugin").symlink_to(ROOT / "egsw_plugin")
MAIN = "import sys; from egsw_plugin.cli import main; sys.exit(main())"
# The checks that need no trainer, for environments in which its import adds nothing but seconds.
SHORT = """
import json
from egsw_plugin import doctor
checks = {"verl": doctor.verl_version, "entry point": doctor.entry_point, **doctor.IN_PROCESS}
for name in ("trainer bridge", "worker bridge"):
    del checks[name]
results = [doctor._run(name, check) for name, check in checks.items()]
print(json.dumps({"checks": [vars(result) for result in results]}))
"""
COMPLETE = [
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.n=4",
]
EGSW = "algorithm.adv_estimator=egsw"


def run(code, *arguments, flags=(), path="", **environment):
    """A process with `path` before this checkout on its path: its exit code, and its results by name."""
    path = os.pathsep.join([str(path), SOURCE.name]) if path else SOURCE.name
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    command = [sys.executable, *flags, "-c", code, *arguments]
    process = subprocess.run(command, env=environment, cwd=SOURCE.name, capture_output=True, text=True, timeout=350)
    assert process.stdout.startswith("{"), process.stderr
    return process.returncode, {check["name"]: check for check in json.loads(process.stdout)["checks"]}


def failed(results):
    return {name for name, result in results.items() if result["status"] == "failed"}


def test_a_sound_environment_with_ray_and_a_recipe():
    config = ROOT / "recipes" / "tiny_cpu" / "tiny_cpu.yaml"
    code, results = run(MAIN, "doctor", "--json", "--config", str(config), "--", "algorithm.egsw.alpha=0.25")
    assert failed(results) == set() and code == 0
    assert {result["status"] for result in results.values()} == {"ok"}
    assert "estimators" in results["Ray worker"]["found"]
    assert "alpha=0.25" in results["configuration"]["found"]
    assert "???" not in results["configuration"]["found"]


def test_another_plugin_that_takes_our_name(tmp_path):
    """It replaces the estimator when the trainer is imported, hence after our own registration."""
    (tmp_path / "rogue-1.0.dist-info").mkdir()
    (tmp_path / "rogue-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: rogue\nVersion: 1.0\n")
    (tmp_path / "rogue-1.0.dist-info" / "entry_points.txt").write_text("[verl.plugins]\nrogue = rogue\n")
    (tmp_path / "rogue.py").write_text("""
import wrapt

def estimator(**kwargs):
    raise NotImplementedError

def replace(trainer_base):
    trainer_base.core_algos.ADV_ESTIMATOR_REGISTRY["egsw"] = estimator
    trainer_base.core_algos.POLICY_LOSS_REGISTRY["gtpo"] = estimator

wrapt.register_post_import_hook(replace, "verl.trainer.ppo.v1.trainer_base")
""")
    code, results = run(MAIN, "doctor", "--json", "--no-ray", path=tmp_path)
    assert failed(results) == {"estimators", "policy losses"} and code == 1
    assert re.match(r"egsw is rogue\.estimator \(.*rogue\.py:4\), not this", results["estimators"]["found"])
    assert "VERL_USE_EXTERNAL_PLUGINS=egsw" in results["estimators"]["fix"]
    assert "gtpo is rogue.estimator" in results["policy losses"]["found"]
    assert results["Ray worker"]["status"] == results["configuration"]["status"] == "skipped"
    assert "--no-ray" in results["Ray worker"]["found"]


def test_an_interpreter_without_verl():
    """No site-packages at all: not even what verl brings along."""
    code, results = run(MAIN, "doctor", "--json", "--", EGSW, flags=["-S"])
    assert code == 1
    assert results["verl"]["found"] == "not installed"
    assert results["verl"]["fix"] == f"pip install 'verl[verl-core]{versions.SUPPORTED_VERL}'"
    assert {"verl", "torch", "ray", "rollout engine", "entry point"} == failed(results) - {
        "transformers",
        "tensordict",
        "TransferQueue",
        "hydra-core",
        "wrapt",
    }
    skipped = {name for name, result in results.items() if result["status"] == "skipped"}
    assert {*doctor.IN_PROCESS, "start-up check", "members", "kernels", "Ray worker", "configuration"} == skipped


def test_a_verl_of_another_version(tmp_path):
    """One that lacks everything the plugin touches: each check says so, and none crashes."""
    (tmp_path / "verl").mkdir()
    (tmp_path / "verl" / "__init__.py").write_text('__version__ = "0.8.0"\n')
    code, results = run(MAIN, "doctor", "--json", "--no-ray", "--", EGSW, path=tmp_path)
    assert code == 1
    assert results["verl"]["found"].startswith("0.8.0 ")
    assert "another folder comes before it" in results["verl"]["found"]
    assert versions.SUPPORTED_VERL in results["verl"]["fix"]
    assert failed(results) == {"verl", *doctor.IN_PROCESS, "start-up check", "configuration"}
    assert "No module named 'verl.trainer'" in results["trainer bridge"]["found"]


def test_a_verl_that_cannot_be_imported(tmp_path):
    (tmp_path / "verl").mkdir()
    (tmp_path / "verl" / "__init__.py").write_text("raise OSError('libsomething.so: cannot open shared object')\n")
    code, results = run(MAIN, "doctor", "--json", "--no-ray", path=tmp_path)
    assert code == 1
    assert results["verl"]["found"] == "OSError: libsomething.so: cannot open shared object"
    assert results["estimators"]["status"] == "skipped"


def test_a_plugin_that_is_not_installed(tmp_path):
    """Its files are there, its entry point is not: site-packages without our distribution."""
    for entry in SITE_PACKAGES.iterdir():
        if not entry.name.startswith(("egsw_plugin", "__editable__")):
            (tmp_path / entry.name).symlink_to(entry)
    _, results = run(SHORT, flags=["-S"], path=tmp_path)
    assert failed(results) == {"entry point", "plugin loaded", "estimators", "policy losses"}
    assert "pip install ." in results["entry point"]["fix"]
    assert results["estimators"]["found"].startswith("egsw_plugin, egsw, gtpo, grpo_s")


def test_a_plugin_that_fails_to_load(tmp_path):
    (tmp_path / "wrapt.py").write_text("raise ImportError('wrapt is broken on this machine')\n")
    _, results = run(SHORT, path=tmp_path)
    assert failed(results) == {"plugin loaded", "estimators", "policy losses"}
    assert results["plugin loaded"]["found"] == "ImportError: wrapt is broken on this machine"


@pytest.mark.parametrize(
    "variable,value,status",
    [
        ("VERL_USE_EXTERNAL_PLUGINS", "none", "failed"),
        ("VERL_USE_EXTERNAL_PLUGINS", "other", "failed"),
        ("VERL_USE_EXTERNAL_PLUGINS", "other, EGSW", "ok"),
        ("VERL_USE_EXTERNAL_PLUGINS", "auto", "ok"),
        ("VERL_USE_EXTERNAL_MODULES", "egsw_plugin.entry", "ok"),
    ],
)
def test_environment_variables_that_switch_plugins(monkeypatch, variable, value, status):
    monkeypatch.setenv(variable, value)
    assert doctor.entry_point().status == status


def test_ray_that_does_not_answer_is_ended():
    result = doctor.ray_worker(0.2)
    assert result.status == "failed" and "no answer within 0.2 s" in result.found


def test_an_exception_is_a_failed_check():
    def check():
        raise KeyError("lost")

    result = doctor._run("some check", check, fix="find it")
    assert result == doctor.Result("some check", "failed", "KeyError: 'lost'", "find it")


def test_a_verl_without_a_module_that_takes_the_loss(monkeypatch):
    monkeypatch.setattr(contract, "LOSS_USERS", ("verl.trainer.no_such.losses", "verl.workers.engine_workers"))
    result = doctor.worker_bridge()
    assert result.status == "ok" and "verl.workers.engine_workers.ppo_loss" in result.found


def test_a_package_of_another_version(monkeypatch):
    monkeypatch.setattr(doctor, "_needed", lambda package: SpecifierSet("<1"))
    result = doctor.package_version("torch")
    assert result.status == "failed" and result.fix == "pip install 'torch<1'"


# Configurations


@pytest.mark.parametrize(
    "arguments,found,fix",
    [
        (["+algorithm.egsw.alhpa=1"], "algorithm.egsw.alhpa=1", "did you mean 'alpha'?"),
        (["trainer.use_v1=False"], "trainer.use_v1=False", "set trainer.use_v1=True"),
        (["algorithm.nokey=1"], "ConfigCompositionException", "change what the message names"),
        (["actor_rollout_ref.actor.use_kl_loss=True"], "ValueError: [actor_rollout_ref.ref]", "change what"),
        (["--multirun"], "argument='--multirun'", "hydra overrides"),
        (["word"], "argument='word'", "hydra overrides"),
        (["--config-path"], "--config-path", "expected one argument"),
        (["--config-path", "recipes"], "--config-path='recipes'", "absolute path"),
        # As `fully_async_main --cfg job` prints it; verl's own validation knows nothing of its trainer.
        (["+async_training={staleness_threshold: 0}"], "adv_estimator='egsw'", "start verl.trainer.main_ppo"),
    ],
)
def test_a_launch_that_is_refused(arguments, found, fix):
    """By the words of a run, where it is a run that would refuse it."""
    result = doctor.configuration(None, [*COMPLETE, EGSW, *arguments])
    assert result.status == "failed"
    assert found in result.found and fix in result.fix


@pytest.mark.parametrize(
    "arguments",
    [
        [EGSW],
        ["python", "-m", "verl.trainer.main_ppo", EGSW],
        ["--config-path", "pkg://verl.trainer.config", "--config-name=ppo_trainer", EGSW],
        ["--config-path=config", "--config-name=ppo_trainer", EGSW],  # as launchers of verl's name it
    ],
)
def test_a_launch_that_is_accepted(arguments):
    result = doctor.configuration(None, [*arguments, *COMPLETE])
    assert result.status == "ok" and "adv_estimator=egsw" in result.found
    assert "still without a value (???): actor_rollout_ref.rollout.name\n" in result.found


def test_a_saved_configuration_is_accepted_with_overrides(tmp_path):
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[*COMPLETE, EGSW])
    file = tmp_path / "config.yaml"
    OmegaConf.save(config, file)
    assert doctor.configuration(file, []).status == "ok"
    result = doctor.configuration(file, ["+algorithm.egsw.temperature=0"])
    assert result.found == "algorithm.egsw.temperature=0" and "finite number > 0" in result.fix


def test_warnings_of_a_run_are_shown():
    result = doctor.configuration(None, [*COMPLETE, "algorithm.adv_estimator=grpo", "+algorithm.gtpo.alpha1=0.123"])
    assert "warning: algorithm.gtpo is set, but algorithm.adv_estimator is grpo" in result.found


@pytest.mark.parametrize(
    "name,text,fix",
    [
        ("config.txt", "a: 1", "end in .yaml"),
        ("config.yaml", "a: [1", "not readable as YAML"),
        ("config.yaml", "- 1", "not a mapping"),
        ("config.yaml", "algorithm: {adv_estimator: egsw}", "it lacks actor_rollout_ref, data, trainer"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, name, text, fix):
    (tmp_path / name).write_text(text)
    result = doctor.configuration(tmp_path / name, [])
    assert result.status == "failed" and fix in result.fix


def test_a_file_whose_parts_are_nowhere(tmp_path):
    shutil.copy(ROOT / "recipes" / "tiny_cpu" / "tiny_cpu.yaml", tmp_path)
    result = doctor.configuration(tmp_path / "tiny_cpu.yaml", [])
    assert result.status == "failed" and "method/egsw" in result.found


# Versions


def test_versions_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (verl,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "verl"]
    assert verl.specifier == SpecifierSet(versions.SUPPORTED_VERL)
    lowest, above = (".".join(map(str, version)) for version in versions.SUPPORTED_PYTHON)
    assert SpecifierSet(project["requires-python"]) == SpecifierSet(f">={lowest},<{above}")
    section = (ROOT / "docs" / "use.md").read_text().split("## Supported versions")[1].split("\n## ")[0]
    assert re.findall(r"(?m)^\| (\d\S+) \|", section) == list(versions.TRIED_VERL)
    assert f"`{versions.SUPPORTED_VERL}`" in section and f"`{project['requires-python']}`" in section


def test_what_verls_own_extra_brings_is_not_repaired_but_installed():
    def check():
        raise ModuleNotFoundError("No module named 'transfer_queue'", name="transfer_queue")

    assert doctor._run("trainer bridge", check).fix == "pip install 'verl[verl-core]>=0.9', which brings it"
