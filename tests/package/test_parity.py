import json
from pathlib import Path

import pytest
import torch

from potstill import answers, manifest, models, package, parity_engines, prompt, runs, sealing, snapshots, workload
from potstill import parity as records
from potstill.records import Prediction, read_jsonl, write_jsonl
from potstill.stop import Stop
from scripts.package import parity

RUN = "batfit-tiny"
LIMIT = "artifacts={gguf-f16: {min_same_json: 0.75}}"


def read(folder: Path) -> records.Parity:
    return records.Parity.model_validate_json((folder / "reports" / RUN / "parity.json").read_text())


def write_merged(folder: Path, change: str = "") -> list[Prediction]:
    """reports/<run>/predictions.jsonl as eval.generate writes it, by transformers."""
    record, job = runs.read(RUN), workload.load("batfit")
    model, tokenizer = models.load_merged(RUN, torch.float32)
    examples = list(snapshots.read(record.snapshots["test"]))
    prompts = [prompt.prompt_ids(e.system, e.prompt, tokenizer) for e in examples]
    rows = [
        answers.predict_row(
            job,
            **{"id": examples[g.index].id, "task": "t1_parse", "latency_ms": g.latency_ms},
            **{"output": tokenizer.decode(g.ids, skip_special_tokens=True) + change, "backend": "transformers merged"},
            **{"prompt_tokens": len(prompts[g.index]), "completion_tokens": len(g.ids)},
            finish_reason=g.finish_reason,
        )
        for g in models.generate(model, tokenizer, prompts, job.settings.tasks["t1_parse"].max_new_tokens)
    ]
    write_jsonl(folder / "reports" / RUN / "predictions.jsonl", rows)
    return rows


def test_parity_measures_every_artifact_against_the_merged_model(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_merged(copied)
    out = copied / "reports" / RUN
    code = parity.main(["-r", RUN, "-o", LIMIT])
    result = read(copied).artifacts["gguf-f16"]
    # random weights part at the first near tie, so most answers and not all of them are the same
    assert result.n == 12
    assert result.same_output >= 0.5
    assert result.same_json >= result.same_output
    assert code == (0 if result.same_json >= 0.75 else 100)
    assert result.same_prompt_ids == 1.0
    assert len(result.divergences) == round((1 - result.same_output) * 12)
    assert all(found.gap is not None for found in result.divergences)
    assert result.forced is not None
    assert (result.forced.rows, result.forced.tokens_seen) == (12, parity_engines.TOP)
    assert result.forced.top1 > 0.95
    assert 0 <= result.forced.kl < result.forced.kl_max < 0.1
    assert (result.peak_bytes or 0) >= 0
    path = package.folder(RUN) / "gguf-f16" / package.gguf_name(RUN, "gguf-f16")
    listed = json.loads((package.folder(RUN) / "manifest.json").read_text())
    assert result.sha256 == listed["files"][f"gguf-f16/{path.name}"]["sha256"]
    assert min(result.decode_tokens_per_s, result.prompt_tokens_per_s, result.load_ms, result.answers_per_s) > 0
    own = list(read_jsonl(out / "predictions.gguf-f16.jsonl", Prediction))
    assert [p.id for p in own] == [f"test-{i}" for i in range(12)]
    assert {p.backend for p in own} == {"llama.cpp gguf-f16"}
    assert manifest.verify(package.folder(RUN)) == []
    assert "gguf-f16" in capsys.readouterr().out


def test_an_artifact_below_its_limit_leaves_the_package_and_exits_100(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_merged(copied, change=' {"said": 1}')
    before = manifest.read(package.folder(RUN))
    assert before is not None
    assert parity.main(["-r", RUN, "-o", LIMIT]) == 100
    said = capsys.readouterr().out
    assert "gguf-f16: the same JSON on 0.0% of the rows, want 75.0%" in said
    found = read(copied)
    result = found.artifacts["gguf-f16"]
    assert not result.passed
    assert result.divergences[0].artifact is None
    assert found.rejected == ["gguf-f16"]
    # what is left is a whole package, and the artifact lies beside it
    assert manifest.verify(package.folder(RUN)) == []
    after = manifest.read(package.folder(RUN))
    assert after is not None
    assert set(after.runtimes) == set(before.runtimes) - {"gguf-f16"}
    # of the others no byte changed; the model card and the ML-BOM at the top tell of what is there
    of_others = {name: file for name, file in before.files.items() if "/" in name and not name.startswith("gguf-f16/")}
    assert {name: file for name, file in after.files.items() if "/" in name} == of_others
    assert (package.folder(RUN) / "README.md").read_text().count("gguf-f16") == 0
    rejected = copied / "models" / RUN / "package-rejected"
    assert {path.name for path in rejected.iterdir()} == {"gguf-f16"}
    assert list((rejected / "gguf-f16").glob("*.gguf"))
    assert [path.name for path in (copied / "models" / RUN).glob(".package*")] == [".package.lock"]
    # asked again, there is nothing to ask, and it says why
    with pytest.raises(Stop, match=r"gguf-f16: it is in .*package-rejected, over its limits"):
        parity.main(["-r", RUN, "-o", LIMIT])


def test_a_rejected_artifact_keeps_the_exit_code_until_it_is_exported_again(copied: Path) -> None:
    write_merged(copied, change=' {"said": 1}')
    assert parity.main(["-r", RUN, "-o", LIMIT]) == 100
    both = "artifacts={gguf-f16: {min_same_json: 0.75}, gguf-q8_0: {}}"
    assert parity.main(["-r", RUN, "-o", both]) == 100
    assert read(copied).rejected == []
    assert "over its limits" in read(copied).not_run["gguf-f16"]


def test_without_an_artifact_left_there_is_no_package(copied: Path) -> None:
    write_merged(copied, change=' {"said": 1}')
    artifacts = "artifacts={bf16: {min_same_json: 1}, gguf-f16: {min_same_json: 1}, gguf-q8_0: {min_same_json: 1}}"
    assert parity.main(["-r", RUN, "-o", artifacts, "-o", "engines=[transformers, llama.cpp]"]) == 100
    assert not package.folder(RUN).exists()
    assert manifest.verify(package.folder(RUN)) != []


def test_bf16_answers_in_transformers_and_says_which_engines_were_not_asked(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_merged(copied)
    monkeypatch.setenv("POTSTILL_VLLM_ENV", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    artifacts = "artifacts={bf16: {min_same_json: 0.5}, gguf-f16: {}}"
    assert parity.main(["-r", RUN, "--all", "-o", artifacts, "-o", "forced_rows=3"]) == 0
    found = read(copied)
    bf16 = found.artifacts["bf16"]
    assert (bf16.engine, bf16.same_prompt_ids, bf16.n) == ("transformers", 1.0, 12)
    assert bf16.forced is not None
    # transformers shows all probabilities, so that the divergence is the whole one
    assert bf16.forced.tokens_seen > 400
    assert bf16.forced.rows == 3
    assert bf16.forced.kl < 0.05
    assert bf16.decode_tokens_per_s > 0
    assert set(found.not_run) == {"bf16-vllm", "gguf-f16-ollama"}
    said = capsys.readouterr().out
    assert "bf16-vllm: not run: .venv-vllm is not built: ./scripts/setup_env.sh vllm" in said
    assert "gguf-f16-ollama: not run: ollama is not on PATH" in said


def test_parity_needs_a_whole_package_and_answers_to_compare_with(copied: Path) -> None:
    with pytest.raises(Stop, match=r"predictions\.jsonl is not there.*eval\.generate"):
        parity.main(["-r", RUN])
    (copied / "models" / RUN / "package/bf16/config.json").unlink()
    with pytest.raises(Stop, match=r"bf16/config\.json: is missing.*package\.export"):
        parity.main(["-r", RUN])


def test_equal_json_is_about_values_not_text() -> None:
    def row(output: str) -> Prediction:
        job = workload.load("batfit")
        numbers = {"prompt_tokens": 1, "completion_tokens": 1, "latency_ms": 0.0}
        return answers.predict_row(
            job, id="x", task="t1_parse", output=output, finish_reason="stop", backend="b", **numbers
        )

    assert records.equal_json(row('{"a":1,"b":[2]}'), row('{"b": [2], "a": 1}'))
    assert not records.equal_json(row('{"a":1}'), row('{"a":true}'))
    assert not records.equal_json(row('{"a":[1,2]}'), row('{"a":[2,1]}'))
    assert records.equal_json(row("no JSON"), row("no JSON"))
    assert not records.equal_json(row("no JSON"), row("other"))


def test_an_artifact_that_cannot_be_loaded_leaves_the_package_and_the_others_are_measured(copied: Path) -> None:
    write_merged(copied)
    folder = package.folder(RUN)
    path = folder / "gguf-q8_0" / package.gguf_name(RUN, "gguf-q8_0")
    # a whole file as far as its header goes, of a model that llama.cpp does not know
    path.write_bytes(path.read_bytes().replace(b"gemma3", b"gemmaX"))
    made = manifest.read(folder)
    assert made is not None
    sealing.seal_anew(folder, made, list(made.runtimes))
    config = "artifacts={gguf-f16: {}, gguf-q8_0: {}}"
    assert parity.main(["-r", RUN, "-o", config]) == 100
    found = read(copied)
    assert list(found.artifacts) == ["gguf-f16"]
    assert found.rejected == ["gguf-q8_0"]
    assert "llama.cpp cannot load" in found.not_run["gguf-q8_0"]
    assert not (folder / "gguf-q8_0").exists()
    assert manifest.verify(folder) == []
    assert "gguf-f16" in (folder / "README.md").read_text()
