"""Rates, budgets, Retry-After, and what a judge's process may see."""

import asyncio
import email.utils
import selectors

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill import credentials, judge_calls
from potstill.judge_limits import Rate
from potstill.pricing import Budget, Cap, CapReached


class Waiting(selectors.SelectSelector):
    """Lets a loop's time pass instead of waiting."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None):
        assert timeout is not None, "everything waits for something that never comes"
        # a timer a rounding error ahead would otherwise never come
        self.now += timeout + 1e-9 if timeout > 0 else 0.0
        return super().select(0)


def starts(per_minute: float | None, amounts: list[float], arrivals: list[float]) -> list[float]:
    """When each of the amounts that arrive at these times is let through."""
    let_through = [-1.0] * len(amounts)

    async def one(rate: Rate, number: int) -> None:
        await asyncio.sleep(arrivals[number])
        await rate.acquire(amounts[number])
        let_through[number] = asyncio.get_running_loop().time()

    async def all_of_them() -> None:
        rate = Rate(per_minute)
        await asyncio.gather(*(one(rate, number) for number in range(len(amounts))))

    waiting = Waiting()
    loop = asyncio.SelectorEventLoop(waiting)
    loop.time = lambda: waiting.now
    loop.run_until_complete(all_of_them())
    loop.close()
    return let_through


@given(st.lists(st.tuples(st.floats(0.1, 50), st.floats(0.001, 30)), min_size=1, max_size=30), st.floats(10, 600))
def test_no_minute_sees_more_than_its_limit_a_second_of_it_and_one_request_besides(requests, per_minute):
    amounts = [amount for amount, _ in requests]
    arrivals = [sum(gap for _, gap in requests[: n + 1]) for n in range(len(requests))]
    let_through = starts(per_minute, amounts, arrivals)
    assert let_through == sorted(let_through)
    assert all(start >= arrival for start, arrival in zip(let_through, arrivals, strict=True))
    for number, start in enumerate(let_through):
        inside = [amounts[n] for n in range(number, len(amounts)) if let_through[n] < start + 60]
        assert sum(inside[1:]) <= per_minute + max(1.0, per_minute / 60) + 0.001


def test_without_a_limit_nothing_waits():
    assert starts(None, [1e9] * 1000, [0.0] * 1000) == [0.0] * 1000
    assert starts(60, [1, 1, 1], [0, 0, 0]) == pytest.approx([0, 1, 2], abs=1e-6)


def test_a_large_request_is_not_passed_by_small_ones_that_come_later():
    """As aiolimiter's own bucket would let them."""
    large, *small = starts(600, [100] + [1] * 20, [n / 1000 for n in range(21)])
    assert large == pytest.approx(9, abs=0.01)
    assert min(small) > large


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), max_size=50), st.floats(0.1, 5))
def test_a_budget_is_never_passed_whatever_the_calls_cost(calls, cap):
    budget = Budget(Cap(0.0, cap, "{spent} {cap}"))
    for most, share in calls:
        try:
            budget.reserve(most)
        except CapReached:
            assert budget.spent_usd + most > cap
            continue
        budget.settle(most, most * share)
        assert budget.spent_usd <= cap * 1.000001


def test_the_tighter_cap_tells():
    budget = Budget(Cap(0.0, 5.0, "run {spent} {cap}"), Cap(9.9, 10.0, "day {spent} {cap}"))
    with pytest.raises(CapReached, match=r"day 9\.9 10\.0") as stop:
        budget.reserve(0.2)
    assert stop.value.code == 100
    budget.reserve(0.05)


def test_retry_after_is_read_in_both_forms():
    date = "Sat, 21 Nov 2026 10:00:00 GMT"
    later = email.utils.format_datetime(email.utils.parsedate_to_datetime(date).replace(minute=2))
    assert judge_calls.retry_after({"retry-after": "7"}) == 7
    assert judge_calls.retry_after({"retry-after": " 1.5 "}) == 1.5
    assert judge_calls.retry_after({"retry-after": later, "date": date}) == 120
    assert judge_calls.retry_after({"retry-after": date, "date": later}) == 0
    for bad in ("", "soon", "-3", "٣", "nan", "Sat, 99 Nov 2026", "1.2.3"):
        assert judge_calls.retry_after({"retry-after": bad}) is None
    assert judge_calls.retry_after({}) is None


@pytest.mark.parametrize(
    ("model", "extra", "sees", "does_not"),
    [
        ("gpt-4o-mini", [], ["OPENAI_API_KEY", "OPENAI_BASE_URL"], ["ANTHROPIC_API_KEY", "MY_OPENAI_KEY"]),
        ("openai/x", [], ["OPENAI_API_KEY"], ["AWS_SECRET_ACCESS_KEY", "DATABASE_URL"]),
        ("claude-sonnet", [], ["ANTHROPIC_API_KEY"], ["OPENAI_API_KEY"]),
        ("bedrock/x", [], ["AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"], ["OPENAI_API_KEY"]),
        ("hosted_vllm/x", ["PROXY_TOKEN"], ["HOSTED_VLLM_API_KEY", "PROXY_TOKEN"], ["HF_TOKEN"]),
        ("embedded/lexical", [], ["PATH", "LC_ALL", "https_proxy"], ["OPENAI_API_KEY", "GITHUB_TOKEN"]),
    ],
)
def test_a_judge_sees_its_providers_variables_and_what_is_harmless(model, extra, sees, does_not):
    may_see = credentials.allowed(model, extra)
    assert all(may_see(name) for name in ["HOME", "TERM", *sees])
    refused = ["SSH_AUTH_SOCK", "SSH_AGENT_PID", "PATH_TO_SECRET", *does_not]
    assert not any(may_see(name) for name in refused)
    assert credentials.shut_out(dict.fromkeys([*sees, *refused], "x"), may_see) == dict.fromkeys(sees, "x")
