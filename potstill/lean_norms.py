"""Gemma 3's norms for training on a CPU: they keep what they were given, and make the rest again."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / rms of the last dimension, in float32: (..., 1)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def norm_gradients(given: Tensor, x: Tensor, inverse: Tensor, weight: Tensor, of_weight: bool) -> tuple[Tensor, Any]:
    """Those of x and, if wanted, of the weight; `given`, float32, is that of the result, and is overwritten."""
    unit = x.float().mul_(inverse)
    found = (given * unit).flatten(0, -2).sum(0).to(weight.dtype) if of_weight else None
    scaled = given.mul_(1.0 + weight.float())
    mean = (scaled * unit).mean(-1, keepdim=True)
    return scaled.sub_(unit.mul_(mean)).mul_(inverse).to(x.dtype), found


class Norm(Function):
    """Gemma's root mean square norm: x / rms(x) * (1 + weight), in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = inverse_rms(x, eps)
        ctx.save_for_backward(x, weight, inverse)
        return (x.float() * inverse).mul_(1.0 + weight.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        x, weight, inverse = ctx.saved_tensors
        return *norm_gradients(given[0].to(torch.float32, copy=True), x, inverse, weight, ctx.needs_input_grad[1]), None


class Turned(Function):
    """The norm of queries or keys (batch, length, heads, size), then their rotary embedding (batch, length, size)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
        inverse = inverse_rms(x, eps)
        ctx.save_for_backward(x, weight, inverse, cos, sin)
        plain = (x.float() * inverse).mul_(1.0 + weight.float()).to(x.dtype)
        return turn(plain, cos, sin)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        x, weight, inverse, cos, sin = ctx.saved_tensors
        # turned back
        plain = turn(given[0].contiguous(), cos, -sin)
        found = norm_gradients(plain.float(), x, inverse, weight, ctx.needs_input_grad[1])
        return *found, None, None, None


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = (part[:, :, None, : first.shape[-1]].to(x.dtype) for part in (cos, sin))
    out = torch.empty_like(x)
    torch.sub(first * cos, second * sin, out=out[..., : first.shape[-1]])
    torch.add(second * cos, first * sin, out=out[..., first.shape[-1] :])
    return out
