"""Causal attention for training on a CPU, by blocks of queries over the keys that each may see.

The probabilities are made again in the backward pass (Dao, 2023, "FlashAttention-2"), so memory grows with the length
and not with its square, and a window of 512 tokens costs what 512 tokens cost. Every product is a plain one of two
matrices: PyTorch's fused attention reaches a quarter of their speed on a CPU, and computes what the window hides.
"""

import math

import torch
from torch import Tensor

# queries that are computed at once
BLOCK = 128


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int) -> Tensor:
    """What q (batch, heads, length, size) see of k and v (batch, kv heads, length, size): like q."""
    out = torch.empty_like(q)
    for read, (keys,), (values,), into in by_keys(k.shape[1], q, k, v, out):
        for at, seen in blocks(q.shape[2], window):
            p = probabilities(read[:, at], keys[seen], at, seen, scale, window)
            into[:, at] = (p @ values[seen]).view_as(into[:, at])
    return out


def attention_gradients(
    given: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of q, k and v; `given` is that of the result."""
    of_q = torch.empty_like(q)
    # sums over blocks
    of_k, of_v = (torch.zeros_like(one, dtype=torch.float32) for one in (k, v))
    each = by_keys(k.shape[1], q, k, v, given, of_q, of_k, of_v)
    for read, (keys,), (values,), wanted, into, (into_k,), (into_v,) in each:
        for at, seen in blocks(q.shape[2], window):
            p = probabilities(read[:, at], keys[seen], at, seen, scale, window)
            mine, of_out = read[:, at].flatten(0, 1), wanted[:, at].flatten(0, 1)
            into_v[seen] += p.T @ of_out
            of_p = of_out @ values[seen].T
            of_scores = torch._softmax_backward_data(of_p, p, -1, p.dtype).mul_(scale)
            into[:, at] = (of_scores @ keys[seen]).view_as(into[:, at])
            into_k[seen] += of_scores.T @ mine
    return of_q, of_k.to(k.dtype), of_v.to(v.dtype)


def by_keys(kv_heads: int, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of each tensor (batch, heads, length, size): per row and kv head, its heads (heads, length, size)."""
    grouped = [tensor.unflatten(1, (kv_heads, -1)) for tensor in tensors]
    return [tuple(one[row, head] for one in grouped) for row in range(len(tensors[0])) for head in range(kv_heads)]


def blocks(length: int, window: int) -> list[tuple[slice, slice]]:
    """Queries, and the keys that any of them may see: up to `window`, itself included."""
    ends = [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
    return [(slice(start, end), slice(max(0, start - window + 1), end)) for start, end in ends]


def probabilities(q: Tensor, k: Tensor, at: slice, seen: slice, scale: float, window: int) -> Tensor:
    """(heads * queries, keys) of one block: q (heads, queries, size), k (keys, size)."""
    scores = torch.addmm(q.new_empty(()), q.flatten(0, 1), k.T, beta=0, alpha=scale)
    each, edge = scores.view(len(q), -1, len(k)), torch.ones(q.shape[1], q.shape[1], dtype=torch.bool)
    # only the last keys may come after a query, and only the first lie behind its window
    each[:, :, -len(edge) :].masked_fill_(edge.triu(1), -math.inf)
    if at.stop > window:
        each[:, :, : len(edge)].masked_fill_(edge.tril(at.start - seen.start - window), -math.inf)
    return torch.softmax(scores, -1)
