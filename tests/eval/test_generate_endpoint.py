"""eval.generate against a real HTTP server: a served model, or the strong model, well and badly behaved."""

import argparse
import json
from pathlib import Path

import byhand as by_hand
import pytest

from potstill import daily, judge_calls
from potstill.records import Prediction, read_jsonl
from potstill.stop import BUSY, REJECT, UNAVAILABLE, USAGE, Stop
from scripts.eval import generate, judge
from service import USED, Service

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
RIGHT = {f"the prompt of {row[0]} </pre><b>": json.dumps(row[2]) for row in by_hand.ROWS}


@pytest.fixture
def service():
    made = Service()
    made.known = dict(RIGHT)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def run(byhand: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    monkeypatch.setattr(judge_calls, "BACKOFF_MAX_S", 0.01)
    return byhand


def options(service: Service, *more: str) -> list[str]:
    server = ["--model", "openai/test-model", "--api-base", service.url, "--price", "2,8", "--yes"]
    return ["-r", by_hand.RUN, *server, "--concurrency", "2", *more]


def written(run: Path, name: str = "openai-test-model") -> list[Prediction]:
    return list(read_jsonl(run / f"predictions.{name}.jsonl", Prediction))


def test_an_endpoints_answers_are_written_in_order_and_can_be_judged(run: Path, service: Service, capsys):
    generate.main(options(service))
    rows = written(run)
    assert [row.id for row in rows] == [row[0] for row in by_hand.ROWS]
    assert [row.output for row in rows] == list(RIGHT.values())
    assert {row.backend for row in rows} == {"litellm openai/test-model"}
    assert {row.prompt_tokens for row in rows} == {USED["prompt_tokens"]}
    assert all(row.latency_ms > 0 for row in rows)
    out = capsys.readouterr().out
    assert "4 prompts to openai/test-model: about" in out
    assert "sk-secret-key" not in out
    limits = {body["max_tokens"] for body in service.asked}
    assert len(limits) == 1
    assert all("response_format" not in body for body in service.asked)
    judge.main(["-r", by_hand.RUN, "--predictions", "openai-test-model"])
    # as served: the run's own system text, which these rows leave empty
    assert all([m["role"] for m in body["messages"]] == ["user"] for body in service.asked)


def test_a_strong_model_is_taught_and_held_to_the_schema_when_asked(run: Path, service: Service):
    generate.main(options(service, "--taught", "--constrained", "--answers", "strong"))
    assert len(written(run, "strong")) == 4
    for body in service.asked:
        system, _ = (message["content"] for message in body["messages"])
        assert "must conform to this JSON Schema" in system
        assert body["response_format"]["type"] == "json_schema"
        assert body["response_format"]["json_schema"]["schema"]["type"] == "object"


def test_what_failed_is_told_and_asked_again_only_on_demand(run: Path, service: Service, capsys):
    bad = "the prompt of row2 </pre><b>"
    service.misbehave = lambda number, prompt: ("status", 400) if prompt == bad else None
    for _ in range(2):
        with pytest.raises(Stop, match="1 rows got no answer") as stopped:
            generate.main(options(service))
        assert stopped.value.code == UNAVAILABLE
    assert service.times_asked() == dict.fromkeys(RIGHT, 1)
    assert [row.id for row in written(run)] == ["row1", "row3", "row4"]
    assert "no answer to row2: BadRequestError" in capsys.readouterr().out
    service.misbehave = lambda number, prompt: None
    generate.main(options(service, "--retry-errors"))
    assert [row.id for row in written(run)] == ["row1", "row2", "row3", "row4"]
    assert service.times_asked()[bad] == 2
    assert service.times_asked().total() == 5
    assert not list(run.glob(".predictions*"))


def test_it_waits_as_long_as_the_service_asks_and_no_longer_than_a_run_can(run: Path, service: Service):
    service.misbehave = lambda number, prompt: ("status", "429 2") if number == 1 else None
    generate.main(options(service, "--concurrency", "1"))
    # the first pause is a random one below half a second, without the header
    assert service.asked[1]["at_s"] - service.asked[0]["at_s"] >= 2
    service.misbehave = lambda number, prompt: ("status", "429 86400")
    with pytest.raises(Stop, match="asks to wait 86400 s, more than 300 s") as stopped:
        generate.main(options(service, "--concurrency", "1", "--answers", "again"))
    assert stopped.value.code == UNAVAILABLE
    assert len(service.asked) == 6


def test_the_cap_stops_before_it_is_passed_and_a_higher_one_goes_on(run: Path, service: Service):
    # the service says it used more than the prompt can be expected to: one call at a time shows where the cap is
    with pytest.raises(Stop, match=r"--max-cost is 0\.003") as stopped:
        generate.main(options(service, "--max-cost", "0.003", "--concurrency", "1"))
    assert stopped.value.code == REJECT
    assert len(service.asked) == 1
    generate.main(options(service))
    assert service.times_asked() == dict.fromkeys(RIGHT, 1)


def test_the_days_tokens_stop_it_and_it_goes_on_the_next_day(
    run: Path, service: Service, monkeypatch: pytest.MonkeyPatch
):
    path = Path("configs/project.yaml")
    path.write_text(path.read_text().replace("10000000", str(3 * USED["total_tokens"])))
    daily.add("2026-11-20", 3 * USED["total_tokens"] - 10)
    monkeypatch.setattr(daily, "today", lambda: "2026-11-20")
    with pytest.raises(Stop, match="tokens are used on 2026-11-20 and daily_token_budget") as stopped:
        generate.main(options(service))
    assert stopped.value.code == BUSY
    assert not service.asked
    monkeypatch.setattr(daily, "today", lambda: "2026-11-21")
    generate.main(options(service))
    assert daily.used("2026-11-21") == 4 * USED["total_tokens"]
    assert daily.used("2026-11-20") == 3 * USED["total_tokens"] - 10


def test_two_models_at_once_are_refused(run: Path, service: Service):
    with pytest.raises(Stop, match="--backend base and --model are two different models") as stopped:
        generate.main(options(service, "--backend", "base"))
    assert stopped.value.code == USAGE
    assert not service.asked


@pytest.mark.parametrize("name", ["base", "test", "Strong", "../x", "a.b"])
def test_a_name_that_would_be_another_file_is_refused(run: Path, service: Service, name: str):
    with pytest.raises(Stop) as stopped:
        generate.main(options(service, "--answers", name))
    assert stopped.value.code == USAGE
    assert not service.asked


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "merged"),
        ({"split": "val"}, "val"),
        ({"split": "val", "backend": "base"}, "val.base"),
        ({"constrained": True}, "merged-constrained"),
        ({"model": "openai/GPT-4o.mini"}, "openai-gpt-4o-mini"),
        ({"model": "ollama/x", "answers": "pi", "split": "val"}, "val.pi"),
    ],
)
def test_answers_are_named_for_what_gave_them(given: dict[str, object], name: str):
    usual = {"answers": None, "model": None, "backend": "merged", "constrained": False, "split": "test"}
    assert generate.name_of(argparse.Namespace(**{**usual, **given})) == name


def test_nobody_is_there_to_agree_to_the_cost(run: Path, service: Service):
    given = [word for word in options(service) if word != "--yes"]
    with pytest.raises(Stop, match="Give --yes"):
        generate.main(given)
    assert not service.asked
