"""Gemma 3's layers for training an adapter on a CPU: the same numbers from less memory, in less time.

A layer keeps for its backward pass its input, and of the rest what a budget allows (Chen et al., 2016, "Training deep
nets with sublinear memory cost"): first what took long to compute for its size, which is what attention and the two
matrices behind the widest values gave; then those widest values. What a norm gave is always made again. PyTorch's own
rules keep more than twice of all that.
"""

import enum
import types
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from potstill import estimate
from potstill.lean import decoder
from potstill.lean.adapted import adapters
from potstill.lean.decoder import Costly, GateUp, Place, Qkv
from potstill.lean.norms import Norm


class Keep(enum.IntEnum):
    """How much a layer keeps beside its input: so many of `decoder.Costly`, `Qkv` and `GateUp`."""

    NOTHING = 0
    COSTLY = 1
    ALL = 3


def install(model: Any) -> None:
    """Changes a Gemma 3 text model with a LoRA adapter of PEFT, in place. Weights, adapters and their names stay."""
    text = model.get_base_model().model
    for layer in text.layers:
        layer.kept = Keep.ALL
        layer.forward = types.MethodType(layer_forward, layer)
    text.norm.forward = types.MethodType(norm_forward, text.norm)


def keep(model: Any, at_most: float, size: int, tokens: int) -> None:
    """Lets the layers keep up to `at_most` bytes beside their inputs for the backward pass of so many tokens.

    `size` is in bytes, of one value. What does not fit is made again, in the first layers: when their turn comes, what
    the others kept is no longer needed.
    """
    layers = model.get_base_model().model.layers
    config = model.config
    shape = config.hidden_size, config.intermediate_size, config.num_attention_heads, config.num_key_value_heads
    costly, wide = estimate.kept_values(*shape, config.head_dim)
    values = at_most / (tokens * size)
    some = min(len(layers), int(values // costly))
    whole = min(some, int((values - some * costly) // wide))
    for left, layer in zip(range(len(layers), 0, -1), layers, strict=True):
        layer.kept = Keep.ALL if left <= whole else Keep.COSTLY if left <= some else Keep.NOTHING
        # the trainer may have asked transformers for it, which would make all again once more
        layer.gradient_checkpointing = False


def norm_forward(module: Any, x: Tensor) -> Tensor:
    found: Tensor = Norm.apply(x, module.weight, module.eps)
    return found


def layer_forward(layer: Any, hidden_states: Tensor, position_embeddings: Any, **others: Any) -> Tensor:
    """Learns; an answer is written, with a cache and rows padded on the left, as transformers has it."""
    if not layer.training:
        found: Tensor = type(layer).forward(layer, hidden_states, position_embeddings, **others)
        return found
    trained = [one for modules in decoder.projections(layer) for module in modules for one in adapters(module)]
    learnt: Tensor = Layer.apply(layer, hidden_states, *position_embeddings, *trained)
    return learnt


class Layer(Function):
    """A decoder layer: x (batch, length, hidden) and the rotary embedding's cos and sin to (batch, length, hidden).

    Rows are padded on the right, where causality hides the padding.
    """

    @staticmethod
    def forward(ctx: Any, layer: Any, x: Tensor, cos: Tensor, sin: Tensor, *trained: Tensor | None) -> Tensor:
        ctx.layer, ctx.kept = layer, layer.kept
        ctx.dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        place = Place((x.shape[0], x.shape[1]), cos, sin)
        with torch.autocast("cpu", enabled=False):
            by = decoder.matrices(layer, trained, ctx.dtype)
            result, *parts = decoder.compute(layer, x.flatten(0, 1), place, by)
        kept = parts[: layer.kept]
        ctx.save_for_backward(x, cos, sin, *trained, *(tensor for part in kept for tensor in part))
        return result.view_as(x)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        x, cos, sin, *saved = ctx.saved_tensors
        layer, rows, place = ctx.layer, x.flatten(0, 1), Place((x.shape[0], x.shape[1]), cos, sin)
        count = 2 * sum(map(len, decoder.projections(layer)))
        trained, kept = saved[:count], saved[count:]
        with torch.autocast("cpu", enabled=False):
            by = decoder.matrices(layer, trained, ctx.dtype)
            parts: tuple[Costly, Qkv | None, GateUp | None]
            if ctx.kept == Keep.NOTHING:
                parts = decoder.compute(layer, rows, place, by)[1:]
            elif ctx.kept == Keep.COSTLY:
                parts = Costly(*kept), None, None
            else:
                first = len(Costly._fields)
                second = first + len(Qkv._fields)
                parts = Costly(*kept[:first]), Qkv(*kept[first:second]), GateUp(*kept[second:])
            of_x, found = decoder.layer_gradients(layer, given[0].flatten(0, 1), rows, place, by, *parts)
        of_trained = (None if one is None else of_one for one, of_one in zip(trained, found, strict=True))
        return None, of_x.view_as(x), None, None, *of_trained
