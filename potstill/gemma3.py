"""Gemma 3's text model as plain tensor operations on a key/value cache of fixed size, for decoding on a CPU.

Source: "Gemma 3 Technical Report" (2025), arXiv:2503.19786, and transformers' modeling_gemma3.py, which the tests
compare with. Differences are of speed alone: weights that read the same input are one matrix, and the norms' "one plus"
is added once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


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

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., vocabulary)"""
        return functional.linear(self.rms(hidden, self.norm), self.head)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    one, other = x.chunk(2, dim=-1)
    return x * rotation[0] + torch.cat((-other, one), dim=-1) * rotation[1]
