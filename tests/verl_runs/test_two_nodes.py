"""A run over two Ray nodes with a worker on each: two raylets on this machine, started as for a cluster.

Maps to verl_adapter/nodes.py and the launchers' multi-node lines. Not exercised: a network between machines.
"""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from launch import ROOT, TIME_LIMIT, assert_in_effect, read_run, train

pytestmark = [pytest.mark.combination, pytest.mark.timeout(TIME_LIMIT + 200)]
# An existing cluster takes no resources from ray.init.
EXISTING = [f"ray_kwargs.ray_init.{name}=null" for name in ("num_cpus", "num_gpus", "object_store_memory")]
# Ray 2.60 asks for a token as soon as one lies in the home folder, and with an explicit address sends none by itself.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
TWO_NODES = [*EXISTING, "trainer.nnodes=2", "actor_rollout_ref.actor.ppo_mini_batch_size=16"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def cluster(out, dashboard=None, **second):
    """Two raylets with a logical GPU each; `second` is set in the environment of the second alone.

    Jobs are submitted to the port `dashboard`.
    """
    address = f"127.0.0.1:{free_port()}"
    folder = tempfile.mkdtemp(prefix="nodes")  # short enough for sockets; Ray elsewhere would else join this cluster
    shared = {**os.environ, **TOKEN, "RAY_TMPDIR": folder, "VERL_FILE_LOGGER_PATH": str(out / "metrics.jsonl")}
    shared["PATH"] = f"{Path(sys.executable).parent}:{shared['PATH']}"
    size = "--num-gpus=1 --num-cpus=8 --object-store-memory=200000000 --disable-usage-stats --block"
    board = f"--dashboard-port={dashboard}" if dashboard else "--include-dashboard=false"
    head = f"ray start --head --port={address.rsplit(':')[-1]} {board} {size}"
    raylets = []
    try:
        for command, extra in ((head, {}), (f"ray start --address={address} {size}", second)):
            line = f". {shlex.quote(str(ROOT / 'recipes/machine/cpu.sh'))}; exec {command}"
            raylets.append(
                subprocess.Popen(
                    ["bash", "-c", line], env={**shared, **extra}, start_new_session=True, stdout=subprocess.DEVNULL
                )
            )
            time.sleep(15)
        yield address
    finally:
        for one in reversed(raylets):
            one.terminate()
        for one in raylets:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, 9)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_worker_on_each_node(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with cluster(out) as address:
        run = train(out, *TWO_NODES, RAY_ADDRESS=address, **TOKEN)
    assert_in_effect(run)
    assert run.column("egsw/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)


def test_a_job_submitted_with_a_working_directory(tmp_path):
    out, project, port = tmp_path / "out", tmp_path / "project", free_port()
    out.mkdir()
    shutil.copytree(ROOT / "recipes", project / "recipes")
    # the folder is sent to each node by itself: what one writes there, the others do not see
    settings = {
        "ASSETS": tmp_path / "assets",
        "OUT": out,
        "PYTHON": sys.executable,
        "STEPS": 2,
        "TIME_LIMIT": TIME_LIMIT,
    }
    job = [*(f"{name}={value}" for name, value in settings.items()), "bash", "recipes/tiny_cpu/run_tiny.sh", *TWO_NODES]
    submit = [str(Path(sys.executable).with_name("ray")), "job", "submit", f"--address=http://127.0.0.1:{port}"]
    with cluster(out, dashboard=port):
        done = subprocess.run(
            [*submit, "--working-dir", str(project), "--", "env", *job],
            env={**os.environ, **TOKEN}, capture_output=True, text=True, timeout=TIME_LIMIT + 100,
        )  # fmt: skip
    run = read_run(out, done.returncode, done.stdout + done.stderr)
    assert_in_effect(run)
    assert run.column("egsw/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)


def test_a_node_without_the_plugin_is_named_before_anything_is_built(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with cluster(out, VERL_USE_EXTERNAL_PLUGINS="none") as address:
        run = train(out, *TWO_NODES, RAY_ADDRESS=address, **TOKEN)
    assert run.code not in (0, 124)
    assert "1 of 2 nodes of the Ray cluster cannot take part" in run.screen
    assert "has egsw-plugin, but verl does not load it" in run.screen
    assert run.steps == []
