"""What the page draws: histograms, confusion and the word by word comparison, worked out by hand and as properties."""

import json

import pytest
from byhand import example, prediction
from hypothesis import given
from hypothesis import strategies as st
from many import N, answer, make_run

from potstill import breakdown, figures
from potstill.grading import Row
from potstill.metrics import Report
from potstill.records import Verdict
from scripts.eval import report as script

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=200))
def test_a_histogram_counts_every_value_once(values):
    found = breakdown.histogram(values, "ms")
    assert sum(found.counts) == len(values)
    assert 1 <= len(found.counts) <= breakdown.BARS
    assert found.counts[0] >= sum(value < found.width for value in values) or len(found.counts) == 1


def test_one_outlier_does_not_squeeze_the_others_into_one_bar():
    found = breakdown.histogram([float(n) for n in range(100)] + [1e6], "ms")
    assert found.width == 10
    assert found.counts[0] == 10
    assert found.counts[-1] == 1


def rows(*pairs: tuple[object, object]) -> list[Row]:
    found = []
    for n, (reference, candidate) in enumerate(pairs):
        output = "no JSON" if candidate is breakdown.UNUSABLE else json.dumps({"a": candidate})
        verdict = Verdict(
            id=str(n), task="t1_parse", slot="a", level="exact", reference=reference, candidate=candidate,
            score=1.0, passed=reference == candidate, status="scored", judge="rule", reason="", cached=False,
            cost_usd=0.0,
        )  # fmt: skip
        found.append(Row(example(str(n), {}, {"a": reference}), prediction(str(n), output, 1), [verdict]))
    return found


def test_confusion_counts_references_against_answers():
    pairs = [
        ("slow", "slow"),
        ("slow", "fast"),
        ("fast", "fast"),
        (None, None),
        (None, "odd"),
        ("fast", breakdown.UNUSABLE),
    ]
    (found,) = breakdown.confusion(rows(*pairs)).values()
    assert found.values == ['"fast"', '"slow"', "null"]
    assert found.answers == ['"fast"', '"slow"', "null", breakdown.OTHER, breakdown.UNUSABLE]
    assert found.counts == [[1, 0, 0, 0, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0]]
    # names are no enum: hardly any comes twice
    assert breakdown.confusion(rows(*((f"name{n}", "x") for n in range(6)))) == {}
    assert breakdown.confusion(rows(("same", "x"), ("same", "same"))) == {}


@given(st.text(), st.text())
def test_both_texts_stay_whole_and_only_what_differs_is_marked(reference, candidate):
    left, right = figures.compared(reference, candidate)
    assert "".join(part.text for part in left) == reference
    assert "".join(part.text for part in right) == candidate
    same = ["".join(part.text for part in side if not part.changed) for side in (left, right)]
    assert same[0] == same[1] or len(left) == len(right) == 1
    assert not any(part.changed for side in figures.compared(reference, reference) for part in side)


def test_a_text_of_a_thousand_equal_words_is_not_compared_word_by_word():
    left, right = figures.compared("a " * 1000, "a " * 999)
    assert (len(left), len(right)) == (1, 1)


def test_the_report_has_them_and_says_how_its_intervals_were_made(project_folder):
    # groups of two, of which ten have a wrong b: enough to draw from
    folder = make_run(merged=[answer(b=9) if n % 6 == 0 else answer() for n in range(N)])
    script.main(["-r", folder.name])
    found = Report.model_validate_json((folder / "report.json").read_text())
    assert found.groups == 30
    assert found.methods == {
        "json_validity": "wilson",
        "schema_validity": "wilson",
        "slot_accuracy": "bootstrap",
        "critical_slots": "wilson",
        "perfect_records": "bootstrap",
    }
    assert {path: (rate.method, rate.critical) for path, rate in found.per_slot.items()} == {
        "a": ("wilson", True),
        "b": ("bootstrap", False),
        "c": ("wilson", False),
    }
    assert sum(found.distributions["latency_ms"].counts) == N
    assert "bootstrap over 30 groups" in found.notes[-1]
    page = (folder / "report.html").read_text()
    assert page.count('class="whisker"') == 5 + 3
    assert "<mark>9</mark>" in page
