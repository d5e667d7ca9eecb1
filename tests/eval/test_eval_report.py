"""scripts/eval/report.py: the numbers of the run made by hand, and pages that hostile answers cannot break."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from byhand import write_predictions

from potstill.metrics import Report
from potstill.stop import DATA, INCONCLUSIVE, OK, REJECT, Stop
from scripts.eval import judge as judge_script
from scripts.eval import report as script

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
RUN = "batfit-byhand"


@pytest.fixture
def judged(byhand):
    judge_script.main(["-r", RUN])
    return byhand


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_the_numbers_are_those_worked_out_by_hand(judged):
    assert script.main(["-r", RUN]) == OK
    found = report_of(judged)
    Report.model_validate(found)
    # row4 is of a slice; row1 passes 3 of 3, row2 1 of 3, row3 0 of 2 and has one error
    assert list(found)[:4] == ["run", "workload", "snapshot", "n"]
    assert (found["run"], found["workload"], found["snapshot"], found["n"]) == (RUN, "batfit", "v1", 3)
    assert found["json_validity"] == pytest.approx(2 / 3)
    assert found["schema_validity"] == pytest.approx(2 / 3)
    assert found["repaired"] == 0
    assert found["slot_accuracy"] == pytest.approx(4 / 8)
    assert found["slots_scored"] == 8
    assert found["perfect_records"] == pytest.approx(1 / 3)
    assert found["errors"] == 1
    assert {path: (rate["n"], rate["pass_rate"]) for path, rate in found["per_slot"].items()} == {
        "a": (3, pytest.approx(1 / 3)),
        "b": (2, 1.0),
        "c": (3, pytest.approx(1 / 3)),
    }
    assert found["per_slot"]["b"]["ci95"] == pytest.approx([0.3424, 1.0], abs=1e-4)
    assert found["latency_ms"] == {"p50": 20.0, "p95": pytest.approx(29.0)}
    assert found["tokens"] == {"prompt_p50": 200.0, "completion_p50": 20.0, "total": 660.0}
    assert found["judge"]["label"] == "embedded/lexical - not an LLM"
    assert (found["judge"]["calls"], found["judge"]["cached"], found["judge"]["errors"]) == (1, 0, 1)
    # row2's reference has a null for a: 1 of 8
    assert found["baselines"]["always_null"]["slot_accuracy"] == pytest.approx(1 / 8)
    assert found["baselines"]["untuned_base"]["slot_accuracy"] == 0
    assert found["baselines"]["untuned_base"]["json_validity"] == 0
    assert {name: part["n"] for name, part in found["slices"].items()} == {
        "unseen_families": 3,
        "unseen_synonyms": 1,
        "task=t1_parse": 3,
        "tenant=acme": 1,
    }
    assert found["slices"]["unseen_synonyms"]["perfect_records"] == 1
    assert found["artifacts"] == {}
    assert found["gate"]["verdict"] == "reject"


def test_the_exit_code_tells_the_verdict_only_with_gate(judged):
    assert script.main(["-r", RUN]) == OK
    assert script.main(["-r", RUN, "--gate"]) == REJECT
    Path("configs/gate.yaml").write_text("min_json_validity: 0.5\nmin_slot_accuracy: 0.5\n")
    assert script.main(["-r", RUN, "--gate"]) == INCONCLUSIVE
    Path("configs/gate.yaml").write_text("min_json_validity: 0.1\nmin_slot_accuracy: 0.1\n")
    assert script.main(["-r", RUN, "--gate"]) == OK


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]


def test_the_page_runs_nothing_loads_nothing_and_shows_hostile_answers_as_text(byhand):
    hostile = (
        '</pre><img src=x onerror=alert(1)><a href="https://evil.example">x</a>\n```\n# heading\n````\n{{ report.run }}'
    )
    write_predictions("merged", ['{"a":"x","b":1.0,"c":"hello"}', hostile, "<script>alert(1)</script>", '{"a":1}'])
    judge_script.main(["-r", RUN])
    script.main(["-r", RUN])
    text = (byhand / "report.html").read_text()
    page = Page(text)
    assert not {"script", "img", "a", "iframe", "object", "b"} & set(page.tags)
    assert [value for _, name, value in page.attributes if name in ("src", "href")] == ["data:,"]
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "{{ report.run }}" in text
    assert "not an LLM" in text
    assert "url(" not in text
    assert "@import" not in text
    markdown = (byhand / "report.md").read_text()
    # the fence around the hostile answer is longer than any inside it
    start = markdown.index("`````text\n</pre>")
    assert "`````" in markdown[start + 9 :]


def test_screen_files_and_page_agree(judged, capsys):
    script.main(["-r", RUN])
    printed = capsys.readouterr().out
    for text in (printed, (judged / "report.md").read_text(), (judged / "report.html").read_text()):
        assert "50.0%" in text
        assert "12.5%" in text
        assert "not an LLM" in text
        assert "reject" in text
    assert "row3" in (judged / "report.md").read_text()
    assert printed.splitlines()[-1].startswith("next: ")


def test_artifacts_show_parity_and_numbers_once_they_are_judged(judged):
    parity = {
        "artifacts": {"gguf-q8_0": {"n": 4, "same_json": 0.75, "same_output": 0.5, "bytes": 10, "divergences": []}}
    }
    (judged / "parity.json").write_text(json.dumps(parity))
    script.main(["-r", RUN])
    artifact = report_of(judged)["artifacts"]["gguf-q8_0"]
    assert artifact["numbers"] is None
    assert artifact["parity"]["same_json"] == 0.75
    assert "75.0%" in (judged / "report.md").read_text()
    assert "not judged" in (judged / "report.md").read_text()
    write_predictions("gguf-q8_0", ['{"a":"x","b":1,"c":"hello world"}'] * 4)
    judge_script.main(["-r", RUN])
    script.main(["-r", RUN])
    assert report_of(judged)["artifacts"]["gguf-q8_0"]["numbers"]["n"] == 3


def test_stale_or_missing_verdicts_are_refused(judged, byhand):
    write_predictions("null", ["other"] * 4)
    script.main(["-r", RUN])
    found = report_of(judged)
    assert list(found["baselines"]) == ["untuned_base"]
    assert "null is left out" in found["notes"][0]
    before = (judged / "report.json").read_bytes()
    write_predictions("merged", ["other"] * 4)
    with pytest.raises(Stop, match=r"changed since judge_run_.*Run fab eval.judge -r batfit-byhand") as stop:
        script.main(["-r", RUN])
    assert stop.value.code == DATA
    assert (judged / "report.json").read_bytes() == before
    for path in judged.glob("judge_run_*"):
        path.unlink()
    with pytest.raises(Stop, match="not judged yet"):
        script.main(["-r", RUN])


def test_a_wrong_gate_is_named(judged):
    Path("configs/gate.yaml").write_text("min_json_validity: 0.5\nmin_slot_acuracy: 0.5\n")
    with pytest.raises(Stop, match="Did you mean 'min_slot_accuracy'"):
        script.main(["-r", RUN])
