"""Writes a Hugging Face Gemma 3 text model folder as one GGUF file that llama.cpp and Ollama load.

    write_gguf(Path("models/nano"), Path("nano.gguf"), "Q4_K_M")

Format: the GGUF specification of ggml, version 3; key and tensor names are those of the `gguf` library's GEMMA3
architecture. Weights are rounded once, from the dtype they are stored in straight to the file type, by llama.cpp's own
kernels (potstill/ggml.py) and to the types its own rules give (potstill/gguf_types.py). Weights are mapped, not loaded,
and one rounded tensor is in memory at a time. The same input gives the same bytes.
"""

import contextlib
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import ggml, headers
from potstill.gguf_metadata import Provenance, add_architecture, add_general, add_importance, read_config
from potstill.gguf_types import FILE_TYPES, WEIGHTED, tensor_types
from potstill.gguf_vocabulary import add_vocabulary, chat_template, read_vocabulary
from potstill.stop import DATA, USAGE, Stop

__all__ = ["FILE_TYPES", "GgufReport", "Provenance", "chat_template", "write_gguf"]

# values that a thread reads and rounds at once, and threads that do: blocks of rows do not depend on each other
CHUNK = 2**20
MOST_THREADS = 8
# as numpy has no bfloat16, its bits are read as integers
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class GgufReport:
    """What was written: bytes of the file, tensors by type, how many of them fell back, how many were weighted."""

    file_type: str
    nbytes: int
    tensors: dict[str, int]
    fallbacks: int
    weighted: int


@dataclass(frozen=True)
class _Tensor:
    """`rows(first, last)` reads rows as a float32 matrix, a norm as one row; `source` is the name in the folder."""

    source: str
    shape: list[int]
    rows: Callable[[int, int], Any]


def write_gguf(
    model_dir: Path,
    path: Path,
    file_type: str,
    *,
    name: str | None = None,
    licence: str | None = None,
    source: Provenance | None = None,
    importance: dict[str, Any] | None = None,
    calibration: tuple[str, int] | None = None,
) -> GgufReport:
    """Writes `model_dir` to `path`, whole or not at all.

    `file_type` is that of most matrices; norms stay F32. `importance` (imatrix.collect) weighs the columns of the types
    in gguf_types.WEIGHTED, and `calibration` says what it comes from: the dataset and the number of prompts. Raises
    Stop 2 for an unknown file type, Stop 65 when the folder is no Gemma 3 text model that llama.cpp computes alike or a
    weight does not fit its type, and Stop 69 when llama.cpp's kernels are not there.
    """
    if file_type not in FILE_TYPES:
        raise Stop(f"no GGUF file type {file_type!r}; want one of {', '.join(FILE_TYPES)}", USAGE)
    model_dir, path = Path(model_dir), Path(path)
    ggml.library()
    config = read_config(model_dir)
    vocabulary = read_vocabulary(model_dir, config["vocab_size"])
    tensors = _named_tensors(model_dir, config)
    weights = (importance or {}) if file_type in WEIGHTED else {}
    _check_importance(weights, tensors)
    types, fallbacks = tensor_types({name: t.shape for name, t in tensors.items()}, file_type, bool(weights))
    with _writer(path) as writer:
        parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
        add_general(writer, name or model_dir.name, licence, source or Provenance(), parameters)
        add_architecture(writer, config, file_type)
        if weights:
            add_importance(writer, len(weights), *(calibration or (None, None)))
        add_vocabulary(writer, model_dir, vocabulary)
        _write_tensors(writer, model_dir, tensors, types, weights)
    weighted = sum(name in weights and kind not in ("F32", "F16", "BF16", "Q8_0") for name, kind in types.items())
    return GgufReport(file_type, path.stat().st_size, dict(Counter(types.values())), fallbacks, weighted)


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[Any]:
    """Writes to a temporary file beside `path` that replaces it when the block ends well, and vanishes when not."""
    import gguf

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        with contextlib.closing(gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GEMMA3])) as writer:
            yield writer
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _named_tensors(model_dir: Path, config: dict[str, Any]) -> dict[str, _Tensor]:
    """The tensors by their GGUF name, in the order of layers. Raises Stop 65 when one is unknown or not there."""
    import gguf

    layers, tied = config["num_hidden_layers"], config.get("tie_word_embeddings", True)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, layers)
    found = {}
    for tensor in _stored_tensors(model_dir):
        if tensor.source == "lm_head.weight" and tied:
            continue
        target = names.get_name(tensor.source, try_suffixes=(".weight",))
        if target is None:
            raise Stop(f"{model_dir}: tensor {tensor.source!r} is unknown to Gemma 3 in GGUF", DATA)
        found[target] = tensor
    wanted, rows = 2 + 13 * layers + (not tied), config["vocab_size"]
    if len(found) != wanted or found["token_embd.weight"].shape[0] != rows:
        raise Stop(f"{model_dir}: found {len(found)} tensors, want {wanted}, and {rows} rows in the embedding", DATA)
    return found


def _stored_tensors(model_dir: Path) -> list[_Tensor]:
    paths = sorted(model_dir.glob("*.safetensors"))
    if not paths:
        raise Stop(f"{model_dir} has no *.safetensors", DATA)
    found = []
    for path in paths:
        try:
            stored = headers.read_safetensors(path)
        except headers.BadHeader as error:
            raise Stop(f"{path} is no whole safetensors file: {error}", DATA) from None
        found += [_Tensor(tensor.name, tensor.shape, _reader(path, tensor)) for tensor in stored]
    layer = re.compile(r"\.layers\.(\d+)\.")
    return sorted(found, key=lambda t: (int(m[1]) if (m := layer.search(t.source)) else -1, t.source))


def _reader(path: Path, tensor: headers.Tensor) -> Callable[[int, int], Any]:
    import numpy as np

    if tensor.dtype not in STORED:
        raise Stop(f"{path}: tensor {tensor.name!r} is {tensor.dtype}; want one of {', '.join(STORED)}", DATA)
    with path.open("rb") as file:
        data = 8 + int.from_bytes(file.read(8), "little")
    shape = (1, *tensor.shape) if len(tensor.shape) == 1 else tuple(tensor.shape)
    # Hugging Face's RMSNorm multiplies by 1 + weight, llama.cpp's by weight
    shift = np.float32(tensor.name.endswith("norm.weight"))

    def rows(first: int, last: int) -> Any:
        stored = np.asarray(np.memmap(path, STORED[tensor.dtype], "r", data + tensor.start, shape))[first:last]
        if tensor.dtype == "BF16":  # the upper half of a float32
            stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
        values = stored.astype(np.float32, copy=False)
        return values + shift if shift else values

    return rows


def _check_importance(weights: dict[str, Any], tensors: dict[str, _Tensor]) -> None:
    for name, values in weights.items():
        if name not in tensors or values.shape != (tensors[name].shape[-1],):
            wanted = f"{tensors[name].shape[-1]} weights" if name in tensors else "no such tensor"
            raise Stop(f"importance matrix: {name} has {values.shape[-1]} weights, the model {wanted}", DATA)


def _write_tensors(
    writer: Any, model_dir: Path, tensors: dict[str, _Tensor], types: dict[str, str], weights: dict[str, Any]
) -> None:
    import gguf
    import numpy as np

    for name, tensor in tensors.items():
        block, size = ggml.block_size(types[name])
        kind = gguf.GGMLQuantizationType[types[name]]
        nbytes = math.prod(tensor.shape) // block * size
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for name, tensor in tensors.items():
            try:
                writer.write_tensor_data(_rounded(pool, tensor, types[name], weights.get(name)))
            except ValueError as error:
                raise Stop(f"{model_dir}: tensor {tensor.source!r} cannot be {types[name]}: {error}", DATA) from None


def _rounded(pool: ThreadPoolExecutor, tensor: _Tensor, kind: str, importance: Any) -> Any:
    """The bytes of a tensor: uint8 (rows, bytes of a row). Raises ValueError when a value does not fit."""
    import numpy as np

    *outer, columns = tensor.shape
    count, step = math.prod(outer), max(1, CHUNK // columns)
    block, size = ggml.block_size(kind)
    out = np.empty((count, columns // block * size), np.uint8)

    def fill(first: int) -> None:
        last = min(first + step, count)
        out[first:last] = ggml.quantize(tensor.rows(first, last), kind, importance)

    for _ in pool.map(fill, range(0, count, step)):
        pass
    return out
