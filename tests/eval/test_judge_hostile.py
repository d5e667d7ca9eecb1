"""The judge against a server that misbehaves, through LiteLLM, the cache and a ledger: counts, never times."""

import pytest

from benchmarks import judge as bench
from benchmarks.judge_server import KINDS
from potstill import judge_spend

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic", "ignore::RuntimeWarning")


def test_with_three_in_ten_requests_failing_every_item_is_a_verdict_or_an_error():
    found = bench.faults(150)
    assert found["verdicts"] + found["errors"] == 150
    assert found["verdicts"] >= 120
    assert found["calls_per_item"] <= 1.5
    assert found["answered_twice"] == 0
    assert found["asked_after_400"] == 0
    assert set(found["outcomes"]) >= {"ok", "400", "429 date", "429 seconds", "html", "null"}
    assert len(set(found["outcomes"]) - {"ok"}) >= len(KINDS) - 3
    assert found["void"] is None


def test_a_refused_key_stops_within_the_calls_under_way():
    found = bench.refusal(400, 8)
    assert found["stopped_with"] == 69
    assert 1 <= found["requests_after_401"] <= 8


def test_spending_stops_just_below_the_cap_and_the_run_says_that_it_is_incomplete():
    found = bench.cap(800)
    assert 0.98 <= found["billed_share_of_cap"] <= 1.0
    assert found["spend_ledger_usd"] == pytest.approx(found["billed_usd"])
    assert "max_cost_usd is 0.152" in found["incomplete"]


def test_a_second_run_asks_nothing_and_a_down_service_stops_the_run(tmp_path):
    asked = bench.questions(60)
    with bench.served("--latency-ms", "1") as server:
        given = bench.settings(server, concurrency=8)
        first, _ = bench.judged(tmp_path, given, asked)
        before = server.counts()["requests"]
        assert before == 60 + first.canaries
        second, _ = bench.judged(tmp_path, given, asked)
        assert server.counts()["requests"] == before
    assert all(result["cached"] and not result["calls"] for result in second.results.values())
    assert {key: result["score"] for key, result in second.results.items()} == {
        key: result["score"] for key, result in first.results.items()
    }
    with (
        bench.served("--latency-ms", "1", "--faults", "1", "--kinds", "503") as server,
        pytest.raises(bench.Stop, match=r"questions in a row without an answer, the last with .*503") as stop,
    ):
        bench.judged(tmp_path, bench.settings(server, concurrency=8, retries=0), bench.questions(500))
    assert stop.value.code == 69


def test_the_daily_cap_counts_what_other_runs_spent_today(tmp_path):
    spend = judge_spend.Spend(tmp_path / "spend.sqlite")
    spend.add("another run", "m", 100, 0.75)
    spend.add("another run", "m", 100, 0.25)
    spend.add("another run", "m", 7, 9.0, day="2026-01-01")
    assert (spend.of_day(), spend.of_run("another run"), spend.of_run("this")) == (1.0, 10.0, 0.0)
    assert [(day.calls, day.usd) for day in spend.days()] == [(200, 1.0), (7, 9.0)]
    spend.close()
