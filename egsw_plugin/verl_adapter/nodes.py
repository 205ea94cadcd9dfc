"""Whether every node of the Ray cluster has this plugin, asked before anything is built on them.

verl's losses and workers would run on without it and drop what an estimator sends them. On this node alone workers have
this process's environment, unless Ray's runtime environment gives them another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import __version__
from ..errors import BridgeError

TIME_LIMIT = 600.0  # seconds for all nodes to answer: each imports verl, which takes minutes where all cores are busy
# What in a runtime environment may take the plugin from workers: its own keys, and variables.
OTHER_PYTHON = {"conda", "container", "image_uri", "pip", "py_executable", "uv"}
OTHER_IMPORTS = {"PYTHONPATH", "VERL_USE_EXTERNAL_MODULES", "VERL_USE_EXTERNAL_PLUGINS"}


def check_nodes() -> None:
    """Ask each node on which verl can place something, if Ray is running; this one alone, only where workers may have
    another environment, since the question takes seconds.

    Raises:
        BridgeError: A node lacks the plugin, has another version of it, does not load it, or does not answer.
    """
    import ray

    if not ray.is_initialized():
        return
    # On others verl starts nothing; the head of a cluster is often one.
    nodes = [node for node in ray.nodes() if node["Alive"] and any(map(node["Resources"].get, ("CPU", "GPU")))]
    context = ray.get_runtime_context()
    others = [node for node in nodes if node["NodeID"] != context.get_node_id()]
    if not others and not (nodes and _is_another(context.runtime_env)):
        return
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(_found)
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    seconds = TIME_LIMIT + _building(context.runtime_env)
    ray.wait(answers, num_returns=len(answers), timeout=seconds)
    faults = []
    for node, answer in zip(nodes, answers, strict=True):
        if (fault := _fault(ray, answer, seconds)) is not None:
            faults.append(f"{node['NodeManagerAddress']} (node {node['NodeID'][:8]}) {fault}")
    if faults:
        raise BridgeError(
            f"{len(faults)} of {len(nodes)} nodes of the Ray cluster cannot take part: {'; '.join(faults)}. Install "
            f"egsw-plugin {__version__} in the environment of each node's Ray (in that of "
            "ray_kwargs.ray_init.runtime_env, where it names one), or send it along there; VERL_USE_EXTERNAL_PLUGINS "
            "must be unset, auto or name egsw"
        )


def check_nodes_once_ray_is_up() -> None:
    """Ask at the end of this process's next ``ray.init``, unless Ray runs already.

    The task runner asks as well, but may itself lie on a node that lacks the plugin.
    """
    import ray
    import ray._private.worker as ray_worker

    hooks = getattr(ray_worker, "_post_init_hooks", None)
    if hooks is None or ray.is_initialized():  # without such hooks the task runner's question is left
        return
    asked = False

    def ask() -> None:
        nonlocal asked
        if not asked:
            asked = True
            check_nodes()

    hooks.append(ask)


def _is_another(runtime_env: Mapping[str, Any]) -> bool:
    """Whether workers of a runtime environment may lack what this process imports.

    >>> _is_another({"env_vars": {"VERL_USE_EXTERNAL_MODULES": "hers"}}), _is_another({"env_vars": {"HOME": "/"}})
    (True, False)
    """
    variables = runtime_env.get("env_vars") or {}
    return any(map(runtime_env.get, OTHER_PYTHON)) or bool(OTHER_IMPORTS & variables.keys())  # verl passes None, too


def _building(runtime_env: Mapping[str, Any]) -> float:
    """Seconds that Ray may take to build a runtime environment, which it does before a node's first answer.

    >>> _building({}), _building({"pip": ["verl"]}), _building({"uv": ["verl"], "config": {"setup_timeout_seconds": 9}})
    (0.0, 600.0, 9.0)
    """
    if not any(map(runtime_env.get, OTHER_PYTHON)):
        return 0.0
    limit = (runtime_env.get("config") or {}).get("setup_timeout_seconds", 600)  # Ray's own, if none is set
    return float(limit) if limit >= 0 else 3600.0  # -1: no limit, but a node that hangs says nothing either


def _fault(ray: Any, answer: Any, seconds: float) -> str | None:
    try:
        version, failure = ray.get(answer, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"did not answer within {seconds:.0f} s"
    except Exception as error:  # without the plugin, Ray cannot even read the question
        text = str(error)
        missing = "No module named 'egsw_plugin" in text
        return "has no egsw-plugin" if missing else f"failed: {type(error).__name__}: {text.strip().splitlines()[-1]}"
    if failure is not None:
        return failure
    return None if version == __version__ else f"has egsw-plugin {version}, not {__version__}"


def _found() -> tuple[str, str | None]:
    """In a worker of a node: the plugin's version, and why verl would not have it there."""
    import sys

    import verl  # noqa: F401

    entry = sys.modules.get("egsw_plugin.entry")
    if entry is None:
        return __version__, "has egsw-plugin, but verl does not load it"
    return __version__, None if entry.failure is None else entry.failure.strip().splitlines()[-1]
