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
from launch import ROOT, TIME_LIMIT, assert_in_effect, train

pytestmark = [pytest.mark.combination, pytest.mark.timeout(TIME_LIMIT + 200)]
# An existing cluster takes no resources from ray.init.
EXISTING = [f"ray_kwargs.ray_init.{name}=null" for name in ("num_cpus", "num_gpus", "object_store_memory")]
TWO_NODES = [*EXISTING, "trainer.nnodes=2", "actor_rollout_ref.actor.ppo_mini_batch_size=16"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def cluster(out, **second):
    """Two raylets with a logical GPU each; `second` is set in the environment of the second alone."""
    address = f"127.0.0.1:{free_port()}"
    folder = tempfile.mkdtemp(prefix="nodes")  # short enough for sockets; Ray elsewhere would else join this cluster
    shared = {**os.environ, "RAY_TMPDIR": folder, "VERL_FILE_LOGGER_PATH": str(out / "metrics.jsonl")}
    shared["PATH"] = f"{Path(sys.executable).parent}:{shared['PATH']}"
    size = "--num-gpus=1 --num-cpus=8 --object-store-memory=200000000 --disable-usage-stats --block"
    head = f"ray start --head --port={address.rsplit(':')[-1]} --include-dashboard=false {size}"
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
        run = train(out, *TWO_NODES, RAY_ADDRESS=address)
    assert_in_effect(run)
    assert run.column("egsw/entropy/mean") == pytest.approx(run.column("actor/entropy"), rel=1e-4)


def test_a_node_without_the_plugin_is_named_before_anything_is_built(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with cluster(out, VERL_USE_EXTERNAL_PLUGINS="none") as address:
        run = train(out, *TWO_NODES, RAY_ADDRESS=address)
    assert run.code not in (0, 124)
    assert "1 of 2 nodes of the Ray cluster cannot take part" in run.screen
    assert "has egsw-plugin, but verl does not load it" in run.screen
    assert run.steps == []
