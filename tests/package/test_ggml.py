import contextlib
import importlib.util
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from potstill import ggml
from potstill.stop import UNAVAILABLE, Stop

# the gguf library rounds to these in numpy, written apart from the C kernels
IN_NUMPY = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
USES_WEIGHTS = ("Q6_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0")
# the wheel's shared object holds ggml; the standard library's is one that does not
ANOTHER = importlib.util.find_spec("_ctypes").origin


def matrix(rows: int = 24, columns: int = 512, seed: int = 3) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, columns), np.float32) * np.float32(0.05)
    values[1] = 0
    values[2, 7] = 30.0  # one outlier sets the scale of its block
    values[3] *= 1e-30
    return values


def decoded(data: np.ndarray, kind: str) -> np.ndarray:
    """By the gguf library, which reads every type."""
    if kind in ("F32", "F16"):
        return data.view({"F32": np.float32, "F16": np.float16}[kind]).astype(np.float32)
    return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])


@pytest.mark.parametrize("kind", IN_NUMPY)
def test_bytes_are_those_of_the_gguf_library(kind: str) -> None:
    wanted = gguf.quants.quantize(matrix(), gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(ggml.quantize(matrix(), kind), wanted.view(np.uint8).reshape(24, -1))


def test_more_bits_are_nearer() -> None:
    values = matrix(64)[4:]
    error = {kind: float(np.square(decoded(ggml.quantize(values, kind), kind) - values).mean()) for kind in ggml.KINDS}
    order = ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_1", "Q4_K", "Q4_0"]
    assert [kind for kind in sorted(error, key=error.__getitem__) if kind in order] == order
    # a step of a block of 32 is at most its span over 2^bits, and an error half a step; K-quants share scales of 6 bits
    spread = float(np.square(values).mean()) ** 0.5
    assert error["Q6_K"] ** 0.5 < 0.03 * spread
    assert error["Q4_K"] ** 0.5 < 0.10 * spread


@pytest.mark.parametrize("kind", ggml.KINDS)
def test_rows_are_rounded_apart(kind: str) -> None:
    values, weights = matrix(), np.linspace(0.1, 2, 512, dtype=np.float32)
    whole = ggml.quantize(values, kind, weights)
    parts = [ggml.quantize(values[first : first + 5], kind, weights) for first in range(0, 24, 5)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    # every other column of a wider matrix: no contiguous rows
    wide = np.repeat(values, 2, axis=1)
    np.testing.assert_array_equal(ggml.quantize(wide[:, ::2], kind, weights), whole)


@pytest.mark.parametrize("kind", ggml.KINDS)
def test_weights_lower_the_weighted_error(kind: str) -> None:
    values = np.random.default_rng(5).standard_normal((32, 512), np.float32)
    weights = np.exp(np.random.default_rng(6).standard_normal(512) * 2).astype(np.float32)
    plain, weighed = ggml.quantize(values, kind), ggml.quantize(values, kind, weights)
    if kind not in USES_WEIGHTS:
        np.testing.assert_array_equal(plain, weighed)
        return
    before, after = ((np.square(decoded(data, kind) - values) * weights).sum() for data in (plain, weighed))
    assert after < before * 0.95


def floats(largest: float) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.float32, (2, 256), elements=st.floats(-largest, largest, width=32))


@given(
    values=floats(4096),
    weights=arrays.arrays(np.float32, 256, elements=st.floats(0, 2.0**20, width=32)),
    kind=st.sampled_from(ggml.KINDS),
)
def test_moderate_values_are_written_as_numbers(values: np.ndarray, weights: np.ndarray, kind: str) -> None:
    for importance in (None, weights):
        assert np.isfinite(decoded(ggml.quantize(values, kind, importance), kind)).all()


@given(values=floats(2.0**127), kind=st.sampled_from(ggml.KINDS))
def test_any_values_are_written_as_numbers_or_refused(values: np.ndarray, kind: str) -> None:
    with contextlib.suppress(ValueError):
        assert np.isfinite(decoded(ggml.quantize(values, kind), kind)).all()


@pytest.mark.parametrize("kind", ggml.KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(kind: str, bad: float) -> None:
    values = matrix()
    values[5, 100] = bad
    with pytest.raises(ValueError, match="not a finite number"):
        ggml.quantize(values, kind)


@pytest.mark.parametrize(("kind", "large"), [("F16", 65520.0), ("Q8_0", 8.4e6), ("Q4_0", 6e5), ("Q6_K", 3e10)])
def test_what_does_not_fit_is_refused(kind: str, large: float) -> None:
    values = matrix()
    values[5, 100] = large
    with pytest.raises(ValueError, match=f"do not fit in {kind}"):
        ggml.quantize(values, kind)


def test_largest_half_float_fits() -> None:
    values = np.full((1, 32), 65519.0, np.float32)  # rounds to 65504
    assert ggml.quantize(values, "F16").view(np.float16).max() == 65504


@pytest.mark.parametrize(
    ("values", "importance", "named"),
    [
        (np.zeros((2, 256)), None, "float64"),
        (np.zeros(256, np.float32), None, "shape"),
        (np.zeros((2, 320), np.float32), None, "no multiple of 256"),
        (np.zeros((2, 256), np.float32), np.ones(255, np.float32), "want 256 finite weights"),
        (np.zeros((2, 256), np.float32), np.full(256, np.nan, np.float32), "finite weights"),
    ],
)
def test_what_the_kernel_would_misread_is_refused(values: np.ndarray, importance: np.ndarray, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ggml.quantize(values, "Q4_K", importance)


def test_a_library_without_the_kernels_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stop, match=r"ggml_quantize_chunk.*xllamacpp") as stopped:
        ggml.typed(Path(ANOTHER))
    assert stopped.value.code == UNAVAILABLE
    (tmp_path / "xllamacpp.abi3.so").write_text("no library")
    with pytest.raises(Stop, match=r"cannot quantise.*xllamacpp") as stopped:
        ggml.typed(tmp_path / "xllamacpp.abi3.so")
    assert stopped.value.code == UNAVAILABLE
    monkeypatch.setattr(ggml, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(Stop, match="a_package_that_is_not_there") as stopped:
        ggml.library.__wrapped__()
    assert stopped.value.code == UNAVAILABLE


def test_types_of_another_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(ggml.library()._name)
    sizes = dict(gguf.GGML_QUANT_SIZES) | {gguf.GGMLQuantizationType.Q4_K: (256, 145)}
    monkeypatch.setattr(gguf, "GGML_QUANT_SIZES", sizes)
    with pytest.raises(Stop, match=r"q4_K with 144 bytes.*Q4_K with 145") as stopped:
        ggml.typed(path)
    assert stopped.value.code == UNAVAILABLE
