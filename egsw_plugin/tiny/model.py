"""Tokenizer, model and supervised warm start of the tiny start policy."""

import random
import time
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'][0] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>a\n' }}{% endif %}"
)
MAX_PROMPT = 32  # tokens, of every task


def make_tokenizer(max_response: int = 64) -> Qwen2Tokenizer:
    """Printable ASCII and newline, one character a token; ``max_response`` in tokens.

    It is byte-level BPE without merges, because for a Qwen2 model AutoTokenizer keeps only the vocabulary and the
    merges of what was saved and supplies the pre-tokenizer itself; space and newline thus appear under their
    byte-level names.
    """
    characters = ["Ċ", "Ġ", *map(chr, range(ord("!"), ord("~") + 1))]
    vocab = {token: i for i, token in enumerate([PAD, START, END, *characters])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=[],
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START, END],
        model_max_length=MAX_PROMPT + max_response,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: Any, seed: int) -> Qwen2ForCausalLM:
    """A random Qwen2 of about 0.2 M parameters."""
    torch.manual_seed(seed)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in (("pad", PAD), ("eos", END))}
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,  # a head size of 32, the smallest that vLLM's CPU attention has
        num_key_value_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        # defaults meant for thousands of positions and channels would take several times the steps to fit
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=ids["pad"],
        eos_token_id=ids["eos"],
        pad_token_id=ids["pad"],
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = ids["eos"]
    model.generation_config.pad_token_id = ids["pad"]
    return model


def _prompt(tokenizer: Any, task: Any, problem: list[int]) -> list[int]:
    """Token ids of the chat prompt."""
    chat = [{"role": "user", "content": task.question(problem)}]
    return tokenizer(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))["input_ids"]


def _response(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a response and its end."""
    return tokenizer(text + END)["input_ids"]


def _loss(model: Any, tokenizer: Any, task: Any, rng: random.Random, settings: Any) -> torch.Tensor:
    """Mean cross-entropy over the response tokens of fresh demonstrations."""
    pairs = [
        (
            _prompt(tokenizer, task, problem),
            _response(tokenizer, task.demonstration(rng, problem, settings.hurry, settings.boxed)),
        )
        for problem in task.problems(rng, settings.fit_batch)
    ]
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for i, (prompt, response) in enumerate(pairs):
        end = len(prompt) + len(response)
        ids[i, :end] = torch.tensor(prompt + response)
        labels[i, len(prompt) : end] = torch.tensor(response)
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    kept = labels[:, 1:] != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), labels[:, 1:][kept])


@torch.no_grad()
def sampled_success(model: Any, tokenizer: Any, task: Any, problems: Any, samples: int) -> torch.Tensor:
    """Rewards (problems, samples) of responses sampled at temperature 1."""
    prompts = [_prompt(tokenizer, task, problem) for problem in problems]
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
    ids = ids.repeat_interleave(samples, 0)
    out = model.eval().generate(
        input_ids=ids,
        attention_mask=(ids != tokenizer.pad_token_id).long(),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=task.MAX_RESPONSE,
    )
    texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    truths = [task.truth(problem) for problem in problems for _ in range(samples)]
    scores = [task.compute_score("", text, truth)["score"] for text, truth in zip(texts, truths, strict=True)]
    return torch.tensor(scores).view(len(problems), samples)


def warm_start(model: Any, tokenizer: Any, task: Any, settings: Any, held_out: Any) -> dict:
    """Fit demonstrations until sampled success on ``held_out`` reaches the target; what was measured.

    The demonstrations often stop too early, so the fitted model can add but answers in a hurry: it succeeds on some
    samples of nearly every problem, and on fewer the longer the problem. Reinforcement learning has that to mend.
    """
    torch.manual_seed(settings.seed)
    rng = random.Random(f"fit {settings.seed}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.fit_lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.fit_lr, total_steps=settings.fit_steps + 1, pct_start=0.1, cycle_momentum=False
    )
    began, measured = time.monotonic(), {}
    for step in range(1, settings.fit_steps + 1):
        loss = _loss(model.train(), tokenizer, task, rng, settings)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step < settings.fit_steps and (step % settings.fit_check or 2 * step < settings.fit_steps):
            continue
        success = sampled_success(model, tokenizer, task, held_out, samples=8)
        solved = success.mean(1)
        measured = {
            "fit_steps": step,
            "success": round(success.mean().item(), 3),
            "mixed_groups": round(((solved > 0) & (solved < 1)).float().mean().item(), 3),
        }
        print(f"warm start: {measured} after {time.monotonic() - began:.0f} s, loss {loss.item():.3f}", flush=True)
        if measured["success"] >= settings.fit_target:
            break
    return measured
