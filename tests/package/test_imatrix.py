import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_gemma
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from potstill import imatrix, models
from potstill.gguf import write_gguf
from potstill.gguf_types import WEIGHTED
from potstill.stop import Stop


@pytest.fixture(scope="module")
def prompts(tiny: Path) -> list[list[int]]:
    tokenizer = models.load_tokenizer(tiny)
    return [tokenizer(text)["input_ids"] for text in tiny_gemma.sentences(12, seed=2)]


@pytest.fixture(scope="module")
def importance(tiny: Path, prompts: list[list[int]]) -> dict[str, np.ndarray]:
    return imatrix.collect(tiny, prompts)


def test_every_matrix_of_the_layers_is_measured(importance: dict, tiny: Path) -> None:
    parts = {"attn_q": 64, "attn_k": 64, "attn_v": 64, "attn_output": 128, "ffn_gate": 64, "ffn_up": 64, "ffn_down": 96}
    wanted = {f"blk.{i}.{part}.weight": columns for i in range(4) for part, columns in parts.items()}
    assert {name: len(values) for name, values in importance.items()} == wanted
    assert all(values.dtype == np.float32 and (values > 0).all() for values in importance.values())
    # the three read the same input
    np.testing.assert_array_equal(importance["blk.2.attn_q.weight"], importance["blk.2.attn_v.weight"])


def test_first_layer_is_as_computed_by_hand(importance: dict, tiny: Path, prompts: list[list[int]]) -> None:
    weights = {name: w.double().numpy() for name, w in load_file(tiny / "model.safetensors").items()}
    ids = [i for row in prompts for i in row]
    # Gemma scales embeddings by the root of their width; RMSNorm, then 1 + weight
    embedded = weights["model.embed_tokens.weight"][ids] * np.sqrt(64.0)
    normed = embedded / np.sqrt(np.square(embedded).mean(axis=1, keepdims=True) + 1e-6)
    inputs = normed * (1 + weights["model.layers.0.input_layernorm.weight"])
    np.testing.assert_allclose(importance["blk.0.attn_k.weight"], np.square(inputs).mean(axis=0), rtol=1e-5)


def test_prompts_count_by_their_tokens(tiny: Path, prompts: list[list[int]]) -> None:
    one, two = prompts[0], prompts[1]
    both, first, second = (imatrix.collect(tiny, rows) for rows in ([one, two], [one], [two]))
    for name, values in both.items():
        mean = (first[name] * len(one) + second[name] * len(two)) / (len(one) + len(two))
        np.testing.assert_allclose(values, mean, rtol=1e-4)
    # what is left out beyond the limit changes nothing
    limited = imatrix.collect(tiny, prompts, limit=4)
    for name, values in imatrix.collect(tiny, prompts[::3]).items():
        np.testing.assert_array_equal(limited[name], values)


@given(count=st.integers(0, 300), limit=st.integers(1, 100))
def test_chosen_prompts_are_spread_evenly(count: int, limit: int) -> None:
    found = [row[0] for row in imatrix.chosen([[i] for i in range(count)], limit)]
    assert len(found) == min(count, limit)
    gaps = {b - a for a, b in zip(found, [*found[1:], count], strict=True)} if found else set()
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
    assert found[:1] == [0] * bool(count)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(1, 500))
def test_chosen_prompts_have_no_more_tokens_than_may_be_read(lengths: list[int], tokens: int) -> None:
    found = imatrix.chosen([[0] * length for length in lengths], tokens=tokens)
    assert found
    assert len(found) == 1 or sum(map(len, found)) <= tokens
    more = imatrix.chosen([[0] * length for length in lengths], tokens=tokens + 50)
    assert len(more) >= len(found)


@pytest.mark.parametrize("file_type", WEIGHTED)
def test_weighted_error_falls(tiny: Path, importance: dict, tmp_path: Path, file_type: str) -> None:
    stored = load_file(tiny / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, 4)
    original = {names.get_name(name, try_suffixes=(".weight",)): w.numpy() for name, w in stored.items()}
    errors = []
    for i, weights in enumerate((None, importance)):
        report = write_gguf(tiny, tmp_path / f"{i}.gguf", file_type, importance=weights)
        decoded = {
            t.name: (gguf.quants.dequantize(t.data, t.tensor_type), t.tensor_type.name)
            for t in gguf.GGUFReader(tmp_path / f"{i}.gguf").tensors
        }
        used = {name for name in importance if decoded[name][1] != "Q8_0"}
        assert report.weighted == (len(used) if weights else 0)
        errors.append({n: float((np.square(decoded[n][0] - original[n]) * importance[n]).sum()) for n in used})
    plain, weighed = errors
    # no row of this model is a multiple of 256, so in a Q6_K file all has eight bits, which take no weights
    assert bool(plain) == (file_type != "Q6_K")
    for name, error in weighed.items():
        assert error < plain[name], name


def test_what_cannot_be_measured_is_refused(tiny: Path, tmp_path: Path, prompts: list[list[int]]) -> None:
    for rows, named in (([], "needs prompts"), ([[]], "needs prompts"), ([[2, 100_000]], "token id 100000")):
        with pytest.raises(Stop, match=named) as stopped:
            imatrix.collect(tiny, rows)
        assert stopped.value.code == 65
    with pytest.raises(Stop, match="is not there"):
        imatrix.collect(tmp_path / "nowhere", prompts)
    folder = shutil.copytree(tiny, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] *= 1e38
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Stop, match=r"blk\.1\.ffn_down\.weight is not finite") as stopped:
        imatrix.collect(folder, prompts[:1])
    assert stopped.value.code == 65
