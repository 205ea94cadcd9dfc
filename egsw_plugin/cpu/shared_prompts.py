"""A micro-batch without what a few cores need not compute: each prompt once, logits of responses only, no padding.

The responses of a group share their prompt, which is most of the tokens. Here a prompt is stored once, its responses
behind it, and every response attends to the prompt and to itself. Nothing is approximated: log-probabilities, entropies
and gradients are those of separate rows. No verl here. Shape letters: B rows, N stored tokens, M response tokens, K
rows of logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "egsw_shared_prompts"  # of the attention, among those of transformers
CHUNK = 1 << 22  # logits that are turned into float32 at a time; they then stay in the processor's caches


@dataclass(frozen=True)
class Group:
    """A prompt and the responses stored behind it, one after another.

    length: tokens of the prompt. response: where each response's tokens are behind the prompt, int64 [responses,
    longest], 0 after its end. alive: bool of the same shape.
    """

    length: int
    response: torch.Tensor
    alive: torch.Tensor

    @property
    def place(self) -> torch.Tensor:
        """Where the responses' tokens are in the rows of `response`, one row after another: int64 [tokens]."""
        return self.alive.flatten().nonzero().flatten()


@dataclass(frozen=True)
class Layout:
    """How the rows of a micro-batch are stored.

    input_ids, position_ids: int64 [N]. groups: in order. keep: int64 [K], stored tokens after which a response token
    comes. source: int64 [M], for each response token, row by row, the place in `keep` of the token before it. labels:
    int64 [M], the response tokens. place: int64 [M], the place of the token before it in the rows one after another.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    groups: tuple[Group, ...]
    keep: torch.Tensor
    source: torch.Tensor
    labels: torch.Tensor
    place: torch.Tensor

    @classmethod
    def of(
        cls, rows: Sequence[torch.Tensor], positions: Sequence[torch.Tensor], prompt_lengths: Sequence[int]
    ) -> Layout:
        """Store rows, int64 [tokens] each, of which the first `prompt_lengths` tokens are the prompt.

        Two rows share a prompt if its tokens and positions are the same.

        >>> row, other = torch.tensor([5, 6, 7]), torch.tensor([5, 6, 8, 9])
        >>> layout = Layout.of([row, other], [torch.arange(3), torch.arange(4)], [2, 2])
        >>> layout.input_ids.tolist(), layout.position_ids.tolist()
        ([5, 6, 7, 8, 9], [0, 1, 2, 2, 3])
        >>> layout.keep.tolist(), layout.source.tolist(), layout.labels.tolist(), layout.place.tolist()
        ([1, 3], [0, 0, 1], [7, 8, 9], [1, 4, 5])
        """
        members: dict[tuple, list[int]] = {}
        for number, (row, position, length) in enumerate(zip(rows, positions, prompt_lengths, strict=True)):
            key = (tuple(row[:length].tolist()), tuple(position[:length].tolist()))
            members.setdefault(key, []).append(number)
        offsets = [0]
        for row in rows:
            offsets.append(offsets[-1] + len(row))
        ids: list[torch.Tensor] = []
        places: list[torch.Tensor] = []
        keep: list[torch.Tensor] = []
        groups: list[Group] = []
        source = [torch.empty(0, dtype=torch.int64)] * len(rows)
        stored = kept = 0
        for numbers in members.values():
            length = prompt_lengths[numbers[0]]
            ids.append(rows[numbers[0]][:length])
            places.append(positions[numbers[0]][:length])
            stored += length
            before = kept  # the prompt's last token comes before the first one of every response
            keep.append(torch.tensor([stored - 1]))
            kept += 1
            sizes = [len(rows[number]) - length for number in numbers]
            starts, first = [], stored
            for number, size in zip(numbers, sizes, strict=True):
                ids.append(rows[number][length:])
                places.append(positions[number][length:])
                starts.append(stored - first)
                inner = max(size - 1, 0)
                keep.append(torch.arange(stored, stored + inner))
                source[number] = torch.cat([torch.tensor([before]), torch.arange(kept, kept + inner)])[:size]
                stored, kept = stored + size, kept + inner
            column = torch.arange(max(sizes))
            alive = column < torch.tensor(sizes).unsqueeze(1)
            response = (torch.tensor(starts).unsqueeze(1) + column).masked_fill(~alive, 0)
            groups.append(Group(length, response, alive))
        labels = [row[length:] for row, length in zip(rows, prompt_lengths, strict=True)]
        place = [
            torch.arange(offset + length - 1, following - 1)
            for offset, following, length in zip(offsets[:-1], offsets[1:], prompt_lengths, strict=True)
        ]
        return cls(
            input_ids=torch.cat(ids),
            position_ids=torch.cat(places),
            groups=tuple(groups),
            keep=torch.cat(keep),
            source=torch.cat(source),
            labels=torch.cat(labels),
            place=torch.cat(place),
        )


@torch.autocast("cpu", enabled=False)  # it would make bfloat16 of the scores
def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float | None = None
) -> torch.Tensor:
    """Causal attention of every response to its prompt and itself, and of every prompt to itself.

    Args:
        query: [1, heads, N, width], of any floating dtype; computed in at least float32. key, value: [1, key heads, N,
            width]; heads is a multiple of key heads.
        scale: of the scores (default: 1 / sqrt(width)).

    Returns: [1, heads, N, width].
    """
    grouped = query.shape[1] != key.shape[1]
    dtype = query.dtype
    # In bfloat16 torch's gradient multiplies many small matrices, each with a set-up of its own, which costs far more.
    query, key, value = (tensor.to(torch.promote_types(dtype, torch.float32)) for tensor in (query, key, value))

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **mask) -> torch.Tensor:
        """[responses, tokens, heads, width], tokens first."""
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        return scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=grouped, **mask).transpose(1, 2)

    # Split and concatenated, not indexed: the gradient of an index is a tensor of zeros as large as the whole.
    sizes = [size for group in layout.groups for size in (group.length, int(group.alive.sum()))]
    parts = zip(*(tensor.squeeze(0).transpose(0, 1).split(sizes) for tensor in (query, key, value)), strict=True)
    results = []
    for group in layout.groups:
        prompt = [tensor.unsqueeze(0) for tensor in next(parts)]
        results.append(attend(*prompt, is_causal=True)[0])
        own = [_Padded.apply(tensor, group) for tensor in next(parts)]
        responses, longest = group.response.shape
        if longest == 0:
            continue
        key, value = (
            torch.cat([shared.expand(responses, -1, -1, -1), tensor], 1)
            for shared, tensor in zip(prompt[1:], own[1:], strict=True)
        )
        # A token sees the whole prompt, and of its own response what is not behind it. What stands after the end of a
        # shorter response is seen by nobody who counts.
        seen = torch.ones(longest, group.length + longest, dtype=torch.bool).tril(group.length)
        results.append(_Packed.apply(attend(own[0], key, value, attn_mask=seen), group))
    return torch.cat(results).transpose(0, 1).unsqueeze(0).to(dtype)


class _Padded(torch.autograd.Function):
    """Responses one after another as rows of equal length, and back: an index's own gradient adds up one by one.

    What stands behind the end of a row reaches no token that is alive, so its gradient is 0 and need not be added.
    """

    @staticmethod
    def forward(ctx, tokens: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return tokens.index_select(0, group.response.flatten()).unflatten(0, group.response.shape)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flatten(0, 1).index_select(0, ctx.group.place), None


class _Packed(torch.autograd.Function):
    """The opposite of `_Padded`."""

    @staticmethod
    def forward(ctx, rows: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return rows.flatten(0, 1).index_select(0, group.place)

    @staticmethod
    def backward(ctx, gradient):
        group = ctx.group
        rows = gradient.new_zeros(group.alive.numel(), *gradient.shape[1:])
        return rows.index_copy_(0, group.place, gradient).unflatten(0, group.alive.shape), None


def log_probs_and_entropy(
    logits: torch.Tensor, labels: torch.Tensor, source: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each label and entropy (nats) of its distribution, float32 [M] each, with gradients.

    Args:
        logits: [K, V], of any floating dtype; computed in float32. labels: int64 [M]. source: int64 [M], the row of
            logits that a label belongs to.

    >>> logits = torch.tensor([[0.0, 0.0]])
    >>> log_probs, entropy = log_probs_and_entropy(logits, torch.tensor([0, 1]), torch.tensor([0, 0]))
    >>> (log_probs / torch.tensor(0.5).log()).tolist(), (entropy / torch.tensor(2.0).log()).tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """
    log_probs, entropy = _LogProbsAndEntropy.apply(logits, labels, source, temperature)
    return log_probs, entropy[source]


class _LogProbsAndEntropy(torch.autograd.Function):
    """Three passes over the logits instead of the dozen that autograd would record, and no copy of them is kept."""

    @staticmethod
    def forward(ctx, logits, labels, source, temperature):
        normaliser = logits.new_empty(len(logits), dtype=torch.float32)
        entropy = torch.empty_like(normaliser)
        for chunk in _chunks(logits):
            scaled = logits[chunk].float() / temperature
            normaliser[chunk] = scaled.logsumexp(-1)
            probability = (scaled - normaliser[chunk].unsqueeze(1)).exp_()
            entropy[chunk] = normaliser[chunk] - probability.mul_(scaled).sum(-1)
        log_probs = logits[source, labels].float() / temperature - normaliser[source]
        ctx.save_for_backward(logits, labels, source, normaliser, entropy)
        ctx.temperature = temperature
        return log_probs, entropy

    @staticmethod
    def backward(ctx, of_log_probs, of_entropy):
        logits, labels, source, normaliser, entropy = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        total = torch.zeros_like(normaliser).index_add_(0, source, of_log_probs.float())
        for chunk in _chunks(logits):
            log_p = logits[chunk].float().div_(ctx.temperature).sub_(normaliser[chunk].unsqueeze(1))
            # d log p(label) = [label] - p;   d H = -p (log p + H)
            rate = total[chunk].unsqueeze(1)
            if bool(of_entropy[chunk].any()):
                rate = rate + of_entropy[chunk].unsqueeze(1) * (log_p + entropy[chunk].unsqueeze(1))
            gradient[chunk] = log_p.exp_().mul_(rate).div_(-ctx.temperature)
        gradient.index_put_((source, labels), (of_log_probs / ctx.temperature).to(gradient.dtype), accumulate=True)
        return gradient, None, None, None


def _chunks(logits: torch.Tensor):
    step = max(1, CHUNK // max(logits.shape[1], 1))
    for start in range(0, len(logits), step):
        yield slice(start, start + step)
