"""A Ray cluster of two nodes, each a raylet on this machine, of which one does not load the plugin.

Maps to verl_adapter/nodes.py. Not exercised: machines apart, and a training run (verl_runs/test_two_nodes.py).
"""

import os
import subprocess
import sys
import tempfile

import pytest

from egsw_plugin import __version__

CODE = """
import sys

import ray
from ray.cluster_utils import Cluster
from egsw_plugin.errors import BridgeError
from egsw_plugin.verl_adapter import nodes

def ask(what):
    try:
        nodes.check_nodes()
        print(what, "accepted")
    except BridgeError as error:
        print(what, error)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = {"py_executable": f"env VERL_USE_EXTERNAL_PLUGINS=none {sys.executable}"}
ray.init(address=cluster.address, log_to_driver=False, runtime_env=other)
ask("ONE NODE, ANOTHER PYTHON")
ray.shutdown()

ray.init(address=cluster.address, log_to_driver=False)
question, nodes._found = nodes._found, lambda: None  # an answer that is refused
ask("ONE NODE")
cluster.add_node(num_cpus=0, env_vars={"VERL_USE_EXTERNAL_PLUGINS": "none"})
ask("AND ONE WITHOUT CPUS")
nodes._found = question
added = cluster.add_node(num_cpus=1, env_vars={"VERL_USE_EXTERNAL_PLUGINS": "none"})
print("ADDED", added.node_id[:8])
ask("TWO NODES")
nodes.__version__ = "9.9"
ask("ANOTHER VERSION")
nodes.__version__ = None
ray.shutdown()

from egsw_plugin import __version__
nodes.__version__ = __version__
nodes.check_nodes_once_ray_is_up()
try:
    ray.init(address=cluster.address, log_to_driver=False)
except BridgeError as error:
    print("AS RAY STARTS", error)
ray.shutdown()

sent = {"env_vars": {"VERL_USE_EXTERNAL_MODULES": "egsw_plugin.entry"}}
ray.init(address=cluster.address, log_to_driver=False, runtime_env=sent)
ask("SENT ALONG")
"""


@pytest.mark.timeout(700)
def test_every_node_is_asked():
    # A folder of its own, short enough for sockets, or Ray elsewhere would join this cluster as the machine's.
    with tempfile.TemporaryDirectory(prefix="nodes", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "RAY_TMPDIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=650, env=environment
        )
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout
    added = said.split("ADDED ")[1].split()[0]
    assert "ONE NODE accepted" in said and "SENT ALONG accepted" in said
    assert "AND ONE WITHOUT CPUS accepted" in said
    python = said.split("ONE NODE, ANOTHER PYTHON")[1].split("\n")[0]
    assert "1 of 1 nodes" in python and "has egsw-plugin, but verl does not load it. Install" in python
    two, another, starting = (
        said.split(what)[1].split("\n")[0] for what in ("TWO NODES", "ANOTHER VERSION", "AS RAY STARTS")
    )
    assert starting == two
    assert "1 of 2 nodes" in two and f"(node {added}) has egsw-plugin, but verl does not load it. Install" in two
    assert "2 of 2 nodes" in another and f"has egsw-plugin {__version__}, not 9.9" in another
