"""Promotion in a real MLflow store, also one that is killed; the baseline it leaves; the strong model's answers."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from byhand import RUN
from many import N, answer, make_run, other_run, write_answers

from potstill import promotion
from potstill.files import write_json
from potstill.stop import DATA, INCONCLUSIVE, OK, REJECT, Stop
from projects import REPO
from scripts.eval import report as script

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]
GOOD = [answer()] * N
# one answer of a group of two is wrong in a, one row in ten in b
WORSE = [answer(a="y") if n % 2 else answer(b=9) if n % 10 == 0 else answer() for n in range(N)]
KILLED = """
import os, signal, sys
from mlflow.tracking import MlflowClient
from scripts.eval import report
step = sys.argv.pop(1)
before = getattr(MlflowClient, step)
def kill(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(MlflowClient, step, kill)
report.main(sys.argv[1:])
"""


def found(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def trained(*runs: str) -> None:
    for run in runs:
        write_json(Path("models") / run / "metrics.json", {})


@pytest.fixture
def two_runs(project_folder) -> tuple[Path, Path]:
    Path("configs/gate.yaml").write_text("min_json_validity: 0.9\nmin_slot_accuracy: 0.6\n")
    folder = make_run(merged=GOOD)
    second = other_run("second", WORSE)
    trained(RUN, "second")
    return folder, second


def test_only_promote_promotes_and_the_promoted_run_is_the_next_ones_baseline(two_runs, capsys):
    folder, second = two_runs
    assert promotion.promoted("batfit") is None
    assert script.main(["-r", RUN, "--promote", "--baseline", "promoted"]) == OK
    assert "no run of workload batfit is promoted yet" in " ".join(found(folder)["notes"])
    assert promotion.promoted("batfit") == RUN
    # the second run reaches the limits, and is much worse on a critical slot than the promoted one
    assert script.main(["-r", "second", "--promote"]) == OK
    assert promotion.promoted("batfit") == "second"
    assert script.main(["-r", RUN, "--promote"]) == OK
    assert f"promoted {RUN} in workload batfit, instead of second" in capsys.readouterr().out
    assert script.main(["-r", "second", "--promote", "--baseline", "promoted"]) == REJECT
    assert promotion.promoted("batfit") == RUN
    gate = found(second)["gate"]
    assert (gate["verdict"], gate["baseline"]) == ("reject", RUN)
    assert [(slot["slot"], slot["critical"]) for slot in gate["regressions"]] == [("a", True), ("b", False)]
    assert gate["regressions"][0]["difference"] == pytest.approx(-0.5)
    assert "critical slot a is worse than in batfit-byhand: -50.0 points" in " ".join(gate["reasons"])
    for name in ("report.md", "report.html"):
        assert "Regressions" in (second / name).read_text()
    assert script.main(["-r", RUN, "--baseline", RUN]) == OK
    assert "is the baseline itself" in " ".join(found(folder)["notes"])
    # the same run again makes no second version
    assert script.main(["-r", RUN, "--promote"]) == OK
    versions = promotion._client().search_model_versions("name = 'batfit'")
    assert sorted(version.tags["run"] for version in versions) == [RUN, "second"]
    assert {version.source for version in versions} == {f"models/{RUN}", "models/second"}


@pytest.mark.usefixtures("two_runs")
def test_what_is_not_promoted_leaves_the_alias_alone():
    assert script.main(["-r", RUN, "--promote"]) == OK
    Path("configs/gate.yaml").write_text("min_json_validity: 0.99\nmin_slot_accuracy: 0.6\n")
    assert script.main(["-r", "second", "--promote"]) == INCONCLUSIVE
    Path("configs/gate.yaml").write_text("min_json_validity: 0.9\nmin_slot_accuracy: 0.99\n")
    assert script.main(["-r", "second", "--promote"]) == REJECT
    assert promotion.promoted("batfit") == RUN
    Path("configs/gate.yaml").write_text("min_json_validity: 0.9\nmin_slot_accuracy: 0.6\n")
    (Path("models") / "second" / "metrics.json").unlink()
    with pytest.raises(Stop, match="models/second is not trained yet") as stop:
        script.main(["-r", "second", "--promote"])
    assert stop.value.code == DATA
    assert promotion.promoted("batfit") == RUN


def test_a_promotion_killed_before_the_alias_moves_leaves_the_old_one_and_can_be_repeated(two_runs, project_folder):
    assert script.main(["-r", RUN, "--promote"]) == OK
    command = [sys.executable, "-c", KILLED, "set_registered_model_alias", "-r", "second", "--promote"]
    environment = {"PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"}
    killed = subprocess.run(command, cwd=project_folder, env=environment, capture_output=True, text=True, timeout=600)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert promotion.promoted("batfit") == RUN
    assert script.main(["-r", "second", "--promote"]) == OK
    assert promotion.promoted("batfit") == "second"
    # the version that the killed process had made is the one that is promoted
    assert len(promotion._client().search_model_versions("name = 'batfit'")) == 2


def test_the_strong_models_own_answers_are_what_the_tuned_ones_are_held_against(project_folder):
    limits = "min_json_validity: 0.9\nmin_slot_accuracy: 0.6\nstrong_model: strong\n"
    Path("configs/gate.yaml").write_text(limits)
    folder = make_run(merged=WORSE)
    assert script.main(["-r", RUN, "--gate"]) == INCONCLUSIVE
    assert "predictions.strong.jsonl is not there" in " ".join(found(folder)["gate"]["reasons"])
    write_answers(folder, strong=GOOD)
    assert script.main(["-r", RUN, "--gate"]) == REJECT
    checks = {check["name"]: check for check in found(folder)["gate"]["checks"]}
    assert checks["critical_slots minus strong"]["value"] == pytest.approx(-0.5)
    assert checks["critical_slots minus strong"]["verdict"] == "reject"
    # six wrong b and no wrong c in 120 slots that are not critical
    assert checks["other_slots minus strong"]["value"] == pytest.approx(-6 / 120)
    write_answers(folder, strong=WORSE)
    Path("configs/gate.yaml").write_text(limits + "max_critical_drop: 0.1\nmax_drop: 0.1\n")
    # equal answers of 60 rows: not worse by more than 3.84 / 63.84
    assert script.main(["-r", RUN, "--gate"]) == OK


def test_prices_tell_what_a_thousand_documents_cost(project_folder):
    folder = make_run(merged=GOOD)
    Path("configs/gate.yaml").write_text(
        "min_json_validity: 0.9\nmin_slot_accuracy: 0.6\n"
        "prices: {strong_model: big, input_usd_per_million: 2.5, output_usd_per_million: 10, host_usd_per_hour: 0.36}\n"
    )
    script.main(["-r", RUN])
    assert found(folder)["cost"]["tuned_usd_per_1000"] is None
    parity = {"gguf-f16": {"answers_per_s": 50.0}, "gguf-q8_0": {"answers_per_s": 100.0}}
    (folder / "parity.json").write_text(json.dumps({"artifacts": parity}))
    script.main(["-r", RUN])
    # 100 prompt and 10 answer tokens each: 2.5e-4 + 1e-4 USD; 1,000 answers at 100 a second take 10 of 3,600 seconds
    cost = found(folder)["cost"]
    assert cost["strong_usd_per_1000"] == pytest.approx(0.35)
    assert cost["tuned_usd_per_1000"] == pytest.approx(0.001)
    assert cost["tuned_from"] == "gguf-q8_0"
    assert cost["tokens_from"] == "the tuned model's tokenizer"
    assert "0.3500" in (folder / "report.md").read_text()
