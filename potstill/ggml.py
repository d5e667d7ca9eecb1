"""llama.cpp's own quantiser kernels, called in this process through ctypes.

    ggml.quantize(values, "Q4_K")     # float32 (rows, columns) -> uint8 (rows, bytes of a row)

The wheel of xllamacpp carries all of ggml in its shared object, and exports it. So K-quants need no compiler and no
second package, and a block is rounded by the same machine code as in llama-quantize. A call leaves Python's lock, so
several threads quantise at once. Source of signatures: ggml.h of ggml-org/llama.cpp.
"""

import ctypes
import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from potstill.stop import UNAVAILABLE, Stop

PACKAGE = "xllamacpp"
# the types that potstill.gguf_types can ask for
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0")
NEXT = f"Install the version of {PACKAGE} that requirements.lock names: ./scripts/setup_env.sh"


def quantize(values: Any, kind: str, importance: Any = None) -> Any:
    """float32 (rows, columns) as rows of ggml blocks: uint8 (rows, bytes of a row).

    `importance` has a weight for each column (imatrix.collect), float32; types that cannot use it ignore it. Raises
    ValueError for values that are not finite or do not fit the type, and for columns that are no multiple of its block;
    Stop 69 when the kernels are not there.
    """
    import numpy as np

    if values.dtype != np.float32 or values.ndim != 2:
        raise ValueError(f"want a float32 matrix, got {values.dtype} of shape {values.shape}")
    rows, columns = values.shape
    block, block_bytes = block_size(kind)
    if columns % block:
        raise ValueError(f"{columns} columns are no multiple of {block}, the block of {kind}")
    # the kernels lose a NaN or make garbage of it
    if not np.isfinite(values).all():
        raise ValueError("a value is not a finite number")
    if importance is not None:
        importance = np.require(importance, np.float32, ["C", "A"])
        if importance.shape != (columns,) or not np.isfinite(importance).all():
            raise ValueError(f"want {columns} finite weights, got {importance.shape}")
    kernels, number = library(), _number(kind)
    values = np.require(values, np.float32, ["C", "A"])
    out = np.empty((rows, columns // block * block_bytes), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    kernels.ggml_quantize_chunk(number, values.ctypes.data, out.ctypes.data, 0, rows, columns, weights)
    # a block's scale is a half float, which large values overflow
    if not kernels.ggml_validate_row_data(number, out.ctypes.data, out.nbytes):
        raise ValueError(f"values of up to {np.abs(values).max():.3g} do not fit in {kind}")
    return out


def block_size(kind: str) -> tuple[int, int]:
    """(values, bytes) of one block of a type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[kind]]


@functools.cache
def library() -> Any:
    """The shared object with its functions typed.

    Raises Stop 69 when it is not installed, lacks a function, or numbers or sizes a type unlike the gguf library: then
    the two come from versions of ggml that do not fit each other.
    """
    spec = find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in sorted(Path(folder).glob(f"{PACKAGE}*.so"))]
    if not found:
        raise Stop(f"the package {PACKAGE}, which quantises GGUF files, is not installed. {NEXT}", UNAVAILABLE)
    return typed(found[0])


def typed(path: Path) -> Any:
    """Loads a shared object that holds ggml; see `library` for what it raises."""
    chunk = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    signatures: dict[str, tuple[list[Any], Any]] = {
        "ggml_quantize_chunk": (chunk, ctypes.c_size_t),
        "ggml_validate_row_data": ([ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t], ctypes.c_bool),
        "ggml_type_name": ([ctypes.c_int], ctypes.c_char_p),
        "ggml_row_size": ([ctypes.c_int, ctypes.c_int64], ctypes.c_size_t),
    }
    try:
        kernels = ctypes.CDLL(str(path))
        for name, (arguments, result) in signatures.items():
            function = getattr(kernels, name)
            function.argtypes, function.restype = arguments, result
    except (OSError, AttributeError) as error:
        raise Stop(f"{path} cannot quantise: {error}. {NEXT}", UNAVAILABLE) from None
    for kind in KINDS:
        block, block_bytes = block_size(kind)
        named, size = kernels.ggml_type_name(_number(kind)), kernels.ggml_row_size(_number(kind), block)
        if named.decode().upper() != kind or size != block_bytes:
            raise Stop(
                f"{path}: type {_number(kind)} is {named.decode()} with {size} bytes a block, the gguf library takes "
                f"it for {kind} with {block_bytes}. {NEXT}",
                UNAVAILABLE,
            )
    return kernels


def _number(kind: str) -> int:
    from gguf import GGMLQuantizationType

    return int(GGMLQuantizationType[kind])
