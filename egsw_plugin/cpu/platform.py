"""verl's platform named "cpu": device "cpu", collectives over gloo, Ray workers on logical GPUs."""

import contextlib
import types

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _nothing(*args, **kwargs) -> None:
    pass


def _zero(*args, **kwargs) -> int:
    return 0


class _DeviceModule(types.ModuleType):
    """``torch.cpu`` completed by the functions of ``torch.cuda`` that verl calls unconditionally."""

    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    get_rng_state = staticmethod(torch.get_rng_state)
    set_rng_state = staticmethod(torch.set_rng_state)
    empty_cache = ipc_collect = reset_peak_memory_stats = staticmethod(_nothing)
    memory_allocated = memory_reserved = staticmethod(_zero)
    max_memory_allocated = max_memory_reserved = staticmethod(_zero)

    @staticmethod
    def is_available() -> bool:
        """False: verl asks this before it touches accelerator memory."""
        return False

    @staticmethod
    def get_device_name(device=None) -> str:
        return "CPU"

    def __getattr__(self, name):
        return getattr(torch.cpu, name)

    # verl compares the device module with torch.cpu to leave out accelerator statistics
    def __eq__(self, other):
        return other is self or other is torch.cpu

    def __hash__(self):
        return hash(torch.cpu)


class CPUPlatform(PlatformBase):
    """The host itself; chosen by VERL_PLATFORM=cpu only, never detected."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DeviceModule("egsw_plugin.cpu.device")

    def is_available(self):
        return True

    def is_platform_available(self, use_smi_check=False):
        return False

    def current_device(self):
        return "cpu"  # what verl calls a device id ends up in Tensor.to

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    # Workers are placed on GPUs that Ray is told of (ray_init.num_gpus), so Ray's names for GPUs apply.
    def ray_resource_name(self):
        return "GPU"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    def ray_noset_envvars(self):
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self):
        return False  # weights then go to vLLM through POSIX shared memory

    def nvtx_range(self, msg):
        return contextlib.nullcontext()

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def cudart(self):
        return None


def register() -> None:
    """Make the platform known to verl under the name "cpu"."""
    PlatformRegistry.register(platform="cpu")(CPUPlatform)
