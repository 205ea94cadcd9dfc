"""What verl 0.9.1 takes for granted about accelerators, corrected when verl imports the module concerned."""

import functools

import wrapt

POLL_SECONDS = 0.1


def gloo_process_group(module) -> None:
    """verl asks torch for "cpu:gloo,<device>:<backend>", a duplicate device type where the device is the CPU."""
    original = module.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize_global_process_group_ray(timeout_second=None, backend=None):
        return original(timeout_second, backend or "cpu:gloo")

    module.initialize_global_process_group_ray = initialize_global_process_group_ray


def fsdp_without_an_accelerator(module) -> None:
    """Of verl's engines: nothing is offloaded to pinned memory, which only a machine with an accelerator has.

    FSDP1, moreover, refuses to broadcast from the CPU, which gloo can do, and verl moves its parameters to "cpu:cpu".
    """
    import torch.distributed.fsdp as fsdp
    from torch.distributed.fsdp import _init_utils

    module.CPUOffloadPolicy = _without(module.CPUOffloadPolicy, "pin_memory")  # FSDP2
    fsdp.CPUOffload = _without(fsdp.CPUOffload, "offload_params")
    _init_utils._check_module_states_for_sync_module_states = lambda module_states: None
    module.load_fsdp_model_to_gpu = lambda model: None  # it is there


def _without(original, argument: str):
    """`original`, called with False for this argument."""

    @functools.wraps(original, updated=())
    def called(**kwargs):
        return original(**{**kwargs, argument: False})

    return called


def value_model_attention(module) -> None:
    """The critic's loader asks for FlashAttention 2 whatever the model's config says; use the config's."""
    original = module.load_valuehead_model

    @functools.wraps(original)
    def load_valuehead_model(local_path, torch_dtype, model_config, trust_remote_code):
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(
            local_path, dtype=torch_dtype, config=model_config, trust_remote_code=trust_remote_code
        )

    module.load_valuehead_model = load_valuehead_model


def packed_attention(module) -> None:
    """verl's sequence parallelism calls FlashAttention's kernels; exchange them, and leave verl's own part."""
    from . import packed

    module._flash_attention_forward = packed.attention


def short_poll(module) -> None:
    """The trainer looks for finished rollouts every 2 s, and no setting changes it; here a step takes less."""
    original = module.ReplayBuffer.__init__

    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        kwargs.setdefault("poll_interval", POLL_SECONDS)
        original(self, *args, **kwargs)

    module.ReplayBuffer.__init__ = __init__


def engines(module) -> None:
    """verl registers its engines for cuda and npu only."""
    from . import engine

    engine.register()


PATCHES = {
    "verl.utils.distributed": gloo_process_group,
    "verl.workers.engine.fsdp.transformer_impl": fsdp_without_an_accelerator,
    "verl.workers.engine.fsdp": engines,
    "verl.models.transformers.monkey_patch": packed_attention,
    "verl.utils.model": value_model_attention,
    "verl.trainer.ppo.v1.replay_buffer": short_poll,
}


def install() -> None:
    """Hook every patch to the import of its module."""
    for name, patch in PATCHES.items():
        wrapt.register_post_import_hook(patch, name)
