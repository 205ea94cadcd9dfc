"""A GGUF file as an ordinary checkpoint, by transformers and gguf, with what those two leave wrong put right.

- The tokenizer they make has neither the end of a turn as its end nor a pad token, so that responses would not end
  where the model ends them.
- It splits text by GPT-2's rule alone. SmolLM's rule takes every digit by itself first, which the file says in
  ``tokenizer.ggml.pre``; without it the tokens before a digit ("\\n\\n12", "x  345") are others than in training.
- Its decoder changes a character ("▁") into a space.
"""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ModelError

DTYPES = ("float32", "bfloat16")
_DIGITS = {"gpt-2": False, "smollm": True}  # tokenizer.ggml.pre: whether every digit is taken by itself before BPE


def convert(source: Path, out: Path, end: str, dtype: str) -> None:
    """Writes configuration, weights, tokenizer, chat template and generation configuration.

    Args:
        source: A GGUF file of a causal language model with a byte-level BPE tokenizer.
        out: A folder that is there.
        end: The token that ends a turn: end of sequence and padding, for model and tokenizer.
        dtype: One of `DTYPES`, of the weights; bfloat16 rounds them.

    Raises:
        ModelError: The tokenizer is of another kind, or has no such token.
    """
    with _quiet():
        import torch
        from transformers import AutoModelForCausalLM

        splits_digits, template = _read_fields(source)
        model = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=getattr(torch, dtype), local_files_only=True
        )
        tokenizer = _tokenizer(source, splits_digits, end, model.config.max_position_embeddings)
        tokenizer.chat_template = template
        for config in (model.config, model.generation_config):
            config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
        model.generation_config._from_model_config = False  # it is meant as it stands
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    written = out / "tokenizer_config.json"
    # transformers 4 knows the tokenizer's class by this name alone, 5 by both
    settings = {**json.loads(written.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    written.write_text(json.dumps(settings, indent=2) + "\n")
    for path in out.glob("*.safetensors"):
        shutil.copymode(written, path)  # safetensors makes its files for the owner alone


def _read_fields(source: Path) -> tuple[bool, str]:
    from gguf import GGUFReader

    fields = GGUFReader(source).fields
    kind, pre, template = (
        fields[name].contents() if name in fields else None
        for name in ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template")
    )
    if kind != "gpt2" or pre not in _DIGITS:
        raise ModelError(f"{source.name} has a tokenizer of kind {kind!r}, {pre!r}; known: 'gpt2', {list(_DIGITS)}")
    if not template:
        raise ModelError(f"{source.name} has no chat template")
    return _DIGITS[pre], template


def _tokenizer(source: Path, splits_digits: bool, end: str, length: int) -> Any:
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    read = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    if read.convert_tokens_to_ids(end) in (None, read.unk_token_id):
        raise ModelError(f"{source.name} has no token {end!r}")
    backend = read.backend_tokenizer
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level]) if splits_digits else byte_level
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=read.bos_token,
        eos_token=end,
        pad_token=end,
        unk_token=read.unk_token,
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' bars where nobody looks."""
    with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
        yield
