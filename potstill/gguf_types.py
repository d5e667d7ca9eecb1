"""Which tensor of a GGUF file gets which type: llama.cpp's rules, as far as they concern Gemma 3.

Source: llama_tensor_get_type_impl, tensor_type_fallback and use_more_bits in src/llama-quant.cpp of ggml-org/llama.cpp.
benchmarks/gguf.py compares the outcome with llama.cpp's own quantiser, tensor by tensor.
"""

import re

from potstill import ggml

FILE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_0", "Q4_K_M", "Q4_0")
# those whose rounding can weigh columns; the others come out alike with an importance matrix and without
WEIGHTED = ("Q6_K", "Q5_0", "Q4_K_M", "Q4_0")
# a row that is no multiple of 256 falls back to a type of blocks of 32
FALLBACK = {"Q6_K": "Q8_0", "Q4_K": "Q5_0"}
FLOATS = ("F32", "F16", "BF16")


def tensor_types(shapes: dict[str, list[int]], file_type: str, weighted: bool) -> tuple[dict[str, str], int]:
    """The ggml type of every tensor, and how many fell back to another than the rule wanted.

    `shapes` are (rows, columns) of matrices and (columns,) of norms, by GGUF name; `weighted` says that there is an
    importance matrix. Where a row is no multiple of 32 either, the tensor becomes F16; so it does in a Q8_0, Q5_0 or
    Q4_0 file, which llama.cpp refuses to write then.
    """
    layers = 1 + max((layer for name in shapes if (layer := layer_of(name)) is not None), default=-1)
    tied = "output.weight" not in shapes
    types, fallbacks = {}, 0
    for name, shape in shapes.items():
        if len(shape) < 2:
            types[name] = "F32"
            continue
        wanted = _wanted(name, shape[-1], file_type, layers, tied, weighted)
        kind = wanted if _fits(wanted, shape[-1]) else FALLBACK.get(wanted, "F16")
        types[name] = kind if _fits(kind, shape[-1]) else "F16"
        fallbacks += types[name] != wanted
    return types, fallbacks


def layer_of(name: str) -> int | None:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else None


def _wanted(name: str, columns: int, file_type: str, layers: int, tied: bool, weighted: bool) -> str:
    default = "Q4_K" if file_type == "Q4_K_M" else file_type
    if default in FLOATS:
        return default
    part, layer = name.split(".")[-2], layer_of(name) or 0
    # the head suffers most from few bits, and a tied embedding is the head too
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q8_0" if default == "Q8_0" or not _fits(default, columns) else "Q6_K"
    if file_type == "Q4_K_M" and part in ("attn_v", "ffn_down") and _more_bits(layer, layers):
        return "Q6_K"
    if weighted and file_type in ("Q4_0", "Q5_0") and part == "ffn_down" and layer < layers // 8:
        return {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}[file_type]
    return default


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth, and every third layer between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fits(kind: str, columns: int) -> bool:
    return columns % ggml.block_size(kind)[0] == 0
