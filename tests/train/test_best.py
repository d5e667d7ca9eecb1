"""val_generate: the weights that answer best become the run's, and asking changes nothing of training."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill import models, workload
from potstill.files import canonical_json
from potstill.runs import ValGenerate
from potstill.val_generation import ValGeneration, put_back, sample, score, twin
from projects import REPO
from train_runs import example, kill, prepare, run_step, small_project, start, steps_of

OPTIONS = {"sft.max_steps": 6, "sft.save_steps": 3, "sft.bf16": "false"}
ASKED = {"val_generate": "{rows: 2, every: 2, patience: 3}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the run `plain` and `asked`, which is the same with val_generate."""
    folder = small_project(tmp_path_factory.mktemp("best") / "project")
    prepare(folder, "plain", **OPTIONS)
    prepare(folder, "asked", **OPTIONS, **ASKED)
    for run in ("plain", "asked"):
        run_step(folder, "train.run", "-r", run)
    return folder


def val_rows(folder: Path, run: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"models/{run}/val.jsonl").read_text().splitlines()]


def test_losses_are_those_of_a_run_that_asks_nothing(folder: Path):
    asked = steps_of(folder, "asked")
    assert asked == steps_of(folder, "plain")[: len(asked)]
    assert not (folder / "models/plain/val.jsonl").exists()


def test_the_weights_are_the_best_ones_and_metrics_say_so(folder: Path):
    rows = val_rows(folder, "asked")
    assert [row["step"] for row in rows] == [2, 4, 6][: len(rows)]
    best = max(rows, key=lambda row: (row["slot_accuracy"], -row["step"]))
    metrics = json.loads((folder / "models/asked/metrics.json").read_text())
    assert metrics["best_step"] == best["step"]
    assert metrics["val_slot_accuracy"] == best["slot_accuracy"]
    assert metrics["val_json_validity"] == best["json_validity"]
    last = load_file(folder / "models/plain/model/model.safetensors")
    own = load_file(folder / "models/asked/model/model.safetensors")
    assert all(torch.equal(own[name], last[name]) for name in last) == (best["step"] == 6)
    assert not (folder / "models/asked/checkpoints").exists()


def test_killed_after_the_best_it_ends_with_the_same_weights(folder: Path):
    prepare(folder, "killed", **OPTIONS, **ASKED)
    process, saved = start(folder, "train.run", "-r", "killed"), folder / "models/killed"
    while process.is_alive() and not (saved / "checkpoints/checkpoint-3").is_dir():
        process.join(0.002)
    kill(process)
    run_step(folder, "train.run", "-r", "killed")
    assert val_rows(folder, "killed") == val_rows(folder, "asked")
    one, two = (load_file(folder / f"models/{run}/model/model.safetensors") for run in ("asked", "killed"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def generation(folder: Path, accuracies: list[float], patience: int | None = None) -> ValGeneration:
    found = ValGeneration(ValGenerate(patience=patience), folder, None, [], "batfit")
    text = "".join(json.dumps({"step": 10 * (n + 1), "slot_accuracy": a}) + "\n" for n, a in enumerate(accuracies))
    found.path.write_text(text)
    found.reload()
    return found


@pytest.mark.parametrize(
    ("accuracies", "best", "exhausted"),
    [
        ([0.1], 10, False),
        ([0.1, 0.5, 0.5], 20, False),
        ([0.1, 0.5, 0.5, 0.4], 20, True),
        ([0.5, 0.4, 0.6, 0.1], 30, False),
    ],
)
def test_the_earlier_of_equals_is_best_and_patience_counts_from_it(project_folder, accuracies, best, exhausted):
    found = generation(project_folder, accuracies, patience=2)
    assert found.best()["step"] == best  # type: ignore[index]
    assert found.exhausted() == exhausted
    assert not generation(project_folder, accuracies).exhausted()


def test_going_back_forgets_what_came_later(project_folder):
    found = generation(project_folder, [0.1, 0.9, 0.2])
    for step in (10, 20):
        (project_folder / f"checkpoints/best-{step}").mkdir(parents=True)
    found.take_up(15)
    assert [row["step"] for row in found.rows] == [10]
    assert [path.name for path in (project_folder / "checkpoints").iterdir()] == ["best-10"]


def test_scores_are_those_of_the_judges_rules(project_folder):
    job, rows = workload.load("batfit"), [example(number, "val") for number in range(3)]
    answers = [rows[0].response, "no JSON", canonical_json({"intent": "other"})]
    found = score(job, rows, answers)
    # of six slots the first row has both, and the others none that hold: BatFit's schema wants every key
    assert found.json_validity == pytest.approx(2 / 3)
    assert found.slot_accuracy <= 0.5
    assert score(job, rows, ["{}"] * 3).slot_accuracy == 0


def test_the_sample_does_not_depend_on_the_order_and_leaves_slices_out():
    rows = [example(number, "val") for number in range(20)]
    sliced = [row.model_copy(update={"id": f"s{row.id}", "metadata": {"slice": "hard"}}) for row in rows]
    chosen = sample(rows + sliced, 5, 1)
    assert [row.id for row in chosen] == [row.id for row in sample([*reversed(sliced), *reversed(rows)], 5, 1)]
    assert not any(row.metadata for row in chosen)


def test_answering_leaves_the_model_as_it_is(tmp_path):
    model, tokenizer = models.load_folder(REPO / "models/nano", torch.float32)
    before = {name: (value.clone(), value.data_ptr()) for name, value in model.state_dict().items()}
    copy = twin(model)
    list(models.generate(copy, tokenizer, [[2, 105, 106]], 4))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.data_ptr() == before[name][1]
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        model.model.norm.weight += 1
    put_back(model, tmp_path)
    assert torch.equal(model.model.norm.weight, before["model.norm.weight"][0])
