"""python -m potstill.workloads.batfit_policy, and the examples of docs/workloads/batfit.md."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from batfit_rows import NOTHING, SAMPLES, answer

from potstill.files import canonical_json
from potstill.stop import Stop
from potstill.workloads import batfit_policy
from potstill.workloads.batfit_policy import Decision
from potstill.workloads.batfit_schema import WHY, Answer, interaction
from projects import REPO

QUICK = {"pitch_type": "low", "preferred_pickup": "light", "target_weight_lb": 2.8}
NOTHING_WRONG = {"risk_flags": [], "pickup_delta": 0.0, "catalogue_fit": 1.0}


def written(folder, files: dict[str, object]) -> list[str]:
    """The files as JSON, a text as it is, and the options that name them."""
    words = []
    for name, value in files.items():
        (folder / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        words += [f"--{name}", str(folder / f"{name}.json")]
    return words


def run(tmp_path, *words: str, **files: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "potstill.workloads.batfit_policy", *words, *written(tmp_path, files)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BATFIT_")}
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=60)


def test_the_command_prints_one_object(tmp_path):
    found = answer(**QUICK, asked=list(WHY))
    result = {**NOTHING_WRONG, "top2_scores": [0.81, 0.745]}
    done = run(tmp_path, context=found, kern=result)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"question": None, "reason": "no_rule_fires"}
    done = run(tmp_path, "--tenant", "timberwolf", context=found["context"], kern=result)
    assert done.stdout.count("\n") == 1
    decision = Decision.model_validate_json(done.stdout)
    assert (decision.reason, decision.question.rule) == ("follow_up", "close_call")
    first = json.loads(run(tmp_path, context=NOTHING["context"]).stdout)
    assert first["question"]["slot"] == "pitch_type"
    assert first["question"]["why"] == WHY["pitch_type"]


def test_the_documents_examples_are_what_comes_out(tmp_path):
    page = (REPO / "docs/workloads/batfit.md").read_text(encoding="utf-8")
    (result,) = re.findall(r'`(\{"top2_scores".*?\})`', page)
    done = run(tmp_path, "--tenant", "timberwolf", context=answer(**QUICK, asked=list(WHY)), kern=result)
    assert done.stdout in page
    (example,) = re.findall(r'^ +(\{"context":.*)$', page, re.MULTILINE)
    known = Answer.model_validate_json(example)
    assert known.interaction == interaction(known.context, known.interaction.skipped)


@pytest.mark.parametrize(
    ("words", "files", "code", "named"),
    [
        (["--tenant", "timberwulf"], {"context": NOTHING}, 2, "Did you mean 'timberwolf'?"),
        (["--data-dir", "gone"], {"context": NOTHING}, 2, "--data-dir names gone, where no folder is"),
        (["--context", "gone.json"], {}, 65, "gone.json is not there"),
        ([], {"context": f"Sure: {canonical_json(NOTHING)}"}, 65, "context.json: not JSON; want one object"),
        ([], {"context": '{"a":' * 5000}, 65, "context.json: not JSON"),
        ([], {"context": {**NOTHING, "edges_mm": 40}}, 65, "context.json: edges_mm: Extra inputs"),
        ([], {"context": NOTHING, "kern": '{"top2_gap": NaN}'}, 65, "kern.json: not JSON"),
        ([], {"context": NOTHING, "kern": {"risk_flags": []}}, 65, "kern.json: pickup_delta: Field required"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path, monkeypatch, words, files, code, named):
    monkeypatch.chdir(REPO)
    with pytest.raises(Stop, match=re.escape(named)) as caught:
        batfit_policy.main([*words, *written(tmp_path, files)])
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_data_dir_of_the_users_own_is_asked_of(tmp_path, monkeypatch, capsys):
    shutil.copytree(SAMPLES / "policy", tmp_path / "policy")
    monkeypatch.setenv("BATFIT_DATA_DIR", str(tmp_path))
    with pytest.raises(Stop, match=r"no tenant 'timberwolf'\. Known: none\."):
        batfit_policy.main(["--tenant", "timberwolf", *written(tmp_path, {"context": NOTHING})])
    batfit_policy.main(written(tmp_path, {"context": NOTHING}))
    assert json.loads(capsys.readouterr().out)["reason"] == "quick_fit"


def test_the_program_ends_with_the_documented_code_and_prints_nothing_else(tmp_path):
    done = run(tmp_path, context="prose")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (65, "", 1)
    assert done.stderr.startswith("error: ")
