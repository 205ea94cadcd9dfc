"""The CPU support: absent unless asked for, complete when asked for; each case is a fresh process."""

import json
import os
import subprocess
import sys

PROBE = """
import json, sys
import verl

loaded_by_plugin = sorted(name for name in sys.modules if name.startswith("egsw_plugin.cpu."))
import verl.models.transformers.monkey_patch, verl.utils.distributed, verl.utils.model
from verl.plugin.platform import PlatformRegistry
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.workers.engine.fsdp import transformer_impl

replaceable = {
    "process group": verl.utils.distributed.initialize_global_process_group_ray,
    "offload": transformer_impl.CPUOffloadPolicy,
    "attention": verl.models.transformers.monkey_patch._flash_attention_forward,
    "value model": verl.utils.model.load_valuehead_model,
    "poll": ReplayBuffer.__init__,
}
print("REPORT", json.dumps({
    "platforms": PlatformRegistry.registered_names(),
    "loaded": loaded_by_plugin,
    "patched": [k for k, f in replaceable.items() if "egsw_plugin" in str(getattr(f, "__code__", ""))],
}))
"""


def run(code: str, platform: str | None) -> subprocess.CompletedProcess:
    """Run Python code in a fresh process with VERL_PLATFORM as given."""
    environment = {k: v for k, v in os.environ.items() if k != "VERL_PLATFORM"}
    if platform is not None:
        environment["VERL_PLATFORM"] = platform
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def probe(platform: str | None) -> dict:
    """What `import verl` leaves behind in a fresh process."""
    done = run(PROBE, platform)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("REPORT ")[1])


def test_inert_unless_asked():
    report = probe(None)
    assert "cpu" not in report["platforms"]
    assert report["patched"] == []
    assert report["loaded"] == []


def test_complete_when_asked():
    report = probe("cpu")
    assert "cpu" in report["platforms"]
    assert report["patched"] == ["process group", "offload", "attention", "value model", "poll"]


def test_platform_answers_verl():
    done = run(
        "import torch, verl\n"
        "from verl.utils.device import get_device_id, get_device_name, get_nccl_backend, get_torch_device\n"
        "assert (get_device_name(), get_device_id(), get_nccl_backend()) == ('cpu', 'cpu', 'gloo')\n"
        "device = get_torch_device()\n"
        "assert device == torch.cpu and not device.is_available()\n"
        "assert device.max_memory_allocated() == 0\n"
        "device.synchronize(); device.empty_cache()\n"
        "device.set_rng_state(device.get_rng_state())\n",
        " CPU ",
    )
    assert done.returncode == 0, done.stderr


def test_a_worker_can_join_its_process_group(tmp_path):
    done = run(
        "import os, torch, verl\n"
        f"os.environ['DIST_INIT_METHOD'] = 'file://{tmp_path}/rendezvous'\n"
        "from verl.utils.distributed import initialize_global_process_group_ray as join\n"
        "join()\n"
        "print('BACKEND', torch.distributed.get_backend())\n",
        "cpu",
    )
    assert "BACKEND cpu:gloo\n" in done.stdout, done.stderr


def test_a_critic_can_be_loaded(tmp_path):
    done = run(
        "import torch, transformers, verl, verl.utils.model\n"
        "config = transformers.Qwen2Config(hidden_size=8, intermediate_size=8, num_hidden_layers=1, vocab_size=9,\n"
        "                                  num_attention_heads=1, num_key_value_heads=1, num_labels=1)\n"
        f"transformers.Qwen2ForCausalLM(config).save_pretrained({str(tmp_path)!r})\n"
        f"model = verl.utils.model.load_valuehead_model({str(tmp_path)!r}, torch.float32, config, False)\n"
        "print('SHAPE', list(model(torch.ones(2, 3, dtype=torch.int64)).logits.shape))\n",
        "cpu",
    )
    assert "SHAPE [2, 3, 1]" in done.stdout, done.stderr


def test_vllm_keeps_its_kernels_unless_asked():
    from egsw_plugin.cpu import vllm

    before = set(sys.modules)
    os.environ.pop("VERL_PLATFORM", None)
    vllm.register()
    assert not {name for name in set(sys.modules) - before if name.startswith("vllm")}


def test_vllms_processes_wait_for_each_other_without_a_core():
    """A message 0.2 s after the last: one look, where vLLM's own way looks thousands of times."""
    done = run(
        "import threading, zmq\n"
        "from egsw_plugin.cpu import vllm\n"
        "vllm.register()\n"
        "import vllm._custom_ops\n"
        "assert not vllm._custom_ops._supports_onednn\n"
        "from vllm.distributed.device_communicators.shm_broadcast import SpinCondition\n"
        "context, address = zmq.Context(), 'inproc://notices'\n"
        "writer, reader = (SpinCondition(is_reader, context, address) for is_reader in (False, True))\n"
        "reader.wait(timeout_ms=10)\n"
        "came = threading.Event()\n"
        "threading.Timer(0.2, lambda: (came.set(), writer.notify())).start()\n"
        "looks = 0\n"
        "while not came.is_set():\n"
        "    reader.record_read()\n"
        "    reader.wait(timeout_ms=5000)\n"
        "    looks += 1\n"
        "print('LOOKS', looks)\n",
        "cpu",
    )
    assert "LOOKS 1\n" in done.stdout, done.stdout + done.stderr
