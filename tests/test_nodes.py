"""A Ray cluster of several nodes, each a raylet on this machine, of which one lacks the plugin.

Maps to verl_adapter/nodes.py. Not exercised: machines apart, and a training run (verl_runs/test_two_nodes.py).
"""

import os
import subprocess
import sys
import tempfile

import pytest

from egsw_plugin import __version__

CODE = """
import sys, ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
added = cluster.add_node(num_cpus=1, env_vars={"VERL_USE_EXTERNAL_PLUGINS": sys.argv[1]})
environment = {"env_vars": {"VERL_USE_EXTERNAL_MODULES": sys.argv[3]}} if sys.argv[3:] else None
ray.init(address=cluster.address, log_to_driver=False, runtime_env=environment)
print("ADDED", added.node_id[:8])
from egsw_plugin.verl_adapter import nodes
if sys.argv[2]:
    nodes.__version__ = sys.argv[2]
nodes.check_nodes()
print("ACCEPTED", len(ray.nodes()))
"""


@pytest.mark.timeout(700)
@pytest.mark.parametrize(
    "plugins, version, modules, faults, fault",
    [
        ("auto", "", (), 0, None),
        ("none", "", ("egsw_plugin.entry",), 0, None),  # sent along by the job
        ("none", "", (), 1, "has egsw-plugin, but verl does not load it"),
        ("auto", "9.9", (), 2, f"has egsw-plugin {__version__}, not 9.9"),
    ],
)
def test_every_node_is_asked(plugins, version, modules, faults, fault):
    arguments = [plugins, version, *modules]
    # A folder of its own, short enough for sockets, or Ray elsewhere would join this cluster as the machine's.
    with tempfile.TemporaryDirectory(prefix="nodes", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "RAY_TMPDIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, timeout=650, env=environment
        )
    if fault is None:
        assert "ACCEPTED 2" in done.stdout, done.stderr[-2000:]
        return
    assert "ACCEPTED" not in done.stdout
    added = done.stdout.split("ADDED ")[1].split()[0]
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("egsw_plugin.errors.BridgeError:")]
    assert f"(node {added}) {fault}" in message and "Install egsw-plugin" in message
    assert f"{faults} of 2 nodes" in message
