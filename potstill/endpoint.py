"""Answers to a snapshot's rows from a model behind LiteLLM: a served package, or the strong model itself."""

import threading
from collections.abc import Iterator
from typing import Any

from potstill import answers, daily, pricing, project, teacher
from potstill.files import canonical_json
from potstill.ledger import Ledger
from potstill.records import Example, Prediction
from potstill.stop import BUSY, Stop
from potstill.teacher import Question, Reply, Settings
from potstill.workload import Workload

LEASE_S = 3600
# finish reasons of LiteLLM that are neither an end nor a limit
REASONS = {"stop": "stop", "length": "length"}


def questions(job: Workload, examples: list[Example], taught: bool, constrained: bool) -> list[Question]:
    """`taught` gives the model the instructions of dataset.generate: for one that was not trained on the job.

    `constrained` asks the server to keep to the task's JSON Schema.
    """
    found = []
    for example in examples:
        schema = job.schemas[example.task].model_json_schema()
        system = teacher.system_of(job, example.task) if taught else example.system
        limit = job.settings.tasks[example.task].max_new_tokens
        found.append(Question(example.id, system, example.prompt, limit, schema if constrained else None))
    return found


def ask(ledger: Ledger, settings: Settings, asked: list[Question], halt: threading.Event) -> Iterator[None]:
    """Yields once per answer, after it is recorded. Raises CapReached, and Stop 75 when the day's tokens are used."""
    by_key = {question.key: question for question in asked}
    budget = teacher.budget_of(settings, sum(result["cost_usd"] for _, result in ledger.results()))
    limit = project.load_project().daily_token_budget
    while items := ledger.claim(4 * settings.concurrency, LEASE_S):
        batch, day = [by_key[item.key] for item in items], daily.today()
        coming = sum(pricing.tokens(question.system + question.prompt) for question in batch)
        if daily.used(day) + coming > limit:
            raise Stop(
                f"{daily.used(day):,} tokens are used on {day} and daily_token_budget in configs/project.yaml is "
                f"{limit:,}. What was answered is kept: run this again tomorrow (UTC), or raise it.",
                BUSY,
            )
        for question, reply in teacher.ask_all(settings, batch, budget, halt):
            daily.add(day, reply.prompt_tokens + reply.completion_tokens)
            if reply.error:
                ledger.fail(question.key, reply.error)
            else:
                ledger.finish(question.key, reply._asdict())
            yield


def prediction(job: Workload, example: Example, result: dict[str, Any], model: str) -> Prediction:
    reply = Reply(**result)
    return answers.predict_row(
        job,
        id=example.id,
        task=example.task,
        output=reply.content or "",
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        latency_ms=reply.latency_ms,
        finish_reason=REASONS.get(reply.finish_reason, "error"),
        backend=f"litellm {model}",
    )


def inputs(settings: Settings, asked: list[Question]) -> str:
    """What decides the answers: a higher cap, more retries or another concurrency go on with the same work."""
    return canonical_json([settings.model, settings.api_base, [question._asdict() for question in asked]])
