"""eval.compare: the run made by hand worked out on paper, the bootstrap against scipy's, and what swapping changes."""

import json
from pathlib import Path

import numpy
import pytest
import scipy.stats
from byhand import RUN, example, prediction
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import comparing, paired
from potstill.comparing import Answers, Comparison
from potstill.files import sha256_file, write_json
from potstill.grading import Judged, JudgeRun, Row
from potstill.records import Verdict
from potstill.runs import RunRecord
from potstill.speed import Speed
from potstill.stop import DATA, Stop
from scripts.eval import compare as script
from scripts.eval import judge as judge_script

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")


@pytest.fixture
def judged(byhand: Path) -> Path:
    judge_script.main(["-r", RUN])
    return byhand


def compared(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def test_the_numbers_are_those_worked_out_by_hand(judged, capsys):
    script.main(["-a", RUN, "-b", f"{RUN}:null"])
    found = compared(judged, f"compare_{RUN}_{RUN}@null.json")
    Comparison.model_validate(found)
    # row1 3 of 3 against 0; row2 1 of 3 against 1; row3 0 of 2 against 0 and one error; row4 is of a slice
    accuracy = found["headline"]["slot_accuracy"]
    assert (accuracy["a"], accuracy["b"], accuracy["n_a"], accuracy["n_b"]) == (4 / 8, 1 / 8, 8, 8)
    assert accuracy["difference"] == pytest.approx(3 / 8)
    assert found["headline"]["json_validity"]["difference"] == pytest.approx(2 / 3 - 1)
    assert found["headline"]["schema_validity"]["difference"] == pytest.approx(2 / 3 - 1)
    assert found["headline"]["perfect_records"]["difference"] == pytest.approx(1 / 3)
    assert found["mcnemar"] == {"only_a": 1, "only_b": 0, "p_value": 1.0}
    slots = {path: (slot["a"], slot["b"], slot["n_a"]) for path, slot in found["per_slot"].items()}
    assert slots == {"a": (1 / 3, 1 / 3, 3), "b": (1.0, 0.0, 2), "c": (1 / 3, 0.0, 3)}
    assert (found["won"], found["lost"], found["tied"], found["errors"]) == (["row1"], [], 2, 1)
    assert (found["n"], found["groups"]) == (3, 3)
    assert {name: part["difference"] for name, part in found["parts"].items()} == {
        "task=t1_parse": pytest.approx(3 / 8),
        "unseen_synonyms": pytest.approx(2 / 3),
    }
    # of the 27 draws of three rows, 8 are without row1 and show no difference, 1 is row1 alone and shows 3 of 3
    assert accuracy["ci95"] == pytest.approx([0.0, 1.0])
    assert any("only 3 groups" in note for note in found["notes"])
    text = (judged / f"compare_{RUN}_{RUN}@null.md").read_text()
    printed = capsys.readouterr().out
    for shown in (text, printed):
        assert "+37.5 points" in shown
        assert "no difference is shown" in shown
        assert "1 of a alone, 0 of b alone" in shown
    assert printed.endswith(f"next: fab package.export -r {RUN}\n")


def test_the_default_is_the_newest_run_against_its_base(judged):
    script.main([])
    found = compared(judged, f"compare_{RUN}_{RUN}@base.json")
    assert (found["a"]["answers"], found["b"]["answers"]) == ("merged", "base")
    assert found["headline"]["json_validity"]["b"] == 0


def test_a_second_comparison_is_the_same_and_swapping_turns_it_round(judged):
    script.main(["-b", f"{RUN}:null"])
    path = judged / f"compare_{RUN}_{RUN}@null.json"
    before = path.read_bytes()
    script.main(["-b", f"{RUN}:null"])
    assert path.read_bytes() == before
    script.main(["-a", f"{RUN}:null", "-b", RUN])
    turned(json.loads(before), compared(judged, f"compare_{RUN}@null_{RUN}.json"))


def turned(one: dict, other: dict) -> None:
    """Asserts that `other` is `one` with the sides swapped."""
    assert (one["won"], one["lost"]) == (other["lost"], other["won"])
    assert one["mcnemar"]["only_a"] == other["mcnemar"]["only_b"]
    assert one["mcnemar"]["p_value"] == other["mcnemar"]["p_value"]
    for kind in ("headline", "per_slot", "parts"):
        assert set(one[kind]) == set(other[kind])
        for name, difference in one[kind].items():
            against = other[kind][name]
            assert (difference["a"], difference["n_a"]) == (against["b"], against["n_b"])
            if difference["difference"] is None:
                assert against["difference"] is None
                continue
            assert difference["difference"] == pytest.approx(-against["difference"], abs=1e-12)
            assert difference["ci95"] == pytest.approx([-bound for bound in reversed(against["ci95"])], abs=1e-12)


def other_run(judged: Path, name: str, **changes) -> Path:
    """A second run whose answers are those of null; returns its report folder."""
    record = json.loads((Path("models") / RUN / "run.json").read_text())
    write_json(Path("models") / name / "run.json", {**record, "run": name, **changes})
    folder = Path("reports") / name
    folder.mkdir()
    (folder / "predictions.jsonl").write_bytes((judged / "predictions.null.jsonl").read_bytes())
    judge_script.main(["-r", name])
    return folder


def test_two_runs_are_compared_and_the_first_ones_folder_has_it(judged):
    other_run(judged, "second")
    script.main(["-a", RUN, "-b", "second"])
    script.main(["-a", RUN, "-b", f"{RUN}:null"])
    one, two = (compared(judged, f"compare_{RUN}_{name}.json") for name in ("second", f"{RUN}@null"))
    assert one["headline"] == two["headline"]


def test_other_test_rows_are_refused_by_name(judged):
    snapshot = Path("data/processed/batfit/test.v2.jsonl")
    snapshot.write_bytes(Path("data/processed/batfit/test.v1.jsonl").read_bytes() + b"\n")
    entry = {"file": str(snapshot), "rows": 4, "sha256": sha256_file(snapshot)}
    other_run(judged, "second", snapshot="v2", snapshots=dict.fromkeys(("train", "val", "test"), entry))
    with pytest.raises(Stop, match=r"batfit-byhand is graded on .*test.v1.jsonl and second on .*test.v2.jsonl") as stop:
        script.main(["-a", RUN, "-b", "second"])
    assert stop.value.code == DATA
    assert not list(judged.glob("compare_*"))


def test_other_levels_and_other_judges_are_refused_by_name(judged):
    folder = other_run(judged, "second")
    (verdicts,) = folder.glob("judge_run_*[0-9].jsonl")
    before = verdicts.read_text()
    verdicts.write_text(before.replace('"level":"exact"', '"level":"substring"'))
    with pytest.raises(Stop, match=r"slot 'a' of task t1_parse is scored by exact .* and by substring"):
        script.main(["-a", RUN, "-b", "second"])
    verdicts.write_text(before)
    (path,) = folder.glob("judge_run_*[0-9].json")
    path.write_text(path.read_text().replace('"model": "embedded/lexical"', '"model": "gpt-9"'))
    with pytest.raises(Stop, match="batfit-byhand by embedded/lexical and second by gpt-9"):
        script.main(["-a", RUN, "-b", "second"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-b", f"{RUN}:gguf-q8_0"], r"predictions.gguf-q8_0.jsonl is not there. Run fab package.parity"),
        (["-b", "nothing"], "models/nothing/run.json is not there"),
        (["-a", f"{RUN}:val"], "answers another split"),
        (["-a", "../x"], "is no run name"),
    ],
)
def test_a_users_mistake_is_one_clear_line(judged, arguments, message):
    with pytest.raises(Stop, match=message):
        script.main(arguments)


def test_a_base_that_was_not_asked_yet_is_the_next_command(judged):
    (judged / "predictions.base.jsonl").unlink()
    with pytest.raises(Stop, match=f"Run fab eval.generate --backend base -r {RUN}, then fab eval.judge -r {RUN}"):
        script.main([])


def test_rows_that_one_side_lacks_are_left_out_and_said(judged):
    lines = (judged / "predictions.base.jsonl").read_text().splitlines(keepends=True)
    (judged / "predictions.base.jsonl").write_text("".join(lines[:2]))
    judge_script.main(["-r", RUN, "--predictions", "base", "--partial"])
    script.main([])
    found = compared(judged, f"compare_{RUN}_{RUN}@base.json")
    assert found["n"] == 2
    assert f"2 rows that only {RUN} answers are left out" in found["notes"]
    (judged / "predictions.base.jsonl").write_text(lines[3])
    judge_script.main(["-r", RUN, "--predictions", "base", "--partial"])
    with pytest.raises(Stop, match="answer no test row outside the slices in common"):
        script.main([])


def test_a_hostile_id_stays_one_code_span_of_its_line(judged):
    script.main([])
    found = Comparison.model_validate(compared(judged, f"compare_{RUN}_{RUN}@base.json"))
    hostile = found.model_copy(update={"won": ["a`<script>\n# heading"], "notes": ["<b>|x"]})
    text = script.markdown(hostile)
    assert "- ``a`<script> # heading``\n" in text
    assert "\\<b\\>\\|x" in text


# --- the statistics

tallies = st.lists(
    st.tuples(st.integers(0, 5), st.lists(st.sampled_from([True, False, None]), min_size=6, max_size=6)),
    min_size=1,
    max_size=30,
)


def answers(name: str, passed: list[tuple[int, list[bool | None]]], first: int) -> Answers:
    """A side: one row per item with three slots, whose verdicts are `first`, `first` + 1 and + 2 of the item's list."""
    rows = []
    for number, (group, marks) in enumerate(passed):
        id = f"r{number}"
        verdicts = [
            Verdict(
                id=id, task="t1_parse", slot=slot, level="exact", reference=1, candidate=1,
                score=None if mark is None else float(mark), passed=mark, status="error" if mark is None else "scored",
                judge="rule", reason="", cached=False, cost_usd=0.0,
            )
            for slot, mark in zip("abc", marks[first : first + 3], strict=True)
        ]  # fmt: skip
        rows.append(Row(example(id, {"group": f"g{group}"}, {}), prediction(id, "{}", 1), verdicts))
    entry = {"file": "test.jsonl", "rows": len(rows), "sha256": "0" * 64}
    record = RunRecord.model_validate(
        {
            "run": name,
            "workload": "batfit",
            "created_at": "",
            "train_config": "nano",
            "mode": "full",
            "base": {"name": "nano", "path": "models/nano", "revision": None, "sha256": ""},
            "snapshot": "v1",
            "snapshots": {"test": entry},
            "git_commit": None,
            "git_dirty": False,
            "lock_sha256": None,
            "seed": 1,
            "device": "cpu",
        }
    )
    judged = Judged(
        predictions="p", predictions_sha256="0", verdicts="v", rows=len(rows), calls=0, cached=0, errors=0, cost_usd=0.0
    )
    run = JudgeRun(run=name, created_at="", model="m", label="m", prompt_sha256="", snapshots={}, judged={})
    return Answers(record, "merged", rows, run, judged)


@settings(max_examples=40, deadline=None)
@given(tallies)
def test_swapping_the_sides_changes_signs_and_nothing_else(passed):
    a, b = answers("one", passed, 0), answers("two", passed, 3)
    one, other = (comparing.compare(*sides, "group", draws=200).model_dump() for sides in ((a, b), (b, a)))
    turned(one, other)


@settings(max_examples=40, deadline=None)
@given(tallies)
def test_equal_answers_differ_by_nothing(passed):
    found = comparing.compare(answers("one", passed, 0), answers("two", passed, 0), "group", draws=200)
    for difference in [*found.headline.values(), *found.per_slot.values(), *found.parts.values()]:
        assert difference.difference in (0, None)
        assert difference.ci95 in ([0.0, 0.0], None)
    assert (found.won, found.lost, found.mcnemar.p_value) == ([], [], 1.0)


@settings(max_examples=30, deadline=None)
@given(tallies, st.integers(2, 4))
def test_copies_of_rows_within_their_groups_narrow_no_interval(passed, copies):
    once = comparing.compare(answers("one", passed, 0), answers("two", passed, 3), "group", draws=200)
    more = passed * copies
    often = comparing.compare(answers("one", more, 0), answers("two", more, 3), "group", draws=200)
    for name, difference in once.headline.items():
        if difference.ci95 is not None:
            assert often.headline[name].ci95 == pytest.approx(difference.ci95, abs=1e-12)


def test_the_interval_is_that_of_scipys_paired_bootstrap():
    random = numpy.random.default_rng(3)
    scored = random.integers(1, 9, size=(2, 80))
    passed = random.binomial(scored, [[0.8], [0.6]])
    sides = {str(n): (int(passed[0, n]), int(scored[0, n]), int(passed[1, n]), int(scored[1, n])) for n in range(80)}
    found = paired.differences({"x": sides}, {id: id for id in sides}, 10_000, 1)["x"]

    def statistic(pa, na, pb, nb, axis):
        return pa.sum(axis) / na.sum(axis) - pb.sum(axis) / nb.sum(axis)

    data = (passed[0], scored[0], passed[1], scored[1])
    oracle = scipy.stats.bootstrap(
        data, statistic, paired=True, method="percentile", n_resamples=10_000, random_state=random
    ).confidence_interval
    assert found.difference == pytest.approx(statistic(*data, 0))
    assert found.ci95 == pytest.approx([oracle.low, oracle.high], abs=0.005)
    assert found.ci95[0] > 0


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_p_is_scipys_binomial_test(only_a, only_b, alike):
    rows = [(1, 1, 0, 1)] * only_a + [(0, 1, 1, 1)] * only_b + [(1, 1, 1, 1)] * alike
    found = paired.mcnemar(rows)
    wanted = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(wanted)


def test_thousands_of_discordant_rows_are_no_overflow():
    assert paired.mcnemar([(1, 1, 0, 1)] * 3000 + [(0, 1, 1, 1)] * 100).p_value == pytest.approx(0, abs=1e-300)


def test_the_detectable_difference_is_the_one_that_is_shown_four_times_of_five():
    norm = scipy.stats.norm
    error = 0.02
    found = paired.Difference(
        a=0.9, b=0.88, n_a=9, n_b=9, difference=0.02, ci95=[0.02 - 1.959964 * error, 0.02 + 1.959964 * error]
    )
    smallest = paired.detectable(found)
    # of estimates around it, this share has an interval above zero
    assert norm.sf(1.959964 * error, loc=smallest, scale=error) == pytest.approx(0.8, abs=1e-4)
    assert paired.detectable(found.model_copy(update={"ci95": None})) is None


def test_a_side_costs_what_its_tokens_or_its_time_cost(judged):
    a, b = (comparing.read(RUN, name) for name in ("merged", "null"))
    fast = Speed(samples=4, latency_ms={}, tokens_per_s=1.0, answers_per_s=100.0, load_s=0.0, bytes=1)
    assert script.costs(a, b, {"a": fast}) == {}
    limits = Path("configs/gate.yaml")
    prices = "{strong_model: big, input_usd_per_million: 2.5, output_usd_per_million: 10, host_usd_per_hour: 0.36}"
    limits.write_text(limits.read_text() + f"prices: {prices}\n")
    assert script.costs(a, b, {"a": fast}) == {"a": pytest.approx(0.001)}
    by_big = [row._replace(prediction=row.prediction.model_copy(update={"backend": "litellm big"})) for row in b.rows]
    tokens = [(p.prompt_tokens, p.completion_tokens) for p in (row.prediction for row in by_big)]
    usd = sum(i * 2.5 + o * 10 for i, o in tokens) / len(tokens) / 1e6 * 1000
    assert script.costs(a, b._replace(rows=by_big), {}) == {"b": pytest.approx(usd)}
