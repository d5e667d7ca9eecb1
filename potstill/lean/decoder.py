"""A decoder layer of Gemma 3 with adapters, forward and backward, on rows (batch * length, hidden)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from potstill.lean import adapted
from potstill.lean.adapted import Adapted, gradients, products
from potstill.lean.attention import attention, attention_gradients
from potstill.lean.norms import norm, norm_gradient, turned


class Matrices(NamedTuple):
    """The layer's, those together that read the same."""

    read: Adapted
    attended: Adapted
    gate: Adapted
    fed: Adapted


class Costly(NamedTuple):
    """What takes long to compute for its size: what attention gave, its projection, the gated layer's; each x A^T."""

    seen: Tensor
    attended: Tensor
    attended_inner: Tensor
    fed: Tensor
    fed_inner: Tensor


class Read(NamedTuple):
    """Queries, keys and values, before norms and rotary embedding, and x A^T."""

    q: Tensor
    k: Tensor
    v: Tensor
    inner: Tensor


class Gated(NamedTuple):
    """What opens the gate, what it lets through, and x A^T."""

    opening: Tensor
    raised: Tensor
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


def compute(layer: Any, x: Tensor, place: Place, by: Matrices) -> tuple[Tensor, Costly, Read, Gated]:
    """The layer's result, and what its gradients need beside x."""
    read = reading(layer, x, by)
    seen = rows(attention(*heads(layer, read, place), *scale_and_window(layer, place)))
    (attended,), attended_inner = products(seen, by.attended)
    middle = x + normed(attended, layer.post_attention_layernorm).to(x.dtype)
    gated = gating(layer, middle, by)
    (fed,), fed_inner = products(gelu(gated.opening).mul_(gated.raised), by.fed)
    result = middle + normed(fed, layer.post_feedforward_layernorm).to(x.dtype)
    return result, Costly(seen, attended, attended_inner, fed, fed_inner), read, gated


def layer_gradients(
    layer: Any,
    given: Tensor,
    x: Tensor,
    place: Place,
    by: Matrices,
    costly: Costly,
    read: Read | None,
    gated: Gated | None,
) -> tuple[Tensor, list[Tensor]]:
    """That of x, and those of A, B, A, B, ...; `given` is that of the result. What is None is made again."""
    middle = x + normed(costly.attended, layer.post_attention_layernorm).to(x.dtype)
    of_middle, of_feeding = feeding_gradients(layer, given, middle, by, costly, gated)
    of_x, of_attending = attending_gradients(layer, of_middle, x, place, by, costly, read)
    return of_x, [*of_attending, *of_feeding]


def feeding_gradients(
    layer: Any, given: Tensor, middle: Tensor, by: Matrices, costly: Costly, gated: Gated | None
) -> tuple[Tensor, list[Tensor]]:
    """Those of the layer's second half, whose x is `middle`."""
    opening, raised, inner = gated or gating(layer, middle, by)
    of_fed = normed_gradient(given, costly.fed, layer.post_feedforward_layernorm)
    opened = gelu(opening)
    of_hidden, of_down = gradients([of_fed], opened * raised, costly.fed_inner, by.fed)
    of_raised = opened.mul_(of_hidden)
    of_opening = torch.ops.aten.gelu_backward(of_hidden.mul_(raised), opening, approximate="tanh")
    h = normed(middle, layer.pre_feedforward_layernorm).to(opening.dtype)
    of_h, of_gate = gradients([of_opening, of_raised], h, inner, by.gate)
    return given + normed_gradient(of_h, middle, layer.pre_feedforward_layernorm), [*of_gate, *of_down]


def attending_gradients(
    layer: Any, given: Tensor, x: Tensor, place: Place, by: Matrices, costly: Costly, read: Read | None
) -> tuple[Tensor, list[Tensor]]:
    """Those of the layer's first half."""
    at = layer.self_attn
    read = read or reading(layer, x, by)
    of_attended = normed_gradient(given, costly.attended, layer.post_attention_layernorm)
    of_seen, of_o = gradients([of_attended], costly.seen, costly.attended_inner, by.attended)
    wanted = by_heads(of_seen, at, place)
    of_heads = attention_gradients(wanted, *heads(layer, read, place), *scale_and_window(layer, place))
    of_q, of_k, of_v = (one.transpose(1, 2) for one in of_heads)
    back = place.cos, -place.sin
    of_q = normed_gradient(turned(of_q, *back), by_heads(read.q, at, place).transpose(1, 2), at.q_norm)
    of_k = normed_gradient(turned(of_k, *back), by_heads(read.k, at, place).transpose(1, 2), at.k_norm)
    of_read = [one.flatten(0, 1).flatten(1) for one in (of_q, of_k, of_v)]
    h = normed(x, layer.input_layernorm).to(read.q.dtype)
    of_h, of_qkv = gradients(of_read, h, read.inner, by.read)
    return given + normed_gradient(of_h, x, layer.input_layernorm), [*of_qkv, *of_o]


def reading(layer: Any, x: Tensor, by: Matrices) -> Read:
    (q, k, v), inner = products(normed(x, layer.input_layernorm).to(by.read.a.dtype), by.read)
    return Read(q, k, v, inner)


def gating(layer: Any, middle: Tensor, by: Matrices) -> Gated:
    h = normed(middle, layer.pre_feedforward_layernorm).to(by.gate.a.dtype)
    (opening, raised), inner = products(h, by.gate)
    return Gated(opening, raised, inner)


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


def heads(layer: Any, read: Read, place: Place) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as attention takes them: (batch, heads, length, size)."""
    at = layer.self_attn
    q, k = (
        turned(normed(by_heads(one, at, place).transpose(1, 2), module), place.cos, place.sin).transpose(1, 2)
        for one, module in ((read.q, at.q_norm), (read.k, at.k_norm))
    )
    return q, k, by_heads(read.v, at, place)


def scale_and_window(layer: Any, place: Place) -> tuple[float, int]:
    """A layer without a window sees everything before."""
    return layer.self_attn.scaling, layer.self_attn.sliding_window or place.shape[1]
