"""Gemma 3's norms and rotary embedding for training on a CPU: the gradients are made from what a norm was given."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Gemma's root mean square norm over the last dimension: x / rms(x) * (1 + weight), in float32."""
    return (x.float() * inverse_rms(x, eps)).mul_(1.0 + weight.float()).to(x.dtype)


def norm_gradient(given: Tensor, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """That of x; `given` is that of the result."""
    inverse = inverse_rms(x, eps)
    unit = x.float().mul_(inverse)
    scaled = given.to(torch.float32, copy=True).mul_(1.0 + weight.float())
    mean = (scaled * unit).mean(-1, keepdim=True)
    return scaled.sub_(unit.mul_(mean)).mul_(inverse).to(x.dtype)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / rms of the last dimension, in float32: (..., 1)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The rotary embedding of x (batch, length, heads, size); cos and sin are (batch, length, size)."""
    first, second = x.chunk(2, -1)
    cos, sin = (part[:, :, None, : first.shape[-1]].to(x.dtype) for part in (cos, sin))
    out = torch.empty_like(x)
    torch.sub(first * cos, second * sin, out=out[..., : first.shape[-1]])
    torch.add(second * cos, first * sin, out=out[..., first.shape[-1] :])
    return out


class Norm(Function):
    """A norm by itself, with frozen weights: the one behind the last layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return norm(x, weight, eps)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return norm_gradient(given[0], x, weight, ctx.eps), None, None
