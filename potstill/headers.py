"""Reads the headers of safetensors and GGUF files as hostile input: every size is bounded before it is believed.

Sources: the safetensors format description (8-byte length, JSON, data without gaps) and ggml's GGUF specification v3.
"""

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 64 * 2**20
MAX_STRING_BYTES = 2**20
MAX_KEYS = 1_000
MAX_TENSORS = 10_000
MAX_ARRAY = 2_000_000
SAFETENSORS_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8}
SAFETENSORS_BITS |= {"BOOL": 8, "U16": 16, "U32": 32, "U64": 64, "F8_E4M3": 8, "F8_E5M2": 8}
# GGUF value types 0 to 12 but for 8 (string) and 9 (array)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class BadHeader(ValueError):
    """What is wrong with a header, in words."""


@dataclass(frozen=True)
class Tensor:
    """`shape` in the file's own order of dimensions, `start` in bytes from the start of the data."""

    name: str
    dtype: str
    shape: list[int]
    start: int
    nbytes: int


def read_safetensors(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file. Raises BadHeader when the header and the size of the file do not fit."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        (length,) = _unpack(file, "<Q")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise BadHeader(f"the header says it is {length} bytes long, the file is {size}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise BadHeader("the header is not JSON") from None
    if not isinstance(header, dict):
        raise BadHeader("the header is not a JSON object")
    tensors = [_safetensors_entry(name, entry) for name, entry in header.items() if name != "__metadata__"]
    end = 0
    for tensor in sorted(tensors, key=lambda t: t.start):
        if tensor.start != end:
            raise BadHeader(f"tensor {tensor.name!r} starts at byte {tensor.start}, want {end}")
        end += tensor.nbytes
    if end != size - 8 - length:
        raise BadHeader(f"the tensors have {end} bytes, the file holds {size - 8 - length}")
    return tensors


def read_gguf(path: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """The metadata and tensors of a GGUF file. Raises BadHeader when a size is unbelievable or data is missing."""
    from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType

    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise BadHeader("the file does not start with GGUF")
        version, tensor_count, key_count = _unpack(file, "<IQQ")
        if version != 3 or tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
            raise BadHeader(f"version {version}, {tensor_count} tensors and {key_count} keys are not believable")
        values: dict[str, Any] = {}
        for _ in range(key_count):
            key = _string(file)
            if key in values:
                raise BadHeader(f"the key {key!r} is repeated")
            values[key] = _value(file, *_unpack(file, "<I"))
        tensors, known = [], {int(kind) for kind in GGMLQuantizationType}
        for _ in range(tensor_count):
            name, (dimensions,) = _string(file), _unpack(file, "<I")
            if not 1 <= dimensions <= 4:
                raise BadHeader(f"tensor {name!r} has {dimensions} dimensions")
            *shape, kind, start = _unpack(file, f"<{dimensions}QIQ")
            if kind not in known:
                raise BadHeader(f"tensor {name!r} is of the unknown type {kind}")
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            nbytes = math.prod(shape) // block * block_bytes
            tensors.append(Tensor(name, GGMLQuantizationType(kind).name, shape, start, nbytes))
        alignment = values.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 8 <= alignment <= 4096 or alignment % 8:
            raise BadHeader(f"an alignment of {alignment!r} is not believable")
        data = -(-file.tell() // alignment) * alignment
    if len({t.name for t in tensors}) != len(tensors):
        raise BadHeader("a tensor is repeated")
    end = 0
    for tensor in sorted(tensors, key=lambda t: t.start):
        if tensor.start != end:
            raise BadHeader(f"tensor {tensor.name!r} starts at byte {tensor.start}, want {end}")
        end += -(-tensor.nbytes // alignment) * alignment
    if data + end != size:
        raise BadHeader(f"header and tensors need {data + end} bytes, the file has {size}")
    return values, tensors


def _safetensors_entry(name: str, entry: Any) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        elements = math.prod(shape)
        whole = all(type(n) is int and n >= 0 for n in (*shape, start, end))
        nbytes = elements * SAFETENSORS_BITS[dtype] // 8
    except (TypeError, KeyError, ValueError):
        raise BadHeader(f"tensor {name!r} has no believable entry") from None
    if not whole or end - start != nbytes:
        raise BadHeader(f"tensor {name!r} is {shape} {dtype}, which is not bytes {start} to {end}")
    return Tensor(name, dtype, shape, start, nbytes)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(file)
    if kind in SCALARS:
        return _unpack(file, f"<{SCALARS[kind]}")[0]
    if kind != ARRAY:
        raise BadHeader(f"a value is of the unknown type {kind}")
    item, count = _unpack(file, "<IQ")
    if count > MAX_ARRAY or item == ARRAY:
        raise BadHeader(f"an array of {count} values of type {item} is not believable")
    if item in SCALARS:
        return list(_unpack(file, f"<{count}{SCALARS[item]}"))
    return [_value(file, item) for _ in range(count)]


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    if length > MAX_STRING_BYTES:
        raise BadHeader(f"a string of {length} bytes is not believable")
    text = file.read(length)
    if len(text) != length:
        raise BadHeader("the file ends inside its header")
    return text.decode("utf-8", "replace")


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    data = file.read(struct.calcsize(layout))
    try:
        return struct.unpack(layout, data)
    except struct.error:
        raise BadHeader("the file ends inside its header") from None
