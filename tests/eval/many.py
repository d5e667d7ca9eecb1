"""A run of 60 rows in 30 groups, graded: enough of both for intervals, kappas and regressions."""

import json
from pathlib import Path

import byhand
from byhand import RUN, SLOTS, example, prediction

from potstill.files import sha256_file, write_json
from potstill.records import write_jsonl
from scripts.eval import judge as judge_script

N = 60
REFERENCE = {"a": "x", "b": 1.0, "c": "the ball is pitched short"}
CRITICAL = {**SLOTS, "a": SLOTS["a"].model_copy(update={"critical": True})}


def answer(**changes: object) -> str:
    return json.dumps({**REFERENCE, **changes})


def make_run(**answers: list[str]) -> Path:
    """The run with `answers` of N each, judged; in the working folder, a project. Returns its report folder."""
    folder = byhand.make_run()
    for path in folder.glob("predictions*.jsonl"):
        path.unlink()
    snapshot = Path("data/processed/batfit/test.v1.jsonl")
    rows = [example(f"r{n}", {"group": f"g{n // 2}"}, REFERENCE, CRITICAL) for n in range(N)]
    write_jsonl(snapshot, rows)
    path = Path("models") / RUN / "run.json"
    record = json.loads(path.read_text())
    entry = {"file": str(snapshot), "rows": N, "sha256": sha256_file(snapshot)}
    write_json(path, {**record, "snapshots": dict.fromkeys(("train", "val", "test"), entry)})
    write_answers(folder, **answers)
    return folder


def write_answers(folder: Path, **answers: list[str]) -> None:
    """Writes and judges answers in the report folder of a run; its name is the folder's."""
    for name, texts in answers.items():
        file = "predictions.jsonl" if name == "merged" else f"predictions.{name}.jsonl"
        write_jsonl(folder / file, [prediction(f"r{n}", text, 1) for n, text in enumerate(texts)])
    judge_script.main(["-r", folder.name])


def other_run(name: str, texts: list[str]) -> Path:
    """A second run on the same rows, with merged answers of its own; returns its report folder."""
    record = json.loads((Path("models") / RUN / "run.json").read_text())
    write_json(Path("models") / name / "run.json", {**record, "run": name})
    folder = Path("reports") / name
    folder.mkdir()
    write_answers(folder, merged=texts)
    return folder
