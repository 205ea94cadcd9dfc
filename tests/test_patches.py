"""The patch series for verl: what apply.py does and refuses; all three methods on a patched verl without the bridge.

Everything happens to a copy of the installed verl. Maps to patches/, to estimators.py's order of preference and to
startup.py's detection of a patched verl. Not exercised: RayPPOTrainer.fit, which needs workers
(verl_runs/test_combinations.py has a run of it).
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import verl
from batches import random_batch
from tensordict import TensorDict
from verl.trainer.ppo.ray_trainer import compute_advantage

from egsw_plugin.errors import TensorError

ROOT = Path(__file__).parents[1]
METHODS = ("egsw", "gtpo", "grpo_s")
SCRIPT = ROOT / "patches" / "apply.py"
SERIES = ROOT / "patches" / "verl-0.9.1"
ROWS = [line.split() for line in (SERIES / "files.sha256").read_text().splitlines()[1:]]
PATHS = [path for *_, path in ROWS]
TRAINERS = Path(__file__).with_name("patched_trainers.py")


def apply(folder, *arguments, script=SCRIPT, **environment):
    command = [sys.executable, "-S", script, "--site-packages", folder, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=180)


def contents(folder):
    return {path: (folder / path).read_bytes() for path in PATHS}


@pytest.fixture
def part(tmp_path):
    """What apply.py looks at: verl's version and the files of the series."""
    for path in [*PATHS, "verl/version/version"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(verl.__file__).parents[1] / path, tmp_path / path)
    return tmp_path


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A copy of the installed verl with the series applied."""
    folder = tmp_path_factory.mktemp("patched")
    shutil.copytree(Path(verl.__file__).parent, folder / "verl")
    assert apply(folder).returncode == 0
    return folder


def test_the_series_is_for_the_files_of_the_release():
    record = (next(Path(verl.__file__).parents[1].glob("verl-0.9.1.dist-info")) / "RECORD").read_text()
    assert all(path in record for path in PATHS)
    named = {
        path for patch in SERIES.glob("*.patch") for path in re.findall(r"^\+\+\+ b/(.*)$", patch.read_text(), re.M)
    }
    assert named == set(PATHS)


def test_apply_and_undo(part):
    released = contents(part)
    check = apply(part, "--check")
    assert check.returncode == 1 and "the series is not applied" in check.stdout
    assert contents(part) == released

    done = apply(part)
    assert done.returncode == 0 and f"{len(PATHS)} files patched" in done.stdout
    assert {path: hashlib.sha256(data).hexdigest() for path, data in contents(part).items()} == {
        path: after for _, after, path in ROWS
    }
    patched = contents(part)
    assert apply(part, "--check").returncode == 0
    again = apply(part)
    assert again.returncode == 0 and "already applied" in again.stdout
    assert contents(part) == patched

    assert apply(part, "--undo").returncode == 0
    assert contents(part) == released
    again = apply(part, "--undo")
    assert again.returncode == 0 and "not applied, nothing to do" in again.stdout
    assert sorted(path.name for path in (part / "verl/trainer/ppo").iterdir()) == [
        "core_algos.py",
        "ray_trainer.py",
        "v1",
    ]


def test_a_file_shared_with_another_environment_stays(part, tmp_path_factory):
    """uv and conda link one file into many environments."""
    other = tmp_path_factory.mktemp("other") / "core_algos.py"
    os.link(part / "verl/trainer/ppo/core_algos.py", other)
    released = other.read_bytes()
    assert apply(part).returncode == 0
    assert other.read_bytes() == released != (part / "verl/trainer/ppo/core_algos.py").read_bytes()


def test_works_without_git_and_inside_a_repository(part, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    os.symlink(shutil.which("patch"), programs / "patch")
    released = contents(part)
    assert apply(part, PATH=str(programs)).returncode == 0
    assert apply(part, "--check").returncode == 0

    repository = tmp_path / "repository"
    repository.mkdir()
    subprocess.run(["git", "init", "-q", repository], check=True)
    assert apply(part, "--undo", TMPDIR=str(repository)).returncode == 0
    assert contents(part) == released


def refused(folder, *arguments, **environment):
    before = contents(folder)
    done = apply(folder, *arguments, **environment)
    assert done.returncode == 2
    assert contents(folder) == before
    assert not list(folder.rglob("*.new"))
    return done.stderr


def test_another_version_is_refused(part):
    (part / "verl/version/version").write_text("0.9.2\n")
    assert "the series is for verl 0.9.1" in (message := refused(part))
    assert "holds 0.9.2; pip install verl==0.9.1" in message


def test_no_verl_is_refused(tmp_path):
    done = apply(tmp_path)
    assert done.returncode == 2
    assert f"no verl in {tmp_path}" in done.stderr and "--site-packages" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--undo",), ("--check",)])
def test_a_changed_file_is_refused_by_name(part, arguments):
    with (part / "verl/trainer/ppo/ray_trainer.py").open("a") as file:
        file.write("\n")
    message = refused(part, *arguments)
    assert "ppo/ray_trainer.py (sha256 " in message and "core_algos.py" not in message
    assert "pip install --force-reinstall --no-deps verl==0.9.1" in message


def test_a_missing_file_is_refused_by_name(part):
    (part / "verl/trainer/ppo/v1/utils.py").unlink()
    done = apply(part)
    assert done.returncode == 2 and "v1/utils.py (missing)" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--undo",)])
def test_a_half_patched_verl_is_refused(part, arguments):
    released = (part / "verl/trainer/ppo/ray_trainer.py").read_bytes()
    assert apply(part).returncode == 0
    (part / "verl/trainer/ppo/ray_trainer.py").write_bytes(released)
    message = refused(part, *arguments)
    assert "only verl/trainer/ppo/core_algos.py, verl/trainer/ppo/v1/trainer_base.py" in message
    assert "of 4 files" in message and "--force-reinstall" in message


def test_all_files_or_none(part, tmp_path_factory):
    """A series whose last patch does not apply, and one that makes something else, change nothing."""
    patches = tmp_path_factory.mktemp("patches")
    shutil.copytree(SERIES.parent, patches, dirs_exist_ok=True)
    last = sorted((patches / SERIES.name).glob("*.patch"))[-1]
    good = last.read_text()
    for text, message in [
        (good.replace(" ) -> DataProto:", " ) -> Nothing:"), f"{last.name} does not apply"),
        (good.replace("+            metrics=metrics,", "+            metrics=metric,"), "does not make"),
    ]:
        assert text != good
        last.write_text(text)
        assert message in refused(part, script=patches / SCRIPT.name)


def test_neither_git_nor_patch_is_refused(part):
    assert "neither git nor patch" in refused(part, PATH="")


def test_a_failing_write_restores_the_files_already_placed(part, monkeypatch, capsys):
    """The disk fills up, or permission is lacking, at the third file."""
    spec = importlib.util.spec_from_file_location("apply", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    released, calls = contents(part), []

    def replace(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise PermissionError(13, "Permission denied", str(target))
        os.rename(source, target)

    monkeypatch.setattr(script, "os", types.SimpleNamespace(replace=replace, environ=os.environ))
    assert script.main(["--site-packages", str(part)]) == 2
    assert len(calls) == 5  # two files went back
    assert contents(part) == released
    assert not list(part.rglob("*.new"))
    assert "run this as the user that installed verl" in capsys.readouterr().err


def test_the_running_pythons_verl_is_found(patched):
    environment = {**os.environ, "PYTHONPATH": str(patched)}
    command = [sys.executable, SCRIPT, "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0
    assert f"verl 0.9.1 in {patched}: the series is applied" in done.stdout


def test_all_methods_in_both_trainers_without_the_bridge(patched):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [patched, ROOT, TRAINERS.parent]))}
    done = subprocess.run([sys.executable, TRAINERS], env=environment, capture_output=True, text=True, timeout=350)
    print(done.stderr[-4000:])
    assert f"verl of {patched}" in done.stdout
    for method in METHODS:
        assert f"{method}: V0 and V1 as the reference" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("method", METHODS)
def test_stock_verl_hands_nothing_over(method):
    rewards, mask, index, entropy = random_batch(1)
    tensors = {"token_level_rewards": rewards, "response_mask": mask, "entropy": entropy}
    data = verl.DataProto(TensorDict(tensors, batch_size=len(mask)), {"uid": index})
    with pytest.raises(TensorError, match=rf"{method} needs entropy, which was not passed.*patches/apply.py"):
        compute_advantage(data, adv_estimator=method, config={})
