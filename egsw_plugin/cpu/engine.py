"""verl's FSDP engines on the CPU.

With ``use_remove_padding=True`` the actor's micro-batch is stored as in `shared_prompts`; under sequence parallelism
(Ulysses) actor and critic are verl's in every respect but the attention's kernel, which is that of `packed`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_utils import AttentionInterface
from verl.models.transformers import monkey_patch
from verl.utils import tensordict_utils as tu
from verl.utils.model import extract_multi_modal_inputs
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

from ..errors import OptionError
from . import packed, shared_prompts

BACKENDS = ["fsdp", "fsdp2"]
REMOVE_PADDING = "actor_rollout_ref.model.use_remove_padding"
_ATTENTION = {"attention", "full_attention", "sliding_attention"}  # layers, as configurations of transformers name them


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prompts_layout: shared_prompts.Layout | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`shared_prompts.attention` as transformers calls it: [1, heads, N, width] in, [1, N, heads, width] out."""
    layout = shared_prompts_layout
    asked = _beyond_softmax(dropout=dropout, **kwargs)
    if layout is None or asked:
        found = f"asks its attention for {asked}" if asked else "keeps the layout from its attention"
        raise ValueError(f"{REMOVE_PADDING}=True on the CPU: not for this model, which {found}; set it to False")
    if sliding_window is not None and int(layout.position_ids.max()) >= sliding_window:
        raise ValueError(
            f"actor_rollout_ref.model.use_remove_padding=True on the CPU: a response reaches beyond the model's "
            f"sliding window of {sliding_window} tokens; set it to False"
        )
    return shared_prompts.attention(query, key, value, layout, scaling).transpose(1, 2), None


def attend_in_parallel(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_ids: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """verl's attention under Ulysses as transformers calls it: [1, heads, N, width] in, [1, N, heads, width] out.

    N are this worker's tokens. Without it each worker would attend to its own part of the sequence alone.
    """
    if asked := _beyond_softmax(dropout=dropout, sliding_window=sliding_window, **kwargs):
        raise ValueError(
            f"ulysses_sequence_parallel_size on the CPU: not for this model, which asks its attention for {asked}; "
            "set it to 1"
        )
    # Looked up at each call: it is verl's function, in which `patches` has exchanged the kernel.
    exchange = monkey_patch._ulysses_flash_attention_forward
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    attended = exchange(query, key, value, None, query.shape[1], position_ids=position_ids, softmax_scale=scaling)
    return attended, None


def _beyond_softmax(**arguments: Any) -> str:
    """What would be left out without a word: caps on the scores are Gemma 2's, sinks (s_aux) gpt-oss's."""
    names = ("dropout", "sliding_window", "softcap", "s_aux")
    asked = {name: arguments[name] for name in names if arguments.get(name) is not None}
    return " and ".join(name for name, value in asked.items() if not (name == "dropout" and value == 0))


def exchange_attention(module: Any, attention: str, key: str, value: object, instead: str) -> None:
    """Gives a model of transformers another attention.

    Raises:
        OptionError: it keeps its own, or other layers mix tokens too, so that rows that stand one after another would
            leak into each other. `key`, `value` and `instead` are the setting that asks for it, and what to set.
    """
    module.set_attn_implementation(attention)  # logs a warning where a model's cannot be exchanged
    config = module.config.get_text_config()
    kinds = {*(getattr(config, "layer_types", None) or ()), *(getattr(config, "layers_block_type", None) or ())}
    mixing = sorted(kinds - _ATTENTION)
    if any(isinstance(layer, torch.nn.Conv1d) for layer in module.modules()):
        mixing.append("Conv1d")
    if config._attn_implementation != attention:
        problem = "whose attention cannot be exchanged"
    elif mixing:
        problem = f"whose layers {', '.join(mixing)} mix tokens as well"
    else:
        return
    raise OptionError(key, value, f"not on the CPU with a {config.model_type} model, {problem}: set it to {instead}")


def _run_in_parallel(engine: Any, module: Any) -> Any:
    """The model that `engine` has built, able to run Ulysses on the CPU if that is asked for."""
    if engine.use_ulysses_sp:
        if hasattr(module.config, "vision_config"):
            raise OptionError(
                "ulysses_sequence_parallel_size",
                engine.ulysses_sequence_parallel_size,
                f"not on the CPU with a model that sees images ({module.config.model_type}): set it to 1",
            )
        size = engine.ulysses_sequence_parallel_size
        exchange_attention(module, packed.NAME, "ulysses_sequence_parallel_size", size, "1")
    return module


class CPUEngineWithValueHead(FSDPEngineWithValueHead):
    """verl's engine of a critic."""

    def _build_module(self):
        return _run_in_parallel(self, super()._build_module())


class CPUEngineWithLMHead(FSDPEngineWithLMHead):
    """verl's engine, which stores each prompt of a micro-batch once and computes no logits of prompts.

    Where padding is not removed, and under Ulysses, it is verl's in every respect.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._shares_prompts = self.use_remove_padding and not self.use_ulysses_sp

    def _build_module(self):
        module = _run_in_parallel(self, super()._build_module())
        if self._shares_prompts:
            exchange_attention(module, shared_prompts.NAME, REMOVE_PADDING, True, "False")
        return module

    def prepare_model_inputs(self, micro_batch):
        if not self._shares_prompts:
            return super().prepare_model_inputs(micro_batch)
        for key in ("use_fused_kernels", "distillation_use_topk", "calculate_sum_pi_squared"):
            if tu.get_non_tensor_data(data=micro_batch, key=key, default=False):
                raise ValueError(f"{key} with actor_rollout_ref.model.use_remove_padding=True: not on the CPU")
        input_ids, position_ids = micro_batch["input_ids"], micro_batch["position_ids"]
        images = extract_multi_modal_inputs(micro_batch.get("multi_modal_inputs", []))
        if position_ids.dim() == 3 or images:
            raise OptionError(
                REMOVE_PADDING,
                True,
                "not on the CPU with a model that sees images, and this batch has "
                f"{', '.join(images) or 'several positions a token'}: set it to False",
            )
        lengths = _prompt_lengths(micro_batch)
        layout = shared_prompts.Layout.of(input_ids.unbind(), position_ids.unbind(), lengths)
        temperature = torch.as_tensor(micro_batch["temperature"], dtype=torch.float32).unique()
        if len(temperature) != 1:
            raise ValueError("rows of one micro-batch have several temperatures: not on the CPU")
        inputs = {
            "input_ids": layout.input_ids.unsqueeze(0),
            "attention_mask": None,
            "position_ids": layout.position_ids.unsqueeze(0),
            "logits_to_keep": layout.keep,
            "shared_prompts_layout": layout,
        }
        return inputs, {"layout": layout, "temperature": max(float(temperature), 1e-8)}

    def prepare_model_outputs(self, output, output_args, micro_batch, logits_processor_func):
        if not self._shares_prompts:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        layout: shared_prompts.Layout = output_args["layout"]
        log_probs, entropy = shared_prompts.log_probs_and_entropy(
            output.logits.squeeze(0), layout.labels, layout.source, output_args["temperature"]
        )
        offsets = micro_batch["input_ids"].offsets()

        def in_rows(values: torch.Tensor) -> torch.Tensor:
            """Where verl looks for a response token's number: at the token before it."""
            flat = values.new_zeros(int(offsets[-1])).index_put((layout.place,), values)
            return torch.nested.nested_tensor_from_jagged(flat, offsets)

        result = {"log_probs": in_rows(log_probs)}
        if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
            result["entropy"] = in_rows(entropy)
        return result


def _prompt_lengths(micro_batch) -> list[int]:
    prompts = micro_batch["prompts"]
    if prompts.is_nested:
        return prompts.offsets().diff().tolist()
    return micro_batch["attention_mask"][:, : prompts.shape[1]].sum(1).tolist()


def register() -> None:
    """Make the engines known to verl for the device "cpu", and the attention to transformers."""
    AttentionInterface.register(shared_prompts.NAME, attend)
    AttentionInterface.register(packed.NAME, attend_in_parallel)
    EngineRegistry.register(model_type="language_model", backend=BACKENDS, device="cpu")(CPUEngineWithLMHead)
    EngineRegistry.register(model_type="value_model", backend=BACKENDS, device="cpu")(CPUEngineWithValueHead)
