"""Asks a strong model for answers through LiteLLM's `completion`, with our own retries and a cost cap that holds.

Every call reserves the most it can cost before it is sent, so that calls under way never add up to more than the cap.
"""

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from potstill import judge, judge_calls, pricing, prompt
from potstill.files import canonical_json
from potstill.pricing import Budget, Cap, CapReached, Price
from potstill.stop import UNAVAILABLE, Stop
from potstill.workload import Workload

# calls that may fail in a row, for good, before the service counts as down
MAX_FAILED = 5


class Settings(NamedTuple):
    model: str
    api_base: str | None
    price: Price
    max_tokens: int
    concurrency: int
    retries: int
    timeout_s: float
    max_cost_usd: float


class Question(NamedTuple):
    """`max_tokens` goes before the settings'; `schema` is a JSON Schema that the service is asked to keep to."""

    key: str
    system: str
    prompt: str
    max_tokens: int | None = None
    schema: dict[str, Any] | None = None


class Reply(NamedTuple):
    """`content` is None when there is an `error`; only kinds of errors are told, because messages can hold keys."""

    content: str | None
    finish_reason: str
    error: str
    prompt_tokens: int
    completion_tokens: int
    calls: int
    cost_usd: float
    latency_ms: float = 0.0


def system_of(job: Workload, task: str) -> str:
    """What the strong model is told: the workload's system text, its samples' teacher.txt, and the answer's schema."""
    guide = job.samples / "teacher.txt"
    schema = canonical_json(job.schemas[task].model_json_schema())
    parts = [job.system_prompt, guide.read_text(encoding="utf-8").strip() if guide.is_file() else ""]
    parts.append(f"Answer with one JSON object and nothing else. It must conform to this JSON Schema:\n{schema}")
    return "\n\n".join(part for part in parts if part)


def most_usd(settings: Settings, question: Question) -> float:
    """The most that one call can cost."""
    return pricing.most_usd(
        settings.price, question.system + question.prompt, question.max_tokens or settings.max_tokens
    )


def budget_of(settings: Settings, spent_usd: float) -> Budget:
    """The cap on a run that has cost `spent_usd` so far."""
    told = (
        "{spent:.4f} USD are spent and --max-cost is {cap}: one more call could cost too much. What was answered is "
        "kept. Raise --max-cost and run this again to go on."
    )
    return Budget(Cap(spent_usd, settings.max_cost_usd, told))


def known_price(model: str) -> Price | None:
    """What LiteLLM's own table says the model costs, or None. Raises Stop 2 for a model of no provider it knows."""
    import openai

    litellm = judge.load_litellm()
    try:
        litellm.get_llm_provider(model)
    except openai.BadRequestError:
        raise Stop(
            f"--model {model!r} names no provider LiteLLM knows. Want provider/model, as in openai/gpt-4o-mini."
        ) from None
    return judge_calls.listed_price(model)


@contextlib.contextmanager
def finishing() -> Iterator[threading.Event]:
    """Yields an event that the first Ctrl-C sets instead of interrupting, so that paid answers are recorded."""
    asked = threading.Event()

    def note(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def ask_all(
    settings: Settings, questions: Iterable[Question], budget: Budget, halt: threading.Event
) -> Iterator[tuple[Question, Reply]]:
    """Yields (question, reply) as they come in. Raises CapReached when the money for the next one is not there.

    Raises Stop 69 when the service refuses the key or the model, or call after call fails. What was under way is
    yielded before, because it is paid for; so it is when `halt` is set, which ends in a KeyboardInterrupt.
    """
    waiting = deque(questions)
    running: dict[Future[Reply], Question] = {}
    failed, full = 0, False
    refused: CapReached | None = None
    stopped: BaseException | None = None
    with ThreadPoolExecutor(settings.concurrency) as pool:
        while (waiting and stopped is None) or running:
            while waiting and not (stopped or full or halt.is_set()) and len(running) < settings.concurrency:
                running[pool.submit(ask, settings, waiting[0], budget)] = waiting[0]
                waiting.popleft()
            freed = False
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                question = running.pop(future)
                try:
                    reply = future.result()
                except CapReached as error:
                    # calls under way reserve more than they will cost: there may be room when they are through
                    waiting.appendleft(question)
                    full, refused = True, error
                    continue
                except Stop as error:
                    stopped = stopped or error
                    continue
                freed = True
                failed = failed + 1 if reply.error else 0
                yield question, reply
                if failed >= MAX_FAILED and stopped is None:
                    told = f"{failed} calls in a row failed, the last with {reply.error}"
                    stopped = Stop(f"{settings.model}: {told}. Check the service, then run this again.", UNAVAILABLE)
            # what came in with the refusal, in any order, may have left room
            full = full and not freed
            if halt.is_set() and stopped is None:
                stopped = KeyboardInterrupt()
            if full and not running and stopped is None:
                stopped = refused
    if stopped is not None:
        raise stopped


def ask(settings: Settings, question: Question, budget: Budget) -> Reply:
    """Asks until there is an answer or the tries are used up. Raises CapReached; Stop 69 when the key is refused."""
    import openai
    import tenacity

    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(1 + settings.retries),
        retry=tenacity.retry_if_exception(_is_transient),
        wait=judge_calls.patient(settings.model, lambda error: judge_calls.retry_after(judge_calls.headers_of(error))),
        reraise=True,
    )
    costs: list[float] = []
    try:
        reply = policy(_call, settings, question, budget, costs)
    except openai.OpenAIError as error:
        status = getattr(error, "status_code", None)
        if status in (401, 403, 404):
            raise Stop(
                f"{settings.model} refuses the call (HTTP {status}). "
                "Check --model, --api-base and the key in the environment or .env.",
                UNAVAILABLE,
            ) from None
        return Reply(None, "", type(error).__name__, 0, 0, len(costs), sum(costs))
    return reply._replace(calls=len(costs), cost_usd=sum(costs))


def _call(settings: Settings, question: Question, budget: Budget, costs: list[float]) -> Reply:
    import openai

    litellm = judge.load_litellm()
    most = most_usd(settings, question)
    budget.reserve(most)
    cost, started = 0.0, time.perf_counter()
    # counted before it is sent: a call that fails was made too
    costs.append(0.0)
    try:
        found = litellm.completion(
            model=settings.model,
            api_base=settings.api_base,
            messages=prompt.messages(question.system, question.prompt),
            temperature=0,
            max_tokens=question.max_tokens or settings.max_tokens,
            response_format=_format(question.schema),
            timeout=settings.timeout_s,
            num_retries=0,
            max_retries=0,
            # some models take no temperature
            drop_params=True,
        )
        usage = getattr(found, "usage", None)
        taken, made = (int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens"))
        # a service that does not say what it used is taken to have used the most
        cost = settings.price.of(taken, made) if taken and made else most
    except openai.APITimeoutError:
        # the answer may have been made, and billed, without reaching us
        cost = most
        raise
    finally:
        budget.settle(most, cost)
        costs[-1] = cost
    choice = found.choices[0] if found.choices else None
    content, reason = (choice.message.content, choice.finish_reason) if choice else (None, None)
    latency_ms = (time.perf_counter() - started) * 1000
    return Reply(content or "", reason or "", "", taken, made, 1, cost, latency_ms)


def _format(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _is_transient(error: BaseException) -> bool:
    import openai

    # LiteLLM gives some errors a status of their own without making them an APIStatusError
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in (408, 409, 429) or status >= 500
    return isinstance(error, openai.APIError)
