"""Frozen matrices with LoRA adapters: their products and gradients."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Adapted(NamedTuple):
    """Matrices that read the same x: each gives x W^T + (x A^T) B^T.

    weights: each (out, in). a: all A, one below the other (ranks, in). bs: each (out, rank), times LoRA's factor. A
    matrix without an adapter has one of rank 0.
    """

    weights: tuple[Tensor, ...]
    a: Tensor
    bs: tuple[Tensor, ...]
    factors: tuple[float, ...]

    @property
    def ranks(self) -> list[int]:
        return [b.shape[1] for b in self.bs]


def adapters(module: Any) -> list[Tensor | None]:
    """A (rank, in) and B (out, rank) of a PEFT layer, as they are trained; None where there is no adapter."""
    if not hasattr(module, "lora_A"):
        return [None, None]
    (name,) = module.active_adapters
    return [module.lora_A[name].weight, module.lora_B[name].weight]


def factor(module: Any) -> float:
    """LoRA's: alpha / rank."""
    return float(module.scaling[module.active_adapters[0]]) if hasattr(module, "lora_A") else 0.0


def of_modules(modules: Sequence[Any], trained: Sequence[Tensor | None], dtype: torch.dtype) -> Adapted:
    """The matrices of some layers, with or without adapters, to be multiplied as `dtype`; `trained`: A, B, A, B, ..."""
    weights = tuple(getattr(module, "base_layer", module).weight.to(dtype) for module in modules)
    as_, bs = [], []
    for module, weight, a, b in zip(modules, weights, trained[::2], trained[1::2], strict=True):
        out, into = weight.shape
        as_.append(weight.new_empty(0, into) if a is None else a.to(dtype))
        bs.append(weight.new_empty(out, 0) if b is None else (b * factor(module)).to(dtype))
    return Adapted(weights, torch.cat(as_), tuple(bs), tuple(map(factor, modules)))


def products(x: Tensor, by: Adapted) -> tuple[list[Tensor], Tensor]:
    """Each matrix' result for x (rows, in), and x A^T (rows, ranks), which the backward pass wants."""
    inner = x @ by.a.T
    parts = inner.split(by.ranks, -1)
    return [(x @ w.T).addmm_(part, b.T) for w, part, b in zip(by.weights, parts, by.bs, strict=True)], inner


def gradients(given: Sequence[Tensor], x: Tensor, inner: Tensor, by: Adapted) -> tuple[Tensor, list[Tensor]]:
    """That of x, and those of A, B, A, B, ...; `given` are those of the results."""
    of_inner = torch.cat([one @ b for one, b in zip(given, by.bs, strict=True)], -1)
    of_x = given[0] @ by.weights[0]
    for one, weight in zip(given[1:], by.weights[1:], strict=True):
        of_x.addmm_(one, weight)
    of_x.addmm_(of_inner, by.a)
    of_as = (of_inner.T @ x).split(by.ranks)
    parts = inner.split(by.ranks, -1)
    of_bs = [(one.T @ part).float().mul_(f) for one, part, f in zip(given, parts, by.factors, strict=True)]
    return of_x, [one for pair in zip(of_as, of_bs, strict=True) for one in pair]
