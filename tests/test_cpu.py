"""The CPU support: absent unless asked for, complete when asked for; each case is a process of its own."""

import json
import os
import sys

import pytest
from forks import forked

PROBE = """
import json, sys
import verl

loaded_by_plugin = sorted(name for name in sys.modules if name.startswith("egsw_plugin.cpu."))
import verl.models.transformers.monkey_patch, verl.utils.distributed, verl.utils.model
from verl.plugin.platform import PlatformRegistry
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.workers.engine.fsdp import transformer_impl
import torch.distributed.fsdp
from torch.distributed.fsdp import _init_utils

replaceable = {
    "process group": verl.utils.distributed.initialize_global_process_group_ray,
    "offload": transformer_impl.CPUOffloadPolicy,
    "load": transformer_impl.load_fsdp_model_to_gpu,
    "FSDP1's offload": torch.distributed.fsdp.CPUOffload,
    "FSDP1's state": _init_utils._check_module_states_for_sync_module_states,
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


CASES = {
    "complete": PROBE,
    "platform": """
from verl.utils.device import get_device_id, get_device_name, get_nccl_backend, get_torch_device
assert (get_device_name(), get_device_id(), get_nccl_backend()) == ("cpu", "cpu", "gloo")
device = get_torch_device()
assert device == torch.cpu and not device.is_available()
assert device.max_memory_allocated() == 0
device.synchronize(); device.empty_cache()
device.set_rng_state(device.get_rng_state())
print("ANSWERED")
""",
    "process group": """
import os
os.environ["DIST_INIT_METHOD"] = "file://" + os.path.abspath("rendezvous")
from verl.utils.distributed import initialize_global_process_group_ray
initialize_global_process_group_ray()
print("BACKEND", torch.distributed.get_backend())
""",
    "FSDP1": """
from verl.workers.engine.fsdp import transformer_impl
from torch.distributed.fsdp import CPUOffload, FullyShardedDataParallel
torch.distributed.init_process_group("gloo", init_method="file://" + os.path.abspath("fsdp1"), rank=0, world_size=1)
for offload in (None, CPUOffload(offload_params=True)):
    model = torch.nn.Linear(3, 1, bias=False)
    right = 2 * model.weight.detach().sum().expand(3)
    wrapped = FullyShardedDataParallel(model, device_id="cpu", sync_module_states=True, cpu_offload=offload)
    wrapped(torch.ones(3)).square().sum().backward()
    print("GRADIENT", torch.allclose(next(wrapped.parameters()).grad.flatten(), right))
""",
    "critic": """
import transformers, verl.utils.model
config = transformers.Qwen2Config(hidden_size=8, intermediate_size=8, num_hidden_layers=1, vocab_size=9,
                                  num_attention_heads=1, num_key_value_heads=1, num_labels=1)
transformers.Qwen2ForCausalLM(config).save_pretrained("model")
model = verl.utils.model.load_valuehead_model("model", torch.float32, config, False)
print("SHAPE", list(model(torch.ones(2, 3, dtype=torch.int64)).logits.shape))
""",
    "vLLM": """
import json, threading, time, zmq
from egsw_plugin.cpu import vllm
vllm.register()
import vllm._custom_ops
assert not vllm._custom_ops._supports_onednn
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
context, address = zmq.Context(), "inproc://notices"
writer, reader = (SpinCondition(is_reader, context, address) for is_reader in (False, True))
reader.wait(timeout_ms=10)
def looks(notice, soon):
    # How often the reader looks for a message that comes after 0.2 seconds, and how long it takes to see it.
    came, number, began = threading.Event(), 0, time.monotonic()
    threading.Timer(0.2, lambda: (came.set(), notice())).start()
    while not came.is_set():
        reader.last_read = time.monotonic() - (0 if soon else 60)
        reader.wait(timeout_ms=5000)
        number += 1
    return number, time.monotonic() - began
print("REPORT", json.dumps({"soon": looks(lambda: None, True), "idle": looks(writer.notify, False)}))
""",
}


def with_platform(platform, folder, cases):
    """What each case prints after `import verl`, with VERL_PLATFORM as given."""
    environment = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    if platform is not None:
        environment["VERL_PLATFORM"] = platform
    return forked("import torch, verl", cases, env=environment, cwd=folder)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return with_platform(" CPU ", tmp_path_factory.mktemp("asked"), CASES)


def report_of(output):
    return json.loads(output.split("REPORT ")[1])


def test_inert_unless_asked(tmp_path):
    report = report_of(with_platform(None, tmp_path, {"complete": PROBE})["complete"])
    assert "cpu" not in report["platforms"]
    assert report["patched"] == []
    assert report["loaded"] == []


def test_complete_when_asked(asked):
    report = report_of(asked["complete"])
    assert "cpu" in report["platforms"]
    assert report["patched"] == [
        "process group",
        "offload",
        "load",
        "FSDP1's offload",
        "FSDP1's state",
        "attention",
        "value model",
        "poll",
    ]


def test_platform_answers_verl(asked):
    assert "ANSWERED" in asked["platform"]


def test_a_worker_can_join_its_process_group(asked):
    assert "BACKEND cpu:gloo\n" in asked["process group"]


def test_fsdp1_finds_the_gradient(asked):
    assert asked["FSDP1"].count("GRADIENT True") == 2


def test_a_critic_can_be_loaded(asked):
    assert "SHAPE [2, 3, 1]" in asked["critic"]


def test_vllms_processes_wait_for_each_other_without_a_core(asked):
    """A message 0.2 s after the last: at most 200 looks, where vLLM's own way looks a hundred thousand times."""
    report = report_of(asked["vLLM"])
    assert report["soon"][0] <= 200 and report["idle"][0] == 1


def test_a_message_whose_notice_was_lost_is_seen(asked):
    """Long before the five seconds after which vLLM looks for such a message."""
    assert report_of(asked["vLLM"])["soon"][1] < 2.5


def test_vllm_keeps_its_kernels_unless_asked():
    from egsw_plugin.cpu import vllm

    before = set(sys.modules)
    os.environ.pop("VERL_PLATFORM", None)
    vllm.register()
    assert not {name for name in set(sys.modules) - before if name.startswith("vllm")}
