import json
from pathlib import Path

import pytest
import torch

from potstill import answers, models, package, prompt, runs, snapshots, workload
from potstill.records import Prediction, read_jsonl, write_jsonl
from potstill.stop import Stop
from scripts.package import parity

RUN = "batfit-tiny"
LIMIT = "artifacts={gguf-f16: {min_same_json: 0.75}}"


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
    result = parity.Parity.model_validate_json((out / "parity.json").read_text()).artifacts["gguf-f16"]
    # random weights part at the first near tie, so most answers and not all of them are the same
    assert result.n == 12
    assert result.same_output >= 0.5
    assert result.same_json >= result.same_output
    assert code == (0 if result.same_json >= 0.75 else 100)
    assert result.same_prompt_ids == 1.0
    assert len(result.divergences) == round((1 - result.same_output) * 12)
    path = package.folder(RUN) / "gguf-f16" / package.gguf_name(RUN, "gguf-f16")
    manifest = json.loads((package.folder(RUN) / "manifest.json").read_text())
    assert result.sha256 == manifest["files"][f"gguf-f16/{path.name}"]["sha256"]
    assert min(result.decode_tokens_per_s, result.prompt_tokens_per_s, result.load_ms, result.answers_per_s) > 0
    own = list(read_jsonl(out / "predictions.gguf-f16.jsonl", Prediction))
    assert [p.id for p in own] == [f"test-{i}" for i in range(12)]
    assert {p.backend for p in own} == {"llama.cpp gguf-f16"}
    assert "gguf-f16" in capsys.readouterr().out


def test_an_artifact_below_its_limit_is_named_and_exits_100(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_merged(copied, change=' {"said": 1}')
    assert parity.main(["-r", RUN, "-o", LIMIT]) == 100
    said = capsys.readouterr().out
    assert "gguf-f16: the same JSON on 0.0% of the rows, want 75.0%" in said
    result = json.loads((copied / "reports" / RUN / "parity.json").read_text())["artifacts"]["gguf-f16"]
    assert result["passed"] is False
    assert result["divergences"][0]["artifact"] is None


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

    assert parity.equal_json(row('{"a":1,"b":[2]}'), row('{"b": [2], "a": 1}'))
    assert not parity.equal_json(row('{"a":1}'), row('{"a":true}'))
    assert not parity.equal_json(row('{"a":[1,2]}'), row('{"a":[2,1]}'))
    assert parity.equal_json(row("no JSON"), row("no JSON"))
    assert not parity.equal_json(row("no JSON"), row("other"))
