import shutil
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_gemma
import torch
from alike import assert_answers_alike
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from potstill import gguf as writing
from potstill import headers, imatrix, llama, models
from potstill.gguf import write_gguf
from potstill.gguf_types import FILE_TYPES, WEIGHTED, tensor_types
from potstill.stop import Stop

EMBEDDING = "token_embd.weight"
# rows of 256, so that there are K-quants; 8 layers, so that the first of them get more bits with an importance matrix
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 8, "head_dim": 64}
WIDE |= {"query_pre_attn_scalar": 64, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2}
WIDE["layer_types"] = WIDE["layer_types"][:8]


@pytest.fixture(scope="module")
def wide(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gemma.write_model(shutil.copytree(tiny, tmp_path_factory.mktemp("wide") / "model"), seed=4, **WIDE)


@pytest.fixture(scope="module")
def importance(wide: Path) -> dict[str, np.ndarray]:
    tokenizer = models.load_tokenizer(wide)
    return imatrix.collect(wide, [tokenizer(text)["input_ids"] for text in tiny_gemma.sentences(8, seed=2)])


# with an importance matrix only what can use it, as the bytes are the same otherwise
KINDS = [(kind, weighted) for kind in FILE_TYPES for weighted in (False, True) if kind in WEIGHTED or not weighted]


@pytest.mark.parametrize(("file_type", "weighted"), KINDS)
def test_llama_cpp_answers_as_the_rounded_weights_do(
    wide: Path, importance: dict, tmp_path: Path, file_type: str, weighted: bool
) -> None:
    path, folder = tmp_path / "m.gguf", shutil.copytree(wide, tmp_path / "model")
    report = write_gguf(wide, path, file_type, importance=importance if weighted else None)
    _, tensors = headers.read_gguf(path)
    assert report.tensors == dict(Counter(t.dtype for t in tensors))
    assert report.nbytes == path.stat().st_size
    # read back by the gguf library, as weights of a Hugging Face model
    decoded = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, 8)
    weights = load_file(wide / "model.safetensors")
    for name, weight in weights.items():
        values = torch.from_numpy(decoded[names.get_name(name, try_suffixes=(".weight",))].copy())
        weights[name] = values - float(name.endswith("norm.weight"))
        # a step of four bits is about a quarter of the spread of the weights, and the error a twelfth
        assert (weights[name] - weight).norm() <= 0.12 * weight.norm(), name
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    # llama.cpp rounds activations to eight bits where it multiplies with rounded weights
    assert_answers_alike(folder, path, near_tie=0.1 if file_type in ("F32", "F16") else 1.0, count=4, tokens=12)


def test_an_importance_matrix_is_recorded_and_only_where_it_is_used(
    wide: Path, importance: dict, tmp_path: Path
) -> None:
    keys = {"quantize.imatrix.dataset": "train.v1", "quantize.imatrix.entries_count": 56}
    keys["quantize.imatrix.chunks_count"] = 8
    for file_type in FILE_TYPES:
        given = {"importance": importance, "calibration": ("train.v1", 8)}
        plain, weighed = (
            write_gguf(wide, tmp_path / f"{i}.gguf", file_type, name="m", **options)
            for i, options in enumerate([{}, given])
        )
        values, _ = headers.read_gguf(tmp_path / "1.gguf")
        assert {key: values.get(key) for key in keys} == (keys if file_type in WEIGHTED else dict.fromkeys(keys)), (
            file_type
        )
        same = (tmp_path / "0.gguf").read_bytes() == (tmp_path / "1.gguf").read_bytes()
        assert same == (file_type not in WEIGHTED)
        assert plain.weighted == 0
        # in a Q4_K_M file a row of 256 values never falls back, and all but the embedding is weighed
        assert weighed.weighted == (56 if file_type in WEIGHTED else 0)
        assert plain.fallbacks == weighed.fallbacks == 0


def test_an_importance_matrix_of_another_model_is_refused(wide: Path, importance: dict, tmp_path: Path) -> None:
    short = importance | {"blk.3.ffn_up.weight": np.ones(64, np.float32)}
    for bad, named in ((short, r"blk\.3\.ffn_up.*64 weights, the model 256"), ({"x": np.ones(2)}, "no such tensor")):
        with pytest.raises(Stop, match=named) as stopped:
            write_gguf(wide, tmp_path / "m.gguf", "Q4_0", importance=bad)
        assert stopped.value.code == 65
    assert not (tmp_path / "m.gguf").exists()


def gemma_shapes(hidden: int, intermediate: int, heads: int, layers: int) -> dict[str, list[int]]:
    """Of the tensors that are rounded, and one norm; one key and value head of 256."""
    rows = {"attn_q": [heads * 256, hidden], "attn_k": [256, hidden], "attn_v": [256, hidden]}
    rows |= {"attn_output": [hidden, heads * 256], "ffn_gate": [intermediate, hidden]}
    rows |= {"ffn_up": [intermediate, hidden], "ffn_down": [hidden, intermediate], "attn_norm": [hidden]}
    blocks = {f"blk.{i}.{part}.weight": shape for i in range(layers) for part, shape in rows.items()}
    return {EMBEDDING: [262_144, hidden], **blocks}


def test_types_are_llama_cpps_for_270m() -> None:
    # 640 is no multiple of 256, 1024 and 2048 are; 90 is what llama-quantize says of Gemma 3 270M
    types, fallbacks = tensor_types(gemma_shapes(640, 2048, 4, 18), "Q4_K_M", weighted=False)
    assert fallbacks == 90
    assert types[EMBEDDING] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types["blk.9.attn_output.weight"] == "Q4_K"
    more = {0, 1, 4, 7, 10, 13, 15, 16, 17}
    for layer in range(18):
        assert types[f"blk.{layer}.attn_v.weight"] == ("Q8_0" if layer in more else "Q5_0"), layer
        assert types[f"blk.{layer}.ffn_down.weight"] == ("Q6_K" if layer in more else "Q4_K"), layer
    types, fallbacks = tensor_types(gemma_shapes(640, 2048, 4, 18), "Q4_0", weighted=True)
    assert fallbacks == 1
    assert types[EMBEDDING] == "Q8_0"
    assert [types[f"blk.{i}.ffn_down.weight"] for i in (0, 1, 2)] == ["Q4_1", "Q4_1", "Q4_0"]
    types, _ = tensor_types(gemma_shapes(640, 2048, 4, 18), "Q5_0", weighted=True)
    assert [types[f"blk.{i}.ffn_down.weight"] for i in (1, 2)] == ["Q5_1", "Q5_0"]


def test_types_of_a_wider_model() -> None:
    shapes = gemma_shapes(1024, 4096, 4, 26)
    for file_type, head in (("Q4_0", "Q6_K"), ("Q5_0", "Q6_K"), ("Q4_K_M", "Q6_K"), ("Q6_K", "Q6_K"), ("Q8_0", "Q8_0")):
        types, fallbacks = tensor_types(shapes, file_type, weighted=False)
        assert (types[EMBEDDING], fallbacks) == (head, 0)
        # with a head of its own the embedding is a matrix as any other
        untied, _ = tensor_types({**shapes, "output.weight": [262_144, 1024]}, file_type, weighted=False)
        default = {"Q4_K_M": "Q4_K"}.get(file_type, file_type)
        assert (untied[EMBEDDING], untied["output.weight"]) == (default, head)


@given(
    shape=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    file_type=st.sampled_from(FILE_TYPES),
    weighted=st.booleans(),
    layers=st.integers(1, 70),
)
def test_every_row_is_whole_blocks(shape: tuple[int, int], file_type: str, weighted: bool, layers: int) -> None:
    shapes = gemma_shapes(shape[0], shape[1], 1, layers)
    types, fallbacks = tensor_types(shapes, file_type, weighted)
    assert types.keys() == shapes.keys()
    for name, kind in types.items():
        assert shapes[name][-1] % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0] == 0, name
    assert fallbacks == 0 or file_type not in ("F32", "F16", "BF16")


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_same_input_same_bytes(
    wide: Path, importance: dict, tmp_path: Path, file_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(wide, tmp_path / "one.gguf", file_type, name="x", importance=importance)
    # nor does it matter how many threads take how many rows each
    monkeypatch.setattr(writing, "MOST_THREADS", 1)
    monkeypatch.setattr(writing, "CHUNK", 10_000)
    write_gguf(wide, tmp_path / "two.gguf", file_type, name="x", importance=importance)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_a_request_that_names_no_sampling_is_answered_greedily(wide: Path, tmp_path: Path) -> None:
    write_gguf(wide, tmp_path / "m.gguf", "F16")
    ids = models.load_tokenizer(wide)(tiny_gemma.sentences(1, seed=9)[0])["input_ids"]
    with llama.serve(tmp_path / "m.gguf", context=256, threads=1) as server:
        greedy = next(llama.generate(server, [ids], 16)).ids
        body = {"prompt": ids, "n_predict": 16, "return_tokens": True, "cache_prompt": False}
        for seed in range(4):
            assert llama.request(server, "/completion", body | {"seed": seed})["tokens"] == greedy
        # the model does say other things when it is asked to
        body |= {"temperature": 3.0, "top_k": 0, "seed": 1}
        assert llama.request(server, "/completion", body)["tokens"] != greedy


@pytest.mark.parametrize("period", [2, 4, 5])
def test_llama_cpp_slides_the_same_layers(tiny: Path, tmp_path: Path, period: int) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    kinds = ["full_attention" if i % period == period - 1 else "sliding_attention" for i in range(7)]
    tiny_gemma.write_model(folder, seed=3, num_hidden_layers=7, layer_types=kinds)
    write_gguf(folder, tmp_path / "m.gguf", "F32")
    assert_answers_alike(folder, tmp_path / "m.gguf", near_tie=0.1)


def test_the_shape_of_gemma_3_270m_answers_alike(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    shape = {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 64}
    tiny_gemma.write_model(folder, **shape)
    for file_type, near_tie in (("F16", 0.1), ("Q8_0", 1.0)):
        write_gguf(folder, tmp_path / f"{file_type}.gguf", file_type)
        assert_answers_alike(folder, tmp_path / f"{file_type}.gguf", near_tie, count=4, tokens=8)
