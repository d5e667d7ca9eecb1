import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from potstill import headers, models
from potstill.gguf import write_gguf
from potstill.gguf_metadata import Provenance, sliding_period
from potstill.gguf_types import FILE_TYPES
from potstill.stop import Stop

# a handful of names by hand: the writer takes its names from the gguf library's table
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.layers.2.self_attn.o_proj.weight": "blk.2.attn_output.weight",
    "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    "model.layers.3.self_attn.q_norm.weight": "blk.3.attn_q_norm.weight",
    "model.layers.1.post_feedforward_layernorm.weight": "blk.1.post_ffw_norm.weight",
    "model.norm.weight": "output_norm.weight",
}


def written(path: Path) -> dict[str, np.ndarray]:
    """Raw bytes of every tensor, by name."""
    return {t.name: np.asarray(t.data).view(np.uint8).ravel() for t in gguf.GGUFReader(path).tensors}


def q8_0(values: torch.Tensor) -> np.ndarray:
    """Blocks of 32: the largest magnitude over 127 as a half float, then 32 signed bytes, rounded half away from 0."""
    rows = values.float().numpy().reshape(-1, 32)
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    whole = rows * np.where(scale == 0, 0, 1 / scale)
    signed = (np.sign(whole) * np.floor(np.abs(whole) + 0.5)).astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), signed.view(np.uint8)], axis=1).ravel()


def q4_0(values: torch.Tensor) -> np.ndarray:
    """Blocks of 32: the value of largest magnitude over -8 as a half float, then 16 bytes of two 4-bit steps."""
    rows = values.float().numpy().reshape(-1, 32)
    scale = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1) / np.float32(-8)
    steps = np.trunc(rows * np.where(scale == 0, 0, 1 / scale) + np.float32(8.5)).clip(0, 15).astype(np.uint8)
    pairs = steps[:, :16] | steps[:, 16:] << 4
    return np.concatenate([scale.astype(np.float16).view(np.uint8), pairs], axis=1).ravel()


def q5_0(values: torch.Tensor) -> np.ndarray:
    """As Q4_0 with 32 steps: the fifth bits of a block come before its 16 bytes, as one 32-bit number."""
    rows = values.float().numpy().reshape(-1, 32)
    scale = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1) / np.float32(-16)
    steps = np.trunc(rows * np.where(scale == 0, 0, 1 / scale) + np.float32(16.5)).clip(0, 31).astype(np.uint8)
    high = np.packbits(steps >> 4, axis=1, bitorder="little")
    pairs = (steps[:, :16] & 15) | (steps[:, 16:] & 15) << 4
    return np.concatenate([scale.astype(np.float16).view(np.uint8), high, pairs], axis=1).ravel()


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_tensors_are_the_models_bit_by_bit(tiny: Path, tmp_path: Path, file_type: str) -> None:
    write_gguf(tiny, tmp_path / "m.gguf", file_type)
    found, stored = written(tmp_path / "m.gguf"), load_file(tiny / "model.safetensors")
    assert len(found) == len(stored)
    encode = {
        "F32": lambda w: w.numpy(),
        "F16": lambda w: w.half().numpy(),
        "BF16": lambda w: w.bfloat16().view(torch.int16).numpy(),
        "Q8_0": q8_0,
        # no row here is a multiple of 256: six bits become eight, four become five
        "Q6_K": q8_0,
        "Q5_0": q5_0,
        "Q4_K_M": q5_0,
        "Q4_0": q4_0,
    }[file_type]
    for source, target in NAMES.items():
        norm = source.endswith("norm.weight")
        # few bits in the embedding, which is the head too, would cost more than they save
        head = source == "model.embed_tokens.weight" and file_type in ("Q6_K", "Q5_0", "Q4_K_M", "Q4_0")
        wanted = (stored[source] + 1).numpy() if norm else (q8_0 if head else encode)(stored[source])
        np.testing.assert_array_equal(found[target], wanted.view(np.uint8).ravel(), err_msg=target)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_halves_are_read_as_they_are(tiny: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    halves = {name: weight.to(dtype) for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    write_gguf(folder, tmp_path / "m.gguf", "F32")
    found = written(tmp_path / "m.gguf")
    for source, target in NAMES.items():
        wanted = halves[source].float() + source.endswith("norm.weight")
        np.testing.assert_array_equal(found[target], wanted.numpy().view(np.uint8).ravel(), err_msg=target)


def test_metadata_says_what_the_config_says(tiny: Path, tmp_path: Path) -> None:
    write_gguf(tiny, tmp_path / "m.gguf", "Q8_0", name="batfit", licence="apache-2.0")
    values, tensors = headers.read_gguf(tmp_path / "m.gguf")
    config = json.loads((tiny / "config.json").read_text())
    tokenizer = models.load_tokenizer(tiny)
    wanted = {
        "general.architecture": "gemma3",
        "general.name": "batfit",
        "general.license": "apache-2.0",
        "general.file_type": 7,
        "gemma3.context_length": 1024,
        "gemma3.block_count": 4,
        "gemma3.attention.head_count": 4,
        "gemma3.attention.head_count_kv": 1,
        "gemma3.attention.key_length": 32,
        "gemma3.attention.value_length": 32,
        "gemma3.attention.sliding_window": 16,
        "gemma3.rope.freq_base": 1_000_000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.eot_token_id": tokenizer.convert_tokens_to_ids("<end_of_turn>"),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }
    assert {key: values.get(key) for key in wanted} == wanted
    assert len(values["tokenizer.ggml.tokens"]) == config["vocab_size"]
    types = dict(zip(values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"], strict=True))
    # normal 1, unknown 2, control 3, user-defined 4, byte 6; llama.cpp compares user-defined tokens with plain spaces
    assert [types[t] for t in ("<unk>", "<bos>", "<start_of_turn>", "\n\n", "  ", "<0x0A>", "bat")] == [
        3,
        3,
        3,
        4,
        4,
        6,
        1,
    ]
    assert all(t.dtype == ("F32" if len(t.shape) == 1 else "Q8_0") for t in tensors)


def test_provenance_is_written_where_it_is_known(tiny: Path, tmp_path: Path) -> None:
    known = Provenance(
        **{"finetune": "batfit", "version": "batfit-nano-1", "base_name": "gemma-3-270m-it", "base_version": "ac82b4e"},
        **{"base_url": "https://huggingface.co/google/gemma-3-270m-it", "dataset_name": "batfit"},
        **{"dataset_version": "v3", "licence_link": "https://ai.google.dev/gemma/terms"},
    )
    write_gguf(tiny, tmp_path / "m.gguf", "F16", name="batfit", licence="gemma", source=known)
    size = sum(weight.numel() for weight in load_file(tiny / "model.safetensors").values())
    values, _ = headers.read_gguf(tmp_path / "m.gguf")
    wanted = {
        "general.name": "batfit",
        "general.license": "gemma",
        "general.license.link": "https://ai.google.dev/gemma/terms",
        "general.finetune": "batfit",
        "general.version": "batfit-nano-1",
        "general.base_model.count": 1,
        "general.base_model.0.name": "gemma-3-270m-it",
        "general.base_model.0.version": "ac82b4e",
        "general.base_model.0.repo_url": "https://huggingface.co/google/gemma-3-270m-it",
        "general.dataset.count": 1,
        "general.dataset.0.name": "batfit",
        "general.dataset.0.version": "v3",
        "general.quantized_by": "Potstill",
        "general.size_label": f"{size / 1000:.0f}K",
        "general.sampling.temp": 0.0,
        "general.sampling.top_k": 1,
    }
    assert {key: values.get(key) for key in wanted} == wanted
    write_gguf(tiny, tmp_path / "m.gguf", "F16", source=Provenance(quantized_by=None))
    values, _ = headers.read_gguf(tmp_path / "m.gguf")
    mine = {key for key in values if key.startswith("general.")}
    assert mine == {f"general.{key}" for key in ("architecture", "type", "name", "size_label", "file_type")} | {
        *(f"general.{key}" for key in ("quantization_version", "sampling.temp", "sampling.top_k"))
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"query_pre_attn_scalar": 64}, "query_pre_attn_scalar"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "rope_scaling"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 2}, "layer_types"),
        ({"layer_types": ["full_attention"] * 4}, "layer_types"),
        ({"num_hidden_layers": 5, "layer_types": ["sliding_attention"] * 5}, "54 tensors, want 67"),
    ],
)
def test_a_model_llama_cpp_would_compute_otherwise_is_refused(
    tiny: Path, tmp_path: Path, change: dict, named: str
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Stop, match=named) as stopped:
        write_gguf(folder, tmp_path / "out/m.gguf", "F16")
    assert stopped.value.code == 65
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_tensor_too_large_for_f16_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = 70_000.0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Stop, match=r"layers\.1\.mlp\.up_proj"):
        write_gguf(folder, tmp_path / "m.gguf", "F16")
    write_gguf(folder, tmp_path / "m.gguf", "BF16")


@pytest.mark.parametrize("file_type", ["BF16", "Q4_0"])
def test_a_weight_that_is_no_number_is_named(tiny: Path, tmp_path: Path, file_type: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.gate_proj.weight"][3, 1] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Stop, match=r"layers\.2\.mlp\.gate_proj.*not a finite number") as stopped:
        write_gguf(folder, tmp_path / "out/m.gguf", file_type)
    assert stopped.value.code == 65
    assert not list((tmp_path / "out").iterdir())


def test_a_broken_weights_file_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(Stop, match=r"model\.safetensors is no whole safetensors file") as stopped:
        write_gguf(folder, tmp_path / "m.gguf", "F16")
    assert stopped.value.code == 65
    save_file({name: w.double() for name, w in load_file(tiny / "model.safetensors").items()}, path, {"format": "pt"})
    with pytest.raises(Stop, match=r"is F64; want one of F32, F16, BF16"):
        write_gguf(folder, tmp_path / "m.gguf", "F16")


def test_an_unknown_file_type_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop, match="Q3_K"):
        write_gguf(tiny, tmp_path / "m.gguf", "Q3_K")


def test_sliding_period_reads_both_forms_of_config() -> None:
    sliding, full = "sliding_attention", "full_attention"
    assert sliding_period({"num_hidden_layers": 18, "layer_types": ([sliding] * 5 + [full]) * 3}) == 6
    assert sliding_period({"num_hidden_layers": 4, "layer_types": [sliding, full] * 2}) == 2
    assert sliding_period({"num_hidden_layers": 8, "layer_types": [sliding] * 8}) > 8
    assert sliding_period({"num_hidden_layers": 8, "sliding_window_pattern": 4}) == 4
