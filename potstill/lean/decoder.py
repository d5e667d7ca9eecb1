"""A decoder layer of Gemma 3 with adapters, forward and backward, on rows (batch * length, hidden)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from potstill.lean import adapted
from potstill.lean.adapted import Adapted, gradients, products
from potstill.lean.attention import attention, attention_gradients
from potstill.lean.norms import norm, norm_gradient, rotary


class Matrices(NamedTuple):
    """The layer's projections, those together that read the same."""

    qkv: Adapted
    o: Adapted
    gate_up: Adapted
    down: Adapted


class Costly(NamedTuple):
    """What takes long to compute for its size: attention's result, and what o_proj and down_proj gave, with x A^T."""

    attended: Tensor
    o: Tensor
    o_inner: Tensor
    down: Tensor
    down_inner: Tensor


class Qkv(NamedTuple):
    """Queries, keys and values, before norms and rotary embedding, and x A^T."""

    q: Tensor
    k: Tensor
    v: Tensor
    inner: Tensor


class GateUp(NamedTuple):
    """What gate_proj, before its GELU, and up_proj gave, and x A^T."""

    gate: Tensor
    up: Tensor
    inner: Tensor


class Place(NamedTuple):
    """Of the rows: batch and length, and the rotary embedding's cos and sin (batch, length, size)."""

    shape: tuple[int, int]
    cos: Tensor
    sin: Tensor


def projections(layer: Any) -> list[list[Any]]:
    """The modules of `Matrices`."""
    at, mlp = layer.self_attn, layer.mlp
    return [[at.q_proj, at.k_proj, at.v_proj], [at.o_proj], [mlp.gate_proj, mlp.up_proj], [mlp.down_proj]]


def matrices(layer: Any, trained: Sequence[Tensor | None], dtype: torch.dtype) -> Matrices:
    """`trained`: A, B, A, B, ... in the order of `projections`."""
    found, start = [], 0
    for modules in projections(layer):
        end = start + 2 * len(modules)
        found.append(adapted.of_modules(modules, trained[start:end], dtype))
        start = end
    return Matrices(*found)


def compute(layer: Any, x: Tensor, place: Place, by: Matrices) -> tuple[Tensor, Costly, Qkv, GateUp]:
    """The layer's result, and what its gradients need beside x."""
    qkv = qkv_of(normed(x, layer.input_layernorm), by)
    attended = rows(attention(*heads(layer, qkv, place), *scale_and_window(layer, place)))
    (o,), o_inner = products(attended, by.o)
    residual = x + normed(o, layer.post_attention_layernorm).to(x.dtype)
    gate_up = gate_up_of(normed(residual, layer.pre_feedforward_layernorm), by)
    (down,), down_inner = products(gelu(gate_up.gate).mul_(gate_up.up), by.down)
    result = residual + normed(down, layer.post_feedforward_layernorm).to(x.dtype)
    return result, Costly(attended, o, o_inner, down, down_inner), qkv, gate_up


def layer_gradients(
    layer: Any,
    given: Tensor,
    x: Tensor,
    place: Place,
    by: Matrices,
    costly: Costly,
    qkv: Qkv | None,
    gate_up: GateUp | None,
) -> tuple[Tensor, list[Tensor]]:
    """That of x, and those of A, B, A, B, ...; `given` is that of the result. What is None is made again."""
    residual = x + normed(costly.o, layer.post_attention_layernorm).to(x.dtype)
    of_residual, of_mlp = mlp_gradients(layer, given, residual, by, costly, gate_up)
    of_x, of_attention = self_attention_gradients(layer, of_residual, x, place, by, costly, qkv)
    return of_x, [*of_attention, *of_mlp]


def mlp_gradients(
    layer: Any, given: Tensor, residual: Tensor, by: Matrices, costly: Costly, gate_up: GateUp | None
) -> tuple[Tensor, list[Tensor]]:
    """Those of the layer's second half, whose x is `residual`."""
    h = normed(residual, layer.pre_feedforward_layernorm).to(by.gate_up.a.dtype)
    gate, up, inner = gate_up or gate_up_of(h, by)
    of_down = normed_gradient(given, costly.down, layer.post_feedforward_layernorm)
    active = gelu(gate)
    of_product, of_down_trained = gradients([of_down], active * up, costly.down_inner, by.down)
    of_up = active.mul_(of_product)
    of_gate = torch.ops.aten.gelu_backward(of_product.mul_(up), gate, approximate="tanh")
    of_h, of_trained = gradients([of_gate, of_up], h, inner, by.gate_up)
    of_residual = given + normed_gradient(of_h, residual, layer.pre_feedforward_layernorm)
    return of_residual, [*of_trained, *of_down_trained]


def self_attention_gradients(
    layer: Any, given: Tensor, x: Tensor, place: Place, by: Matrices, costly: Costly, qkv: Qkv | None
) -> tuple[Tensor, list[Tensor]]:
    """Those of the layer's first half."""
    at = layer.self_attn
    h = normed(x, layer.input_layernorm).to(by.qkv.a.dtype)
    qkv = qkv or qkv_of(h, by)
    of_o = normed_gradient(given, costly.o, layer.post_attention_layernorm)
    of_attended, of_o_trained = gradients([of_o], costly.attended, costly.o_inner, by.o)
    wanted = by_heads(of_attended, at, place)
    of_heads = attention_gradients(wanted, *heads(layer, qkv, place), *scale_and_window(layer, place))
    of_q, of_k, of_v = (one.transpose(1, 2) for one in of_heads)
    back = place.cos, -place.sin
    of_q = normed_gradient(rotary(of_q, *back), by_heads(qkv.q, at, place).transpose(1, 2), at.q_norm)
    of_k = normed_gradient(rotary(of_k, *back), by_heads(qkv.k, at, place).transpose(1, 2), at.k_norm)
    of_qkv = [one.flatten(0, 1).flatten(1) for one in (of_q, of_k, of_v)]
    of_h, of_trained = gradients(of_qkv, h, qkv.inner, by.qkv)
    return given + normed_gradient(of_h, x, layer.input_layernorm), [*of_trained, *of_o_trained]


def qkv_of(h: Tensor, by: Matrices) -> Qkv:
    (q, k, v), inner = products(h.to(by.qkv.a.dtype), by.qkv)
    return Qkv(q, k, v, inner)


def gate_up_of(h: Tensor, by: Matrices) -> GateUp:
    (gate, up), inner = products(h.to(by.gate_up.a.dtype), by.gate_up)
    return GateUp(gate, up, inner)


def gelu(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def normed(x: Tensor, module: Any) -> Tensor:
    return norm(x, module.weight, module.eps)


def normed_gradient(given: Tensor, x: Tensor, module: Any) -> Tensor:
    return norm_gradient(given, x, module.weight, module.eps)


def by_heads(flat: Tensor, at: Any, place: Place) -> Tensor:
    """(batch, heads, length, size) of rows."""
    return flat.view(*place.shape, -1, at.head_dim).transpose(1, 2)


def rows(x: Tensor) -> Tensor:
    """(batch * length, heads * size) of heads."""
    return x.transpose(1, 2).flatten(0, 1).flatten(1)


def heads(layer: Any, qkv: Qkv, place: Place) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as attention takes them: (batch, heads, length, size)."""
    at = layer.self_attn
    q, k = (
        rotary(normed(by_heads(one, at, place).transpose(1, 2), module), place.cos, place.sin).transpose(1, 2)
        for one, module in ((qkv.q, at.q_norm), (qkv.k, at.k_norm))
    )
    return q, k, by_heads(qkv.v, at, place)


def scale_and_window(layer: Any, place: Place) -> tuple[float, int]:
    """A layer without a window sees everything before."""
    return layer.self_attn.scaling, layer.self_attn.sliding_window or place.shape[1]
