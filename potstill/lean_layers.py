"""Gemma 3's layers for training an adapter on a CPU: the same numbers from less memory, in less time.

Between the forward and the backward pass, every layer keeps what the matrix products need and nothing that cheap
operations can make again: PyTorch's own rules keep up to four times as much. What a long row would still keep beyond a
budget is made again, a layer at a time (Chen et al., 2016, "Training deep nets with sublinear memory cost"): only long
rows pay for it.
"""

import ctypes
import functools
import types
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from potstill import estimate
from potstill.lean_attention import Blocks
from potstill.lean_norms import Norm, Turned


def install(model: Any) -> None:
    """Changes a Gemma 3 text model with a LoRA adapter of PEFT, in place. Weights, adapters and their names stay."""
    from peft.tuners.lora.layer import Linear
    from torch.utils.checkpoint import checkpoint
    from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention, Gemma3MLP, Gemma3RMSNorm

    for module in model.modules():
        if isinstance(module, Gemma3RMSNorm):
            module.forward = types.MethodType(norm_forward, module)
        elif isinstance(module, Gemma3Attention):
            module.forward = types.MethodType(attention_forward, module)
        elif isinstance(module, Gemma3MLP) and all(isinstance(part, Linear) for part in mlp_parts(module)):
            module.forward = types.MethodType(mlp_forward, module)
        elif isinstance(module, Linear):
            module.forward = types.MethodType(linear_forward, module)
    for layer in layers(model):
        # nothing is drawn at random in them
        again = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        layer._gradient_checkpointing_func = again


def layers(model: Any) -> Any:
    return model.get_base_model().model.layers


def keep(model: Any, at_most: float, size: int, tokens: int) -> None:
    """Lets the layers keep up to `at_most` bytes for the backward pass of so many tokens; the others keep their input.

    `size` is in bytes, of one value. The others are the first ones: when they are made again, what the rest kept is no
    longer needed.
    """
    give_back()
    config = model.config
    shape = config.hidden_size, config.intermediate_size, config.num_attention_heads, config.num_key_value_heads
    whole = int(at_most // (tokens * size * estimate.kept_values(*shape, config.head_dim)))
    for index, layer in enumerate(layers(model)):
        layer.gradient_checkpointing = index < len(layers(model)) - whole


def give_back() -> None:
    """Gives freed memory back to the system, where the C library can: it is in pieces as long as the last rows were."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def norm_forward(module: Any, x: Tensor) -> Tensor:
    found: Tensor = Norm.apply(x, module.weight, module.eps)
    return found


class Adapted(NamedTuple):
    """A frozen matrix (out, in) and its adapter: x W^T + (x A^T) B^T, B with LoRA's factor."""

    weight: Tensor
    a: Tensor
    b: Tensor


def product(x: Tensor, by: Adapted) -> tuple[Tensor, Tensor]:
    """The result for x (rows, in), and x A^T (rows, rank), which the backward pass wants."""
    inner = x @ by.a.T
    return (x @ by.weight.T).addmm_(inner, by.b.T), inner


def gradients(given: Tensor, x: Tensor, inner: Tensor, by: Adapted) -> tuple[Tensor, Tensor, Tensor]:
    """Those of x, A and B; `given` is that of the result."""
    of_inner = given @ by.b
    return (given @ by.weight).addmm_(of_inner, by.a), of_inner.T @ x, given.T @ inner


class Projection(Function):
    """One adapted matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            result, inner = product(x, Adapted(weight, a, b))
        ctx.save_for_backward(x, inner, weight, a, b)
        return result

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        x, inner, weight, a, b = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            of_x, of_a, of_b = gradients(given[0], x, inner, Adapted(weight, a, b))
        return of_x, None, of_a, of_b


class Mlp(Function):
    """down(gelu(gate(x)) * up(x)) of three adapted matrices; keeps what gate and up gave, not their product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *matrices: Tensor) -> Tensor:
        gate, up, down = (Adapted(*matrices[i : i + 3]) for i in (0, 3, 6))
        with torch.autocast("cpu", enabled=False):
            opened, gate_inner = product(x, gate)
            raised, up_inner = product(x, up)
            hidden = torch.nn.functional.gelu(opened, approximate="tanh").mul_(raised)
            result, down_inner = product(hidden, down)
        ctx.save_for_backward(x, opened, raised, gate_inner, up_inner, down_inner, *matrices)
        return result

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        x, opened, raised, gate_inner, up_inner, down_inner, *matrices = ctx.saved_tensors
        gate, up, down = (Adapted(*matrices[i : i + 3]) for i in (0, 3, 6))
        with torch.autocast("cpu", enabled=False):
            active = torch.nn.functional.gelu(opened, approximate="tanh")
            of_hidden, down_a, down_b = gradients(given[0], active * raised, down_inner, down)
            of_raised = active.mul_(of_hidden)
            of_opened = torch.ops.aten.gelu_backward(of_hidden.mul_(raised), opened, approximate="tanh")
            of_x, gate_a, gate_b = gradients(of_opened, x, gate_inner, gate)
            of_x_too, up_a, up_b = gradients(of_raised, x, up_inner, up)
        return of_x.add_(of_x_too), None, gate_a, gate_b, None, up_a, up_b, None, down_a, down_b


def adapted(module: Any, dtype: torch.dtype) -> Adapted:
    """The matrices of a PEFT layer, to be multiplied as `dtype`; the adapter's own are float32."""
    (name,) = module.active_adapters
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    return Adapted(module.base_layer.weight.to(dtype), a.to(dtype), (b * module.scaling[name]).to(dtype))


def mlp_parts(module: Any) -> tuple[Any, Any, Any]:
    return module.gate_proj, module.up_proj, module.down_proj


def computed_in(x: Tensor) -> torch.dtype:
    """The dtype of matrix products with x."""
    found: torch.dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return found


def linear_forward(module: Any, x: Tensor) -> Tensor:
    dtype = computed_in(x)
    found: Tensor = Projection.apply(x.to(dtype).flatten(0, -2), *adapted(module, dtype))
    return found.unflatten(0, x.shape[:-1])


def mlp_forward(module: Any, x: Tensor) -> Tensor:
    dtype = computed_in(x)
    matrices = [matrix for part in mlp_parts(module) for matrix in adapted(part, dtype)]
    found: Tensor = Mlp.apply(x.to(dtype).flatten(0, -2), *matrices)
    return found.unflatten(0, x.shape[:-1])


def attention_forward(module: Any, hidden_states: Tensor, position_embeddings: Any, **others: Any) -> Any:
    """Learns; an answer is written, with a cache and rows padded on the left, as transformers has it."""
    if not module.training:
        return type(module).forward(module, hidden_states, position_embeddings, **others)
    shape = *hidden_states.shape[:-1], -1, module.head_dim
    q, k, v = (part(hidden_states).view(shape) for part in (module.q_proj, module.k_proj, module.v_proj))
    q = Turned.apply(q, module.q_norm.weight, module.q_norm.eps, *position_embeddings)
    k = Turned.apply(k, module.k_norm.weight, module.k_norm.eps, *position_embeddings)
    with torch.autocast("cpu", enabled=False):
        # rows are padded on the right, where causality hides the padding
        out = Blocks.apply(
            *(one.transpose(1, 2) for one in (q, k, v)), module.scaling, module.sliding_window or q.shape[1]
        )
    return module.o_proj(out.transpose(1, 2).flatten(2)), None
