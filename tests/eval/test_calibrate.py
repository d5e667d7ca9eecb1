"""eval.calibrate: kappa against published examples and scikit-learn, the certificate, and the gate that reads it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy
import pytest
import sklearn.metrics
from byhand import RUN
from hypothesis import given
from hypothesis import strategies as st
from many import N, answer, make_run

from potstill import calibration, certificate
from potstill.calibration import Pair
from potstill.certificate import Certificate
from potstill.stop import DATA, INCONCLUSIVE, OK, Stop
from scripts.eval import calibrate as script
from scripts.eval import judge as judge_script
from scripts.eval import report as report_script

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
PATH = Path("configs/certificates/batfit.json")
CLOSE, FAR = "the ball is pitched short!", "he bowls fast and wide of the stumps"


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        # grant proposals, Wikipedia "Cohen's kappa", first example
        ((20, 5, 10, 15), 0.4),
        # the same observed agreement and other margins, ibid., second example
        ((45, 15, 25, 15), 0.1304),
        ((25, 35, 5, 35), 0.2593),
        # the paradox of Feinstein and Cicchetti (1990, J. Clin. Epidemiol. 43:543): like agreement, other prevalence
        ((40, 9, 6, 45), 0.70),
        ((80, 10, 5, 5), 0.32),
    ],
)
def test_kappa_is_that_of_published_tables(table, wanted):
    assert calibration.kappa(*table) == pytest.approx(wanted, abs=0.005)


marks = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(marks)
def test_kappa_is_scikit_learns(found):
    judge, human = zip(*found, strict=True)
    got = calibration.agreement(Pair("c", str(n), *pair) for n, pair in enumerate(found))
    assert got.accuracy == pytest.approx(sklearn.metrics.accuracy_score(human, judge))
    if len(set(judge)) == len(set(human)) == 1 and judge == human:
        assert got.kappa is None
    else:
        assert got.kappa == pytest.approx(sklearn.metrics.cohen_kappa_score(human, judge), abs=1e-9)


def pairs(both_pass, judge_only, human_only, both_fail) -> list[Pair]:
    kinds = [(True, True)] * both_pass + [(True, False)] * judge_only
    kinds += [(False, True)] * human_only + [(False, False)] * both_fail
    return [Pair("c", str(n), *kind) for n, kind in enumerate(kinds)]


def test_the_interval_is_near_the_asymptotic_one():
    # Fleiss, Cohen and Everitt (1969, Psychol. Bull. 72:323), for a 2 x 2 table
    table = numpy.array([[200, 50], [100, 150]]) / 500
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    observed, chance = numpy.trace(table), float(rows @ columns)
    kappa = (observed - chance) / (1 - chance)
    a = sum(table[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(2))
    b = (1 - kappa) ** 2 * sum(table[i, j] * (columns[i] + rows[j]) ** 2 for i in range(2) for j in range(2) if i != j)
    error = numpy.sqrt((a + b - (kappa - chance * (1 - kappa)) ** 2) / 500) / (1 - chance)
    low, high = calibration.kappa_ci95(pairs(200, 50, 100, 150))
    assert (low, high) == pytest.approx((kappa - 1.96 * error, kappa + 1.96 * error), abs=0.01)


def test_agreement_on_one_label_alone_shows_nothing():
    assert calibration.kappa_ci95(pairs(49, 0, 0, 1))[0] == 0.0
    assert calibration.kappa_ci95(pairs(50, 0, 0, 0)) == (0.0, 0.0)
    assert calibration.kappa_ci95(pairs(50, 0, 0, 50)) == (1.0, 1.0)


@pytest.fixture
def judged(project_folder) -> Path:
    """Of 60 answers 30 are close to the reference and 30 far from it: the embedded judge passes the first only."""
    texts = [answer(c=CLOSE + str(n % 2) if n < N // 2 else FAR + str(n)) for n in range(N)]
    folder = make_run(merged=texts)
    Path("configs/gate.yaml").write_text("min_json_validity: 0.9\nmin_slot_accuracy: 0.6\nrequire_certificate: true\n")
    return folder


def labelled(folder: Path, wrong: int) -> Path:
    """A filled-in sheet, with as many labels unlike the judge's."""
    script.main(["-r", RUN, "--sample", "1000"])
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == N
    assert {row["label"] for row in rows} == {None}
    assert not any("judge" in row or "score" in row for row in rows), "the sheet does not tell what the judge said"
    for number, row in enumerate(rows):
        close = row["candidate"].startswith(CLOSE)
        row["label"] = "pass" if close == (number >= wrong) else "fail"
    path = folder / "filled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def verdict(folder: Path) -> tuple[str, str]:
    report_script.main(["-r", RUN])
    found = json.loads((folder / "report.json").read_text())
    return found["gate"]["verdict"], " ".join(found["gate"]["reasons"])


def change(**values) -> None:
    PATH.write_text(json.dumps({**json.loads(PATH.read_text()), **values}))


def test_the_gate_takes_a_certificate_that_holds_and_refuses_every_other(judged, capsys):
    found, reasons = verdict(judged)
    assert found == "inconclusive"
    assert f"{PATH} is not there. Run fab eval.calibrate." in reasons
    script.main(["-r", RUN, "--labels", str(labelled(judged, wrong=0))])
    assert "kappa 1.000" in capsys.readouterr().out
    written = Certificate.model_validate_json(PATH.read_text())
    assert (written.overall.n, written.overall.kappa, written.judge) == (N, 1.0, "embedded/lexical")
    assert written.thresholds == {"c": 0.85}
    assert verdict(judged)[0] == "promote"
    assert report_script.main(["-r", RUN, "--gate"]) == OK
    good = PATH.read_text()
    yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    for values, message in [
        ({"expires_on": yesterday}, f"it expired on {yesterday}"),
        ({"prompt_sha256": "0" * 64}, "the judge's prompt changed since"),
        ({"judge": "gpt-9"}, "it is for the judge gpt-9, not embedded/lexical"),
        ({"thresholds": {"d": 0.85}}, "it does not cover c"),
        ({"thresholds": {"c": 0.5}}, "the pass threshold changed since for c"),
        ({"kappa_ci95": [0.59, 0.9]}, "its kappa may be as low as 0.59 (95% interval), min_kappa asks for 0.6"),
    ]:
        change(**values)
        found, reasons = verdict(judged)
        assert found == "inconclusive"
        assert message in reasons
        assert report_script.main(["-r", RUN, "--gate"]) == INCONCLUSIVE
        PATH.write_text(good)
    assert verdict(judged)[0] == "promote"
    PATH.write_text("{}")
    with pytest.raises(Stop, match=r"configs/certificates/batfit.json: .*Run fab eval.calibrate"):
        report_script.main(["-r", RUN])


def test_without_require_certificate_the_report_says_that_nothing_is_known(judged):
    Path("configs/gate.yaml").write_text("min_json_validity: 0.9\nmin_slot_accuracy: 0.6\n")
    assert verdict(judged)[0] == "promote"
    for name in ("report.md", "report.html"):
        assert "whose agreement with people is not known" in (judged / name).read_text()


def test_a_judge_that_disagrees_gets_a_certificate_that_is_too_weak(judged, capsys):
    script.main(["-r", RUN, "--labels", str(labelled(judged, wrong=20))])
    written = Certificate.model_validate_json(PATH.read_text())
    assert written.overall.accuracy == pytest.approx(40 / 60)
    low, high = written.kappa_ci95
    assert low < written.overall.kappa < high < 0.7
    assert verdict(judged)[0] == "inconclusive"


def test_labels_that_do_not_fit_are_refused_by_name(judged):
    path = labelled(judged, wrong=0)
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    def refused(match, **values):
        path.write_text("".join(json.dumps(row) + "\n" for row in [{**rows[0], **values}, *rows[1:]]))
        with pytest.raises(Stop, match=match) as stop:
            script.main(["-r", RUN, "--labels", str(path)])
        assert stop.value.code == DATA

    refused("row 1: label is null", label=None)
    refused("line 1: label: Input should be 'pass' or 'fail'", label="maybe")
    refused("another answer was labelled than is judged now", candidate="something else")
    refused("merged has no such verdict", slot="zz")
    refused("predictions.other.jsonl is not there", answers="other")
    with pytest.raises(Stop, match="is there already, and may hold somebody's work"):
        script.main(["-r", RUN, "--sample", "5"])
    assert not PATH.exists()


def test_labels_on_rules_and_disputed_ones_are_left_out_and_counted(judged, capsys):
    path = labelled(judged, wrong=0)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    more = [{**rows[0], "label": "fail" if rows[0]["label"] == "pass" else "pass", "by": "another"}]
    more += [{"id": "r1", "slot": "a", "label": "pass"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
    script.main(["-r", RUN, "--labels", str(path)])
    printed = capsys.readouterr().out
    assert "1 labels left out: on a verdict of a rule" in printed
    assert "1 labels left out: disputed among people" in printed
    assert Certificate.model_validate_json(PATH.read_text()).overall.n == N - 1


def test_a_judge_of_the_candidates_own_family_is_refused_unless_told(judged):
    Path("configs/gate.yaml").write_text("min_json_validity: 0.9\nmin_slot_accuracy: 0.6\n")
    for pattern in ("judge_run_*[0-9].json", "judge_run_*[0-9].jsonl"):
        (path,) = judged.glob(pattern)
        path.write_text(path.read_text().replace("embedded/lexical", "ollama/gemma3:27b"))
    record = Path("models") / RUN / "run.json"
    record.write_text(record.read_text().replace('"name": "nano"', '"name": "google/gemma-3-270m-it"'))
    found, reasons = verdict(judged)
    assert found == "inconclusive"
    assert "is of the family of the base google/gemma-3-270m-it" in reasons
    with Path("configs/gate.yaml").open("a") as file:
        file.write("allow_own_family: true\n")
    assert verdict(judged)[0] == "promote"


def test_a_judge_that_passed_a_planted_answer_since_promotes_nothing(judged):
    Path("configs/gate.yaml").write_text("min_json_validity: 0.9\nmin_slot_accuracy: 0.6\n")
    assert verdict(judged)[0] == "promote"
    (path,) = judged.glob("judge_run_*[0-9].json")
    later = {**json.loads(path.read_text()), "void": "canary 3 passed", "created_at": "2999-01-01T00:00:00+00:00"}
    (judged / "judge_run_29990101T000000-000.json").write_text(json.dumps(later))
    found, reasons = verdict(judged)
    assert found == "inconclusive"
    assert "a later run of the same judge is void: canary 3 passed" in reasons
    assert "VOID" in (judged / "report.html").read_text()
    # another judge's failure says nothing of this one
    (judged / "judge_run_29990101T000000-000.json").write_text(json.dumps({**later, "model": "gpt-9"}))
    assert verdict(judged)[0] == "promote"


@pytest.mark.parametrize(
    ("judge", "base", "same"),
    [
        ("gemini/gemini-3-pro", "google/gemma-3-270m", True),
        ("openrouter/google/gemma-3-27b-it", "google/gemma-3-270m", True),
        ("gpt-4o-mini", "google/gemma-3-270m", False),
        ("anthropic/claude-sonnet-4-5", "google/gemma-3-270m", False),
        ("embedded/lexical", "nano", False),
        ("hosted_vllm/my-judge", "my-base", False),
    ],
)
def test_families_are_told_by_names(judge, base, same):
    assert certificate.same_family(judge, base) is same


def test_texts_that_rules_decided_leave_nothing_to_label(project_folder):
    make_run(merged=[answer()] * N)
    with pytest.raises(Stop, match="rules decided every slot"):
        script.main(["-r", RUN, "--sample", "5"])
    judge_script.main(["-r", RUN])
