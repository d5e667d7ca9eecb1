"""scripts/eval/judge.py on the run made by hand, through LiteLLM with the embedded provider."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from byhand import write_predictions

from potstill import grading, judge, judge_canaries, judge_lexical
from potstill.files import stage_lock
from potstill.grading import JudgeRun
from potstill.records import Verdict, read_jsonl
from potstill.stop import BUSY, DATA, UNAVAILABLE, USAGE, Stop
from scripts.eval import judge as script

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
RUN = "batfit-byhand"
WRONG = '{"score": 0.0, "reason": "another meaning"}'
CANARIES = len(judge_canaries.canaries("any model"))
REPO = Path(__file__).parents[2]


def verdicts(folder: Path, name: str = "merged") -> dict[tuple[str, str], Verdict]:
    newest = next(run for run in grading.judge_runs(folder) if name in run.judged)
    rows = read_jsonl(folder / newest.judged[name].verdicts, Verdict)
    return {(row.id, row.slot): row for row in rows}


def newest(folder: Path) -> JudgeRun:
    return grading.judge_runs(folder)[0]


def test_rules_decide_what_they_can_and_the_judge_the_rest(byhand, capsys):
    script.main(["-r", RUN])
    found = verdicts(byhand)
    assert len(found) == 12
    assert {key: row.score for key, row in found.items() if row.judge == "rule"} == {
        ("row1", "a"): 1.0,
        ("row1", "b"): 1.0,
        ("row1", "c"): 1.0,
        ("row2", "a"): 0.0,
        ("row2", "b"): 1.0,
        ("row3", "a"): 0.0,
        ("row3", "b"): None,
        ("row3", "c"): 0.0,
        ("row4", "a"): 1.0,
        ("row4", "b"): 1.0,
        ("row4", "c"): 1.0,
    }
    judged = found["row2", "c"]
    assert judged.judge == "embedded/lexical"
    assert 0 < judged.score < 0.85
    assert judged.passed is False
    assert found["row3", "b"].status == "error"
    assert "the reference is text" in found["row3", "b"].reason
    assert found["row3", "a"].reason == "no valid JSON"
    assert {row.score for row in verdicts(byhand, "base").values() if row.status == "scored"} == {0.0}
    assert verdicts(byhand, "null")["row2", "a"].score == 1.0
    run = newest(byhand)
    assert run.label == "embedded/lexical - not an LLM"
    assert (run.judged["merged"].calls, run.judged["merged"].errors) == (1, 1)
    printed = capsys.readouterr().out
    assert "wrote reports/batfit-byhand/judge_run_" in printed
    assert printed.endswith("next: fab eval.report -r batfit-byhand\n")


def test_a_second_run_makes_no_call_and_leaves_no_ledger(byhand):
    script.main(["-r", RUN])
    script.main(["-r", RUN, "--predictions", "merged"])
    again = newest(byhand)
    assert list(again.judged) == ["merged"]
    assert (again.judged["merged"].calls, again.judged["merged"].cached) == (0, 1)
    assert verdicts(byhand)["row2", "c"].cached
    assert len(grading.judge_runs(byhand)) == 2
    assert not list(byhand.glob(".judge-*"))


def test_no_free_text_that_differs_means_no_call_and_no_litellm(byhand):
    # a name no provider knows would be refused, had it been looked up
    for name in ("null", "base"):
        options = ["-r", RUN, "--predictions", name, "-o", "model=no-such-model"]
        code = f"import sys; from scripts.eval import judge; judge.main({options}); assert 'litellm' not in sys.modules"
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "0 calls" in done.stdout


def test_an_answer_that_breaks_the_schema_scores_nothing(byhand):
    path = byhand / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["valid_schema"] = False
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    script.main(["-r", RUN, "--predictions", "merged"])
    found = verdicts(byhand)
    assert [found["row1", slot].score for slot in "abc"] == [0.0] * 3
    assert found["row1", "a"].reason == "valid JSON that breaks the schema"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:2] + lines[3:], "no answer to id 'row3', 3 of 4 rows"),
        (lambda lines: [*lines, lines[1]], "id 'row2' is there twice"),
        (lambda lines: [line.replace('"id":"row2"', '"id":"stray"') for line in lines], "id 'stray' is not in"),
        (
            lambda lines: [line.replace('"repaired"', '"repeired"') for line in lines],
            "line 1: repaired: Field",
        ),
    ],
)
def test_predictions_that_do_not_match_are_refused_and_nothing_is_written(byhand, change, message):
    path = byhand / "predictions.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(Stop, match=message) as stop:
        script.main(["-r", RUN])
    assert stop.value.code == DATA
    assert not list(byhand.glob("judge_run_*"))


def test_partial_answers_are_judged_when_told(byhand):
    path = byhand / "predictions.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    script.main(["-r", RUN, "--predictions", "merged", "--partial"])
    assert newest(byhand).judged["merged"].rows == 2


def test_answers_to_another_split_are_judged_only_when_named(byhand):
    (byhand / "predictions.val.jsonl").write_text((byhand / "predictions.null.jsonl").read_text())
    script.main(["-r", RUN])
    assert sorted(newest(byhand).judged) == ["base", "merged", "null"]
    script.main(["-r", RUN, "--predictions", "val"])
    assert list(newest(byhand).judged) == ["val"]


def test_a_run_that_was_stopped_goes_on_and_pays_nothing_twice(byhand):
    litellm = judge.load_litellm()
    from litellm.llms.custom_llm import CustomLLM

    class Refusing(CustomLLM):
        """Answers the canaries and two questions, then refuses the key until it is renewed."""

        calls, renewed = 0, False

        async def acompletion(self, *, messages, model_response, **_):
            Refusing.calls += 1
            if Refusing.calls == CANARIES + 3 and not Refusing.renewed:
                raise litellm.AuthenticationError(message="sk-secret", llm_provider="refusing", model="m")
            prompt = messages[-1]["content"]
            denied = "The pump never stops" in prompt or "The pump starts when" in prompt
            model_response.choices[0].message.content = WRONG if denied else judge_lexical.answer(prompt)
            return model_response

    (byhand / "predictions.jsonl").unlink()
    answers = [f'{{"a":1,"b":2,"c":"text {n}"}}' for n in range(4)]
    write_predictions("merged", answers)
    entry = {"provider": "refusing", "custom_handler": Refusing()}
    litellm.custom_provider_map.append(entry)
    options = ["-r", RUN, "--predictions", "merged", "-o", "model=refusing/m", "-o", "concurrency=1"]
    options += ["-o", "price_per_million={input: 0, output: 0}"]
    try:
        with pytest.raises(Stop, match="refuses the call") as stop:
            script.main(options)
        assert stop.value.code == UNAVAILABLE
        assert list(byhand.glob(".judge-*.ledger"))
        assert not list(byhand.glob("judge_run_*"))
        Refusing.renewed = True
        script.main(options)
    finally:
        litellm.custom_provider_map.remove(entry)
    # three free texts differ (row4's reference is null): two answers, one refusal, one answer
    assert Refusing.calls == CANARIES + 4
    assert newest(byhand).judged["merged"].calls == 3
    assert sum(row.judge == "refusing/m" for row in verdicts(byhand).values()) == 3
    assert newest(byhand).canaries == CANARIES
    assert not list(byhand.glob(".judge-*"))


def test_keys_come_from_env_files_and_the_ssh_agent_is_dropped(byhand, monkeypatch):
    for name in ("POTSTILL_TEST_A", "POTSTILL_TEST_B", "POTSTILL_TEST_C", "POTSTILL_TEST_D"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SSH_AUTH_SOCK", "agent.sock")
    monkeypatch.setenv("SSH_AGENT_PID", "1")
    monkeypatch.setenv("POTSTILL_TEST_A", "from the environment")
    Path(".env").write_text(
        "# keys\nPOTSTILL_TEST_A=no\nexport POTSTILL_TEST_B = 'a b'\n\nPOTSTILL_TEST_C=x=y\nPOTSTILL_TEST_D=no\n"
    )
    names = "environment=[POTSTILL_TEST_A, POTSTILL_TEST_B, POTSTILL_TEST_C]"
    script.main(["-r", RUN, "--predictions", "null", "-o", names])
    assert os.environ["POTSTILL_TEST_A"] == "from the environment"
    assert os.environ["POTSTILL_TEST_B"] == "a b"
    assert os.environ["POTSTILL_TEST_C"] == "x=y"
    assert "POTSTILL_TEST_D" not in os.environ, "a line of .env that is not the provider's stays out"
    assert "SSH_AUTH_SOCK" not in os.environ
    assert "SSH_AGENT_PID" not in os.environ
    Path(".env").write_text("OK=1\nsk-a-secret-that-stands-alone\n")
    with pytest.raises(Stop, match="line 2: want KEY=VALUE") as stop:
        script.main(["-r", RUN])
    assert "sk-a-secret" not in str(stop.value)


def test_what_a_user_can_break_is_named(byhand):
    def code(*options):
        with pytest.raises(Stop) as stop:
            script.main(["-r", RUN, *options])
        return stop.value.code, str(stop.value)

    assert code("-o", "modle=x") == (USAGE, "configs/judge.yaml: unknown key 'modle'. Did you mean 'model'?")
    assert code("--predictions", "gguf-q8_0")[0] == DATA
    with stage_lock(byhand, "eval.judge"):
        assert code()[0] == BUSY
    snapshot = Path("data/processed/batfit/test.v1.jsonl")
    snapshot.write_text(snapshot.read_text().replace("numeric_tol", "numeric_tal"))
    assert code()[0] == DATA
    Path("configs/judge_prompt.txt").write_text("Grade {{candidate}} against {{reference}}.")
    assert code() == (USAGE, "configs/judge_prompt.txt: the placeholder {{nonce}} is missing")
    Path("configs/judge_prompt.txt").unlink()
    assert code()[0] == USAGE
