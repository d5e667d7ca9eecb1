"""Measures eval.judge against a server of this machine: speed, the cache, faults, refusals, caps and kills.

Run: .venv/bin/python -m benchmarks.judge [--slots 10000] [--concurrency 64] [--latency-ms 50] [--parts speed,faults]
Every question goes through LiteLLM, the cache and a ledger, as in a judge run. `speed` also times LiteLLM alone, one
call after another and all at once, which shows what bounds it. Writes reports/benchmark_judge.json. Exits 100 when a
count is off or a ratio is missed; docs/judge.md has the numbers that were measured, and on what.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import judge, judge_calls, judge_run
from potstill.fences import Question, fill
from potstill.files import write_json
from potstill.judge_records import JudgeConfig, Prices
from potstill.judge_spend import Spend
from potstill.pricing import Price
from potstill.stop import Stop

REPO = Path(__file__).resolve().parent.parent
TEMPLATE = (REPO / "configs/judge_prompt.txt").read_text(encoding="utf-8")
REFERENCE = "The lid does not close because the hinge is bent, and the seal has come loose on one side."
MODEL = "hosted_vllm/judge"
PRICE = Prices(input=1.0, output=4.0)
Counts = dict[str, Any]


class Server:
    def __init__(self, address: str):
        self.address = address

    def counts(self) -> Counts:
        with urllib.request.urlopen(f"{self.address}/counts", timeout=60) as reply:  # noqa: S310
            return dict(json.load(reply))


@contextlib.contextmanager
def served(*options: str) -> Iterator[Server]:
    """A judge_server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.judge_server", *options]
    process = subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        yield Server(process.stdout.readline().strip())
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def settings(server: Server, **changes: Any) -> JudgeConfig:
    given = {"max_tokens": 200, "concurrency": 64, "retries": 2, "timeout_s": 60.0, "max_cost_usd": 1e6}
    given |= {"daily_cost_usd": 1e6, "model": MODEL, "api_base": server.address, "price_per_million": PRICE}
    return JudgeConfig.model_validate({**given, **changes})


def questions(count: int) -> dict[str, Question]:
    return {
        str(n): Question("summary", REFERENCE, f"item {n}: the hinge is bent and the seal is loose")
        for n in range(count)
    }


def judged(folder: Path, given: JudgeConfig, asked: dict[str, Question]) -> tuple[judge_run.Outcome, float]:
    """The outcome and the seconds of one judge run; the cache, the ledger and the spend ledger are in `folder`."""
    price = judge_calls.price_of(given) or Price(0.0, 0.0)
    cache, spend = judge.Cache(folder / "cache.sqlite"), Spend(folder / "spend.sqlite")
    with contextlib.closing(cache), contextlib.closing(spend):
        job = judge.open_job(given, TEMPLATE, judge.budget_of(given), price)
        plan = judge_run.plan_of(given.model, asked, 0.85)
        started = time.perf_counter()
        outcome = judge_run.rule(folder, job, cache, spend, plan, track=lambda work, *_: work)
        return outcome, time.perf_counter() - started


def speed(slots: int, concurrency: int, latency_ms: float) -> dict[str, Any]:
    """Calls a second as a share of the limit that latency and concurrency set, and what LiteLLM itself needs."""
    limit = concurrency / (latency_ms / 1000)
    with tempfile.TemporaryDirectory() as name, served("--latency-ms", str(latency_ms)) as server:
        given, asked = settings(server, concurrency=concurrency), questions(slots)
        bare = asyncio.run(litellm_alone(given, min(slots, 2000)))
        cpu = time.process_time()
        _, first_s = judged(Path(name), given, asked)
        cpu = time.process_time() - cpu
        before = server.counts()["requests"]
        second, second_s = judged(Path(name), given, asked)
        calls = server.counts()["requests"] - before
    return {
        "slots": slots,
        "limit_per_s": limit,
        "per_s": slots / first_s,
        "share_of_limit": slots / first_s / limit,
        "cpu_ms_per_call": cpu / slots * 1000,
        **bare,
        "share_of_litellm_alone": slots / first_s / bare["litellm_per_s"],
        "second_run_calls": calls,
        "second_run_times_faster": first_s / second_s,
        "second_run_cached": sum(result["cached"] for result in second.results.values()),
        "cpus": len(os.sched_getaffinity(0)),
    }


async def litellm_alone(given: JudgeConfig, count: int) -> dict[str, float]:
    """The same calls, with nothing of ours around them."""
    prompts = iter([fill(TEMPLATE, question) for question in questions(count).values()])

    async def worker() -> None:
        for prompt in prompts:
            await judge_calls.call(given, prompt)

    await judge_calls.call(given, "warm up")
    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(given.concurrency)))
    took = time.perf_counter() - started
    return {"litellm_per_s": count / took, "litellm_cpu_ms_per_call": (time.process_time() - cpu) / count * 1000}


def faults(slots: int) -> dict[str, Any]:
    """30% of the requests fail in one of thirteen ways."""
    with tempfile.TemporaryDirectory() as name, served("--latency-ms", "5", "--faults", "0.3") as server:
        outcome, took = judged(Path(name), settings(server, timeout_s=2.0), questions(slots))
        counts = server.counts()
    own = [outcome.results.get(str(n), {"score": None, "reason": ""}) for n in range(slots)]
    return {
        "slots": slots,
        "seconds": took,
        "verdicts": sum(result["score"] is not None for result in own),
        "errors": sum(result["score"] is None and bool(result["reason"]) for result in own),
        "calls_per_item": counts["item_requests"] / slots,
        "answered_twice": counts["answered_twice"],
        "asked_after_400": counts["asked_after_400"],
        "outcomes": counts["outcomes"],
        "void": outcome.void,
    }


def refusal(slots: int, concurrency: int) -> dict[str, Any]:
    """The key is refused from the 200th request on."""
    with tempfile.TemporaryDirectory() as name, served("--latency-ms", "5", "--refuse-after", "200") as server:
        code = 0
        try:
            judged(Path(name), settings(server, concurrency=concurrency), questions(slots))
        except Stop as stop:
            code = stop.code
        return {"stopped_with": code, "requests_after_401": server.counts()["requests"] - 200, "window": concurrency}


def cap(slots: int) -> dict[str, Any]:
    """A cap that pays for about half of the questions. A call costs 300 tokens in and 20 out."""
    with tempfile.TemporaryDirectory() as name, served("--latency-ms", "5") as server:
        limit = slots / 2 * (300 * PRICE.input + 20 * PRICE.output) / 1e6
        outcome, _ = judged(Path(name), settings(server, max_cost_usd=limit), questions(slots))
        calls = server.counts()["requests"]
        with contextlib.closing(Spend(Path(name) / "spend.sqlite")) as spend:
            spent = spend.of_day()
    billed = calls * (300 * PRICE.input + 20 * PRICE.output) / 1e6
    told = {"cap_usd": limit, "billed_usd": billed, "spend_ledger_usd": spent, "billed_share_of_cap": billed / limit}
    return {**told, "incomplete": outcome.incomplete}


def missed(found: dict[str, Any]) -> list[str]:
    """The claims of issue 5 that these numbers do not bear out."""
    rules = {
        "speed": lambda f: {
            "90% of the limit": f["share_of_limit"] >= 0.9,
            "no call in a second run": f["second_run_calls"] == 0,
            "a second run 100 times faster": f["second_run_times_faster"] >= 100,
        },
        "faults": lambda f: {
            "a verdict or an error for every item": f["verdicts"] + f["errors"] == f["slots"],
            "1.5 calls an item": f["calls_per_item"] <= 1.5,
            "400 is never asked again": f["asked_after_400"] == 0,
            "nothing answered twice": f["answered_twice"] == 0,
        },
        "refusal": lambda f: {
            "401 stops within the window": f["requests_after_401"] <= f["window"] and f["stopped_with"] == 69
        },
        "cap": lambda f: {"spend within 1% of the cap": 0.99 <= f["billed_share_of_cap"] <= 1.01},
    }
    return [
        told for part, rule in rules.items() if part in found for told, held in rule(found[part]).items() if not held
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--parts", default="speed,faults,refusal,cap")
    given = parser.parse_args()
    parts = {
        "speed": lambda: speed(given.slots, given.concurrency, given.latency_ms),
        "faults": lambda: faults(given.slots),
        "refusal": lambda: refusal(given.slots, given.concurrency),
        "cap": lambda: cap(given.slots),
    }
    found = {}
    for name in given.parts.split(","):
        found[name] = parts[name]()
        print(name, json.dumps(found[name], indent=1))
    write_json(REPO / "reports/benchmark_judge.json", found)
    for told in missed(found):
        print(f"missed: {told}")
    return 100 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
