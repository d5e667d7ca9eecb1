import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_gemma
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from potstill import compressed, models
from potstill.compressed import CompressedReport
from potstill.stop import Stop

REPO = Path(__file__).resolve().parents[2]
GATE, DOWN = "model.layers.1.mlp.gate_proj", "model.layers.0.mlp.down_proj"
CONFIG = {"max_position_embeddings": 64, "vocab_size": 100}


@pytest.fixture(scope="module")
def prompts(tiny: Path) -> list[list[int]]:
    tokenizer = models.load_tokenizer(tiny)
    return [[2, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in tiny_gemma.sentences(16)]


@pytest.fixture(scope="module")
def made(
    tiny: Path, prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, CompressedReport]]:
    """Every scheme's folder of the tiny model, and its report."""
    parent = tmp_path_factory.mktemp("compressed")
    return {s: (parent / s, compressed.write(tiny, parent / s, s, prompts)) for s in compressed.SCHEMES}


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def unpacked(tensors: dict[str, torch.Tensor], module: str, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels and scales of a packed matrix: `bits` each, lowest first in an int32, offset by half their range."""
    words = tensors[f"{module}.weight_packed"].numpy().view(np.uint32)
    fields = (words[:, :, None] >> np.arange(0, 32, bits, dtype=np.uint32)) & (2**bits - 1)
    levels = fields.reshape(len(words), -1).astype(np.float32) - 2 ** (bits - 1)
    rows, columns = tensors[f"{module}.weight_shape"].tolist()
    return levels[:rows, :columns], tensors[f"{module}.weight_scale"].float().numpy()


def logits(folder: Path, rows: list[list[int]]) -> torch.Tensor:
    model, _ = models.load_folder(folder, torch.float32)
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([ids])).logits[0].float() for ids in rows])


def test_a_compressed_folder_is_whole(tiny: Path, made: dict[str, tuple[Path, CompressedReport]]) -> None:
    original = json.loads((tiny / "config.json").read_text())
    for scheme, (folder, report) in made.items():
        kept = [n for n in (*models.TOKENIZER_FILES, "generation_config.json") if (tiny / n).is_file()]
        assert set(hashes(folder)) == {*kept, "config.json", "model.safetensors", "compression.json"}
        assert all((folder / n).read_bytes() == (tiny / n).read_bytes() for n in kept)
        # what potstill.manifest lets into a package: no recipe.yaml, no log
        assert {Path(n).suffix for n in hashes(folder)} <= {".safetensors", ".json", ".jinja", ".model"}
        assert {p.stat().st_mode & 0o777 for p in (folder / "model.safetensors", folder / "config.json")} == {0o644}
        config = json.loads((folder / "config.json").read_text())
        quantisation = config.pop("quantization_config")
        assert config == {**original, "dtype": "bfloat16"}
        assert quantisation["quant_method"] == "compressed-tensors"
        assert quantisation["ignore"] == ["lm_head"]
        weights = quantisation["config_groups"]["group_0"]["weights"]
        assert (weights["num_bits"], weights["group_size"], weights["symmetric"]) == (
            *(report.bits, report.group_size),
            True,
        )
        assert json.loads((folder / "compression.json").read_text()) == report.model_dump()
        assert report.scheme == scheme
    # nothing beside the folders: no log, no recipe, nothing half made
    assert {p.name for p in folder.parent.iterdir()} == set(compressed.SCHEMES)


def test_the_report_counts_what_is_in_the_file(
    made: dict[str, tuple[Path, CompressedReport]], prompts: list[list[int]]
) -> None:
    for scheme, (folder, report) in made.items():
        tensors = load_file(folder / "model.safetensors")
        shapes = [t.tolist() for name, t in tensors.items() if name.endswith("weight_shape")]
        assert len(shapes) == 4 * 7
        assert report.linear_values == sum(rows * columns for rows, columns in shapes)
        plain = [t for name, t in tensors.items() if name.endswith(".weight")]
        assert {t.dtype for t in plain} == {torch.bfloat16}
        assert report.other_values == sum(t.numel() for t in plain)
        assert report.weights_bytes == (folder / "model.safetensors").stat().st_size
        calibrated = (16, sum(map(len, prompts))) if scheme == "awq" else (0, 0)
        assert (report.calibration_rows, report.calibration_tokens) == calibrated


def test_rounding_is_to_the_nearest_level(tiny: Path, made: dict[str, tuple[Path, CompressedReport]]) -> None:
    stored = load_file(tiny / "model.safetensors")
    for scheme, bits in (("rtn-w4a16", 4), ("rtn-w8a16", 8)):
        tensors = load_file(made[scheme][0] / "model.safetensors")
        for module in (GATE, DOWN):
            weight = stored[f"{module}.weight"].numpy()
            levels, scales = unpacked(tensors, module, bits)
            wide = np.repeat(scales, weight.shape[1] // scales.shape[1], axis=1)
            # symmetric: the largest magnitude of a group is half the range, less what clipping it saves
            groups = np.abs(weight).reshape(*scales.shape, -1).max(axis=2)
            ratio = scales / (groups / ((2**bits - 1) / 2))
            assert ratio.max() < 1.005
            assert ratio.min() > (0.995 if bits == 8 else 0.79)
            lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
            np.testing.assert_array_equal(levels, np.round(weight / wide).clip(lowest, highest))
        embedding = tensors["model.embed_tokens.weight"]
        assert torch.equal(embedding, stored["model.embed_tokens.weight"].bfloat16())


def test_awq_moves_scale_from_norms_into_the_matrices(
    tiny: Path, made: dict[str, tuple[Path, CompressedReport]]
) -> None:
    stored, tensors = load_file(tiny / "model.safetensors"), load_file(made["awq"][0] / "model.safetensors")
    norm = "model.layers.1.pre_feedforward_layernorm.weight"
    factor = ((1 + stored[norm]) / (1 + tensors[norm].float())).numpy()
    assert np.abs(np.log(factor)).max() > 0.05
    levels, scales = unpacked(tensors, GATE, 4)
    restored = levels * np.repeat(scales, 32, axis=1) / factor
    weight = stored[f"{GATE}.weight"].numpy()
    assert np.abs(restored - weight).mean() < 0.1 * np.abs(weight).mean()
    # a norm that feeds q, k and v is left alone: Gemma 3 normalises what comes out of them
    other = "model.layers.1.input_layernorm.weight"
    assert torch.equal(tensors[other], stored[other].bfloat16())


def test_transformers_reads_it_back_and_answers_alike(
    tiny: Path, made: dict[str, tuple[Path, CompressedReport]], prompts: list[list[int]]
) -> None:
    wanted = logits(tiny, prompts).log_softmax(-1)
    divergence = {}
    for scheme, (folder, _) in made.items():
        found = logits(folder, prompts).log_softmax(-1)
        divergence[scheme] = float((wanted.exp() * (wanted - found)).sum(-1).mean())
    # a random model is as hard to round as any: what a level costs shows
    assert divergence["rtn-w8a16"] < 0.01 < divergence["rtn-w4a16"] < 1
    assert divergence["rtn-w8a16"] < divergence["awq"] < 1


def test_the_same_input_gives_the_same_bytes(
    tiny: Path, made: dict[str, tuple[Path, CompressedReport]], prompts: list[list[int]], tmp_path: Path
) -> None:
    compressed.write(tiny, tmp_path / "again", "awq", prompts)
    assert hashes(tmp_path / "again") == hashes(made["awq"][0])


@pytest.mark.parametrize(
    ("scheme", "rows", "code", "said"),
    [
        ("awq", [], 65, "no prompts"),
        ("awq", [[2, 5], []], 65, "prompt 1 has 0 tokens"),
        ("awq", [[2] * 1025], 65, "1025 tokens, want 1 to 1024"),
        ("awq", [[2, 100_000]], 65, "none of the model's"),
        ("gptq", [[2]], 2, "known: awq, rtn-w4a16, rtn-w8a16"),
    ],
)
def test_what_cannot_be_calibrated_on_is_refused(
    tiny: Path, tmp_path: Path, scheme: Any, rows: list[list[int]], code: int, said: str
) -> None:
    with pytest.raises(Stop, match=said) as stopped:
        compressed.write(tiny, tmp_path / "out", scheme, rows)
    assert stopped.value.code == code
    assert not list(tmp_path.iterdir())


def test_a_shape_that_groups_do_not_fill_is_refused_by_name(tmp_path: Path) -> None:
    tiny_gemma.write_tokenizer(tmp_path / "model", 420)
    model = tiny_gemma.write_model(tmp_path / "model", intermediate_size=80)
    for scheme in ("awq", "rtn-w4a16"):
        said = rf"{scheme}: tensor model\.layers\.0\.mlp\.down_proj\.weight has 80 columns.*rtn-w8a16"
        with pytest.raises(Stop, match=said) as stopped:
            compressed.write(model, tmp_path / "out", scheme, [[2, 5]])  # type: ignore[arg-type]
        assert stopped.value.code == 65


def test_what_is_no_whole_model_is_refused(
    tiny: Path, made: dict[str, tuple[Path, CompressedReport]], tmp_path: Path
) -> None:
    with pytest.raises(Stop, match=r"no readable config\.json"):
        compressed.write(tmp_path, tmp_path / "out", "rtn-w8a16", [])
    with pytest.raises(Stop, match="compressed already"):
        compressed.write(made["awq"][0], tmp_path / "out", "rtn-w8a16", [])
    with pytest.raises(Stop, match="is there already"):
        compressed.write(tiny, made["awq"][0], "awq", [[2]])


def test_a_failure_says_its_last_line_and_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    config = json.loads((tiny / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "gemma9"}))
    (model / "model.safetensors").symlink_to(tiny / "model.safetensors")
    with pytest.raises(Stop, match=r"rtn-w8a16: llmcompressor failed: \w+Error: .*gemma9") as stopped:
        compressed.write(model, tmp_path / "out", "rtn-w8a16", [])
    assert stopped.value.code == 1
    assert {p.name for p in tmp_path.iterdir()} == {"model"}


def test_a_killed_process_is_named(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dies = tmp_path / "dies"
    dies.write_text("#!/bin/sh\nkill -9 $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    with pytest.raises(Stop, match="signal 9; it may need more memory") as stopped:
        compressed.write(tiny, tmp_path / "out", "rtn-w8a16", [])
    assert stopped.value.code == 69
    assert {p.name for p in tmp_path.iterdir()} == {"dies"}


def test_it_ends_with_whoever_asked(tiny: Path, tmp_path: Path) -> None:
    job = {"whole": str(tiny), "bits": 8, "group_size": None, "smooth": False, "rows": [], "seed": 0}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "potstill.compressed_job"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        input=json.dumps(job) + "\n",  # and then nothing: the pipe is closed
        text=True,
        capture_output=True,
    )
    assert ended.returncode == 75
    assert not list(tmp_path.iterdir())


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=64), min_size=1, max_size=200), st.integers(0, 9))
def test_chosen_rows_are_some_of_the_rows_within_bounds(rows: list[list[int]], seed: int) -> None:
    chosen = compressed.choose(rows, CONFIG, seed)
    assert 1 <= len(chosen) <= min(len(rows), compressed.MAX_ROWS)
    assert sum(map(len, chosen)) <= compressed.MAX_TOKENS
    left = list(rows)
    for ids in chosen:
        left.remove(ids)
    assert compressed.choose(rows, CONFIG, seed) == chosen


def test_one_long_row_is_better_than_none() -> None:
    long = {"max_position_embeddings": 20_000, "vocab_size": 100}
    assert compressed.choose([[1] * 10_000, [2] * 10_000], long, 0) in ([[1] * 10_000], [[2] * 10_000])
