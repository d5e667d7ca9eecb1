"""Reads the headers of safetensors and GGUF files as hostile input: every size is bounded before it is believed.

Sources: the safetensors format description (8-byte length, JSON, data without gaps) and ggml's GGUF specification v3.
"""

import json
import math
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 64 * 2**20
MAX_STRING_BYTES = 2**20
MAX_KEYS = 1_000
MAX_TENSORS = 10_000
MAX_ARRAY = 2_000_000
MAX_DIMENSIONS = 8
# sizes whose products still fit what a C library counts in
MAX_SIZE = 2**40
# GGML_MAX_NAME is 64 with its closing NUL; a Hugging Face name is longer
GGUF_NAME = re.compile(r"[\x21-\x7e]{1,63}")
GGUF_KEY = re.compile(r"[A-Za-z0-9_.-]{1,255}")
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


def strict_json(data: bytes) -> Any:
    """The one value that every JSON reader finds in `data`. Raises BadHeader.

    A repeated key is refused, for readers differ in which value they take, and so are NaN and Infinity, which are no
    JSON (RFC 8259).
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise BadHeader(f"has the key {key[:60]!r} twice")
            values[key] = value
        return values

    def no_number(text: str) -> Any:
        raise BadHeader(f"has {text}, which is no JSON number")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_number)
    except BadHeader:
        raise
    except (ValueError, RecursionError):
        raise BadHeader("is not JSON") from None


def read_safetensors(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file. Raises BadHeader when the header and the size of the file do not fit."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        (length,) = _unpack(file, "<Q")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise BadHeader(f"the header says it is {length} bytes long, the file is {size}")
        text = file.read(length)
    try:
        header = strict_json(text)
    except BadHeader as error:
        raise BadHeader(f"the header {error}") from None
    if not isinstance(header, dict) or text[:1] != b"{":
        raise BadHeader("the header is not a JSON object")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise BadHeader("__metadata__ is not texts by name")
    if len(header) > MAX_TENSORS:
        raise BadHeader(f"{len(header)} tensors are not believable")
    tensors = [_safetensors_entry(name, entry) for name, entry in header.items()]
    end = 0
    for tensor in sorted(tensors, key=lambda t: (t.start, t.nbytes)):
        if tensor.start != end:
            raise BadHeader(f"tensor {tensor.name!r} starts at byte {tensor.start}, want {end}")
        end += tensor.nbytes
    if end != size - 8 - length:
        raise BadHeader(f"the tensors have {end} bytes, the file holds {size - 8 - length}")
    return tensors


def read_gguf(path: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """The metadata and tensors of a GGUF file. Raises BadHeader when a size is unbelievable or data is missing."""
    from gguf import GGUF_DEFAULT_ALIGNMENT

    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise BadHeader("the file does not start with GGUF")
        version, tensor_count, key_count = _unpack(file, "<IQQ")
        if version != 3 or tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
            raise BadHeader(f"version {version}, {tensor_count} tensors and {key_count} keys are not believable")
        values = _gguf_values(file, key_count)
        tensors = [_gguf_tensor(file) for _ in range(tensor_count)]
        alignment = values.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        # ggml takes powers of two only
        if type(alignment) is not int or not 8 <= alignment <= 4096 or alignment & (alignment - 1):
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
    wanted = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != wanted or len(name) > 512:
        raise BadHeader(f"tensor {name[:60]!r} has no believable entry")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    # types before arithmetic: a text times a number would be a text that fills the memory
    numbers = _are_sizes(shape, MAX_DIMENSIONS) and _are_sizes(offsets, 2) and len(offsets) == 2
    if not numbers or not isinstance(dtype, str) or dtype not in SAFETENSORS_BITS:
        raise BadHeader(f"tensor {name!r} has no believable entry")
    start, end = offsets
    nbytes = math.prod(shape) * SAFETENSORS_BITS[dtype] // 8
    if end - start != nbytes:
        raise BadHeader(f"tensor {name!r} is {shape} {dtype}, which is not bytes {start} to {end}")
    return Tensor(name, dtype, shape, start, nbytes)


def _are_sizes(value: Any, most: int) -> bool:
    if not isinstance(value, list) or len(value) > most:
        return False
    return all(type(n) is int and 0 <= n < MAX_SIZE for n in value)


def _gguf_values(file: BinaryIO, count: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for _ in range(count):
        key = _string(file)
        if not GGUF_KEY.fullmatch(key):
            raise BadHeader(f"the key {key[:60]!r} is no name")
        if key in values:
            raise BadHeader(f"the key {key!r} is repeated")
        values[key] = _value(file, *_unpack(file, "<I"))
        if file.tell() > MAX_HEADER_BYTES:
            raise BadHeader(f"a header of more than {MAX_HEADER_BYTES} bytes is not believable")
    return values


def _gguf_tensor(file: BinaryIO) -> Tensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    name, (dimensions,) = _string(file), _unpack(file, "<I")
    if not GGUF_NAME.fullmatch(name):
        raise BadHeader(f"tensor {name[:60]!r} has a name that llama.cpp does not take")
    if not 1 <= dimensions <= 4:
        raise BadHeader(f"tensor {name!r} has {dimensions} dimensions")
    *shape, kind, start = _unpack(file, f"<{dimensions}QIQ")
    if kind not in {int(known) for known in GGMLQuantizationType}:
        raise BadHeader(f"tensor {name!r} is of the unknown type {kind}")
    dtype = GGMLQuantizationType(kind)
    block, block_bytes = GGML_QUANT_SIZES[dtype]
    if not all(1 <= n < MAX_SIZE for n in shape) or shape[0] % block:
        raise BadHeader(f"tensor {name!r} has the unbelievable shape {shape} for {dtype.name}")
    return Tensor(name, dtype.name, shape, start, math.prod(shape) // block * block_bytes)


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
