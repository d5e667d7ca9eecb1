"""Greedy decoding of Gemma 3 text models on a CPU, many prompts at once.

`model.generate` spends most of a small model's time between the operations: every module is a Python call, and a
batch goes on until its longest answer ends. Here a step is a few dozen tensor operations on a key/value cache of fixed
size, a row that has ended leaves the batch, and while the batch is small, tokens that followed the same words before
are tried ahead (prompt lookup). A guess only saves the steps that would have found it: answers are those of greedy
decoding.

Gemma 3: "Gemma 3 Technical Report" (2025), arXiv:2503.19786, and transformers' modeling_gemma3.py, which the tests
compare with. Prompt lookup: Saxena (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# so many rows times tried tokens cost a step little more than one row with one token
TRIED = 48
MOST_TRIED = 8
# tokens that have to be the same before what followed them is tried
MATCHED = 2
# ended rows leave the cache, which is a copy, when so few are left
KEPT = 0.8
MOST_WORKERS = 4


def supports(model: Any) -> bool:
    """Whether a model is what this module computes: Gemma 3's text model as published, on a CPU."""
    config = model.config
    if config.model_type != "gemma3_text" or model.device.type != "cpu":
        return False
    changed = (
        *(config.attention_bias, config.use_bidirectional_attention),
        *(config.attn_logit_softcapping, config.final_logit_softcapping),
    )
    return config.hidden_activation == "gelu_pytorch_tanh" and not any(changed)


class Layer:
    """One layer's weights, those that read the same input joined; the model's own parameters become views of them."""

    def __init__(self, layer: Any, kind: str):
        attention, mlp = layer.self_attn, layer.mlp
        self.kind = kind
        self.qkv = joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self.gate_up = joined(mlp.gate_proj, mlp.up_proj)
        self.out, self.down = attention.o_proj.weight, mlp.down_proj.weight
        self.q_norm, self.k_norm = scale_of(attention.q_norm), scale_of(attention.k_norm)
        self.before, self.after = scale_of(layer.input_layernorm), scale_of(layer.post_attention_layernorm)
        self.before_mlp = scale_of(layer.pre_feedforward_layernorm)
        self.after_mlp = scale_of(layer.post_feedforward_layernorm)


def joined(*linears: Any) -> Tensor:
    weight = torch.cat([linear.weight.data for linear in linears])
    start = 0
    for linear in linears:
        rows = len(linear.weight)
        linear.weight.data = weight[start : start + rows]
        start += rows
    return weight


def scale_of(norm: Any) -> Tensor:
    scale: Tensor = 1.0 + norm.weight.data
    return scale


class Decoder:
    """A Gemma 3 text model, ready to decode."""

    def __init__(self, model: Any):
        config = model.config
        self.heads, self.kv_heads, self.width = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.eps, self.window = config.rms_norm_eps, config.sliding_window
        self.scaling = config.query_pre_attn_scalar**-0.5
        self.embedding, self.rotary = model.model.embed_tokens, model.model.rotary_emb
        self.layers = [Layer(*pair) for pair in zip(model.model.layers, config.layer_types, strict=True)]
        self.norm, self.head = scale_of(model.model.norm), model.lm_head.weight

    def new_cache(self, rows: int, length: int) -> Tensor:
        """(layers, 2, rows, kv heads, length, head width): keys and values of every position."""
        shape = (len(self.layers), 2, rows, self.kv_heads, length, self.width)
        return torch.zeros(shape, dtype=self.head.dtype)

    def forward(self, ids: Tensor, positions: Tensor, cache: Tensor) -> Tensor:
        """The hidden states (rows, tokens, width) of `ids` at `positions` (both rows x tokens); fills the cache there.

        A token sees the cache up to its own position; what is behind it was tried before and is written over.
        """
        seen = int(positions.max()) + 1
        x = self.embedding(ids)
        masks, rotations = self.masks(positions, seen), self.rotations(x, positions)
        at = (torch.arange(len(ids))[:, None], positions)
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            rotation, mask = rotations[layer.kind], masks[layer.kind]
            attended = self.attention(self.rms(x, layer.before), layer, rotation, mask, keys, values, at, seen)
            x = x + self.rms(attended, layer.after)
            gate, up = functional.linear(self.rms(x, layer.before_mlp), layer.gate_up).chunk(2, dim=-1)
            mlp = functional.linear(functional.gelu(gate, approximate="tanh") * up, layer.down)
            x = x + self.rms(mlp, layer.after_mlp)
        return x

    def attention(
        self,
        x: Tensor,
        layer: Layer,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor,
        keys: Tensor,
        values: Tensor,
        at: tuple[Tensor, Tensor],
        seen: int,
    ) -> Tensor:
        rows, tokens = x.shape[:2]
        qkv = functional.linear(x, layer.qkv).view(rows, tokens, -1, self.width)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=2)
        keys.transpose(1, 2)[at] = rotate(self.rms(k, layer.k_norm), rotation)
        values.transpose(1, 2)[at] = v
        attended = functional.scaled_dot_product_attention(
            rotate(self.rms(q, layer.q_norm), rotation).transpose(1, 2),
            keys[:, :, :seen],
            values[:, :, :seen],
            attn_mask=mask,
            scale=self.scaling,
            enable_gqa=True,
        )
        return functional.linear(attended.transpose(1, 2).reshape(rows, tokens, -1), layer.out)

    def masks(self, positions: Tensor, seen: int) -> dict[str, Tensor]:
        """Per kind of layer what a token sees, (rows, 1, tokens, seen); False is hidden."""
        past = torch.arange(seen) - positions[:, None, :, None]
        full = past <= 0
        return {"full_attention": full, "sliding_attention": full & (past > -self.window)}

    def rotations(self, x: Tensor, positions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        found = {}
        for kind in {layer.kind for layer in self.layers}:
            cos, sin = self.rotary(x, positions, kind)
            found[kind] = (cos.unsqueeze(2), sin.unsqueeze(2))
        return found

    def rms(self, x: Tensor, scale: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), scale, self.eps)

    def next_ids(self, hidden: Tensor) -> Tensor:
        """The likeliest next token at each position, (..., width) -> (...)."""
        return functional.linear(self.rms(hidden, self.norm), self.head).argmax(-1)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    one, other = x.chunk(2, dim=-1)
    return x * rotation[0] + torch.cat((-other, one), dim=-1) * rotation[1]


class Row:
    """One prompt and the answer so far; `followers` has where each run of MATCHED tokens was last seen."""

    def __init__(self, index: int, prompt: list[int], most: int):
        self.index, self.tokens, self.most, self.start = index, list(prompt), most, len(prompt)
        self.followers: dict[tuple[int, ...], int] = {}
        self.indexed = 0
        self.ended = most == 0

    def guess(self, count: int) -> list[int]:
        """Up to `count` tokens that followed the last MATCHED tokens where those stood before."""
        tokens = self.tokens
        for end in range(max(self.indexed, MATCHED), len(tokens)):
            self.followers[tuple(tokens[end - MATCHED : end])] = end
        self.indexed = len(tokens)
        found = self.followers.get(tuple(tokens[-MATCHED:]))
        return [] if found is None else tokens[found : found + count]

    def take(self, tried: list[int], found: list[int], stops: set[int]) -> None:
        """Adds the confirmed of the `tried` tokens and the one after them; `found[i]` is what follows `tried[:i]`."""
        for number, token in enumerate(found):
            self.tokens.append(token)
            self.ended = token in stops or len(self.tokens) - self.start == self.most
            if self.ended or number == len(tried) or tried[number] != token:
                return

    @property
    def answer(self) -> list[int]:
        return self.tokens[self.start :]


def workers() -> int:
    """Threads that answer a batch each: small operations gain more from that than from more cores each."""
    return min(MOST_WORKERS, torch.get_num_threads())


def answer(model: Any, prompts: list[list[int]], most: int, stops: set[int]) -> list[list[int]]:
    """Greedy answers of at most `most` tokens, in the order of the prompts; a stop token is an answer's last."""
    if not hasattr(model, "potstill_decoder"):
        model.potstill_decoder = Decoder(model)
    count, threads = min(workers(), len(prompts)), torch.get_num_threads()
    if count == 1:
        return generate(model.potstill_decoder, prompts, most, stops)
    torch.set_num_threads(max(1, threads // count))
    try:
        with ThreadPoolExecutor(count) as pool:
            # every thread takes each `count`th: prompts come sorted by length, so the threads end together
            jobs = [
                pool.submit(generate, model.potstill_decoder, prompts[first::count], most, stops)
                for first in range(count)
            ]
            parts = [iter(job.result()) for job in jobs]
    finally:
        torch.set_num_threads(threads)
    return [next(parts[number % count]) for number in range(len(prompts))]


@torch.inference_mode()
def generate(decoder: Decoder, prompts: list[list[int]], most: int, stops: set[int]) -> list[list[int]]:
    """Greedy answers, at most `most` tokens each; a stop token is an answer's last. The prompts are one batch."""
    rows = [Row(index, prompt, most) for index, prompt in enumerate(prompts)]
    cache = decoder.new_cache(len(rows), max(map(len, prompts)) + most + MOST_TRIED)
    read(decoder, rows, cache, stops)
    alive = rows
    while left := [number for number, row in enumerate(alive) if not row.ended]:
        if len(left) <= KEPT * len(alive):
            alive, cache = [alive[number] for number in left], cache[:, :, left]
        count = min(MOST_TRIED, TRIED // len(alive) - 1)
        guesses = [row.guess(count) for row in alive] if count > 0 else [[] for _ in alive]
        width = 1 + max(map(len, guesses))
        ids = torch.tensor(
            [[r.tokens[-1], *g, *[0] * (width - 1 - len(g))] for r, g in zip(alive, guesses, strict=True)]
        )
        positions = torch.tensor([len(row.tokens) - 1 for row in alive])[:, None] + torch.arange(width)
        found = decoder.next_ids(decoder.forward(ids, positions, cache)).tolist()
        for row, guess, following in zip(alive, guesses, found, strict=True):
            if not row.ended:
                row.take(guess, following[: len(guess) + 1], stops)
    return [row.answer for row in rows]


def read(decoder: Decoder, rows: list[Row], cache: Tensor, stops: set[int]) -> None:
    """Fills the cache with the prompts and takes each answer's first token."""
    width = max(row.start for row in rows)
    ids = torch.tensor([row.tokens + [0] * (width - row.start) for row in rows])
    hidden = decoder.forward(ids, torch.arange(width).expand(len(rows), -1), cache)
    last = hidden[torch.arange(len(rows)), torch.tensor([row.start - 1 for row in rows])]
    for row, token in zip(rows, decoder.next_ids(last).tolist(), strict=True):
        if not row.ended:
            row.take([], [token], stops)
