"""Asks many questions at once, from ordinary code: an event loop of its own, one retry policy, and a budget.

A batch is handed out before anything new is sent, so what is answered and not yet recorded, and what is under way,
are together never more than `concurrency`: that many answers are what a kill can cost.
"""

import asyncio
import contextlib
import statistics
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple

from potstill import judge_calls, pricing
from potstill.fences import PairQuestion, Question, fill
from potstill.judge_calls import REFUSED, Failed
from potstill.judge_limits import Rate
from potstill.judge_records import Attempt, JudgeConfig, Malformed, Reply, Ruling
from potstill.pricing import Budget, CapReached, Price
from potstill.stop import UNAVAILABLE, Stop

# questions that get no answer in a row, for good, before the service counts as down
DOWN_AFTER = 20
# as much of a hostile answer as is kept
RAW_MAX = 4_000


class Job(NamedTuple):
    """How questions of one kind are asked: the prompt, how an answer is read (raises Malformed), the limits."""

    settings: JudgeConfig
    template: str
    read: Callable[[Any], Any]
    price: Price
    budget: Budget
    requests: Rate
    tokens: Rate


class Landing(NamedTuple):
    tag: Any
    reply: Reply | None
    error: BaseException | None


class Flights:
    """Coroutines under way on an event loop that runs only while `land` waits."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._landed: deque[tuple[Any, asyncio.Task[Reply]]] = deque()
        self._any = asyncio.Event()
        self.under_way = 0

    def start(self, tag: Any, coroutine: Coroutine[Any, Any, Reply]) -> None:
        def note(task: asyncio.Task[Reply]) -> None:
            self._landed.append((tag, task))
            self._any.set()

        self.under_way += 1
        self.loop.create_task(coroutine).add_done_callback(note)

    def land(self) -> list[Landing]:
        """Waits until at least one is through; returns all that are."""
        self._any.clear()
        if not self._landed:
            self.loop.run_until_complete(self._any.wait())
        found = []
        while self._landed:
            tag, task = self._landed.popleft()
            error = task.exception()
            found.append(Landing(tag, None if error else task.result(), error))
        self.under_way -= len(found)
        return found

    def close(self) -> None:
        self.loop.run_until_complete(_wind_up())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


def ask_all(job: Job, questions: Iterable[tuple[Any, Question | PairQuestion]]) -> Iterator[list[tuple[Any, Reply]]]:
    """Yields [(tag, reply)] as they come in; draws from `questions` only as many as it can ask at once.

    Raises Stop 69 when the judge refuses the key or does not answer, and CapReached when the money for the next
    question is not there. What was under way then is yielded first, because it is paid for.
    """
    source, back = iter(questions), deque[tuple[Any, Any]]()
    stopped: BaseException | None = None
    full, unanswered = False, 0
    # the first goes alone: LiteLLM imports a provider with its first call, and the others would time out meanwhile
    room = 1
    with contextlib.closing(Flights()) as flights:
        while True:
            while not (stopped or full) and flights.under_way < room:
                following = back.popleft() if back else next(source, None)
                if following is None:
                    break
                flights.start(following, answer(job, following[1]))
            if not flights.under_way:
                break
            batch: list[tuple[Any, Reply]] = []
            full, room = False, job.settings.concurrency
            refused: CapReached | None = None
            for landing in flights.land():
                if isinstance(landing.error, CapReached):
                    # calls under way reserve more than they will cost: there may be room when they are through
                    back.append(landing.tag)
                    refused = landing.error
                elif landing.error is not None:
                    stopped = stopped or landing.error
                elif landing.reply is not None:
                    unanswered = unanswered + 1 if landing.reply.unanswered else 0
                    batch.append((landing.tag[0], landing.reply))
            if refused is not None and not flights.under_way and not batch:
                # nothing has freed money since it was refused
                stopped = stopped or refused
            full = refused is not None and flights.under_way > 0
            if unanswered >= max(DOWN_AFTER, job.settings.concurrency):
                stopped = stopped or _down(job.settings, unanswered, batch[-1][1].error)
            yield batch
    if stopped is not None:
        raise stopped


def _down(settings: JudgeConfig, count: int, last: str) -> Stop:
    told = f"the judge {settings.model} left {count} questions in a row without an answer, the last with {last}"
    return Stop(f"{told}. Check the service, then run this again.", UNAVAILABLE)


async def answer(job: Job, question: Question | PairQuestion) -> Reply:
    """One question, asked `repeats` times: the median score, and how far the scores are apart."""
    replies = [await ask(job, question) for _ in range(job.settings.repeats)]
    if len(replies) == 1:
        return replies[0]
    attempts = tuple(attempt for reply in replies for attempt in reply.attempts)
    calls, cost = len(attempts), sum(reply.cost_usd for reply in replies)
    failed = next((reply for reply in replies if reply.ruling is None), None)
    if failed is not None:
        return failed._replace(calls=calls, cost_usd=cost, attempts=attempts)
    rulings = [reply.ruling for reply in replies]
    if not isinstance(rulings[0], Ruling):
        most = statistics.mode(ruling.closer for ruling in rulings)
        ruling = next(ruling for ruling in rulings if ruling.closer == most)
        return Reply(ruling, "", False, calls, cost, attempts, float(len({r.closer for r in rulings}) > 1))
    scores = [ruling.score for ruling in rulings]
    middle = statistics.median(scores)
    nearest = min(rulings, key=lambda ruling: abs(ruling.score - middle))
    ruling = Ruling(score=middle, reason=nearest.reason)
    return Reply(ruling, "", False, calls, cost, attempts, max(scores) - min(scores))


async def ask(job: Job, question: Question | PairQuestion) -> Reply:
    """Asks until there is a verdict or the tries are used up. Raises Stop 69; CapReached when nothing was sent."""
    import tenacity

    attempts: list[Attempt] = []
    policy = tenacity.AsyncRetrying(
        sleep=asyncio.sleep,
        stop=tenacity.stop_after_attempt(1 + job.settings.retries),
        retry=tenacity.retry_if_exception(_is_transient),
        wait=judge_calls.patient(f"the judge {job.settings.model}", _asked_s),
        reraise=True,
    )

    def reply(ruling: Any, error: str, unanswered: bool = False) -> Reply:
        cost = sum(attempt.cost_usd for attempt in attempts)
        return Reply(ruling, error, False, len(attempts), cost, tuple(attempts), None, unanswered)

    try:
        return reply(await policy(_attempt, job, question, attempts), "")
    except Malformed as error:
        return reply(None, f"{error}, {len(attempts)} times")
    except CapReached as error:
        if not attempts:
            raise
        return reply(None, f"{attempts[-1].outcome}, and {error}")
    except Failed as error:
        if error.status in REFUSED:
            raise Stop(
                f"the judge {job.settings.model} refuses the call ({error.kind}). "
                "Check model and api_base in configs/judge.yaml and the key in the environment or .env.",
                UNAVAILABLE,
            ) from None
        return reply(None, f"{error.kind}, {len(attempts)} times", error.transient)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, Malformed) or (isinstance(error, Failed) and error.transient)


def _asked_s(error: BaseException) -> float | None:
    # a malformed answer is asked again at once: nobody is overloaded
    return -1.0 if isinstance(error, Malformed) else getattr(error, "retry_after_s", None)


async def _attempt(job: Job, question: Question | PairQuestion, attempts: list[Attempt]) -> Any:
    prompt = fill(job.template, question)
    most = pricing.most_usd(job.price, prompt, job.settings.max_tokens)
    job.budget.reserve(most)
    cost, taken, made, raw, outcome = 0.0, 0, 0, None, "cancelled"
    began = time.monotonic()
    try:
        await job.requests.acquire()
        await job.tokens.acquire(pricing.tokens(prompt) + job.settings.max_tokens)
        began = time.monotonic()
        # what is under way when the run is stopped may be billed
        cost = most
        found = await judge_calls.call(job.settings, prompt)
        raw, taken, made = found.content, found.prompt_tokens, found.completion_tokens
        # a service that does not say what it used is taken to have used the most
        cost = job.price.of(taken, made) if taken and made else most
        ruling = job.read(raw)
        outcome = "ruling"
        return ruling
    except Malformed as error:
        outcome = str(error)
        raise
    except Failed as error:
        outcome, cost = error.kind, most if error.billed else 0.0
        raise
    finally:
        job.budget.settle(most, cost)
        shown = raw[:RAW_MAX] if isinstance(raw, str) else None
        attempts.append(Attempt(outcome, shown, taken, made, cost, round((time.monotonic() - began) * 1000, 1)))


async def _wind_up() -> None:
    """Ends what is under way, LiteLLM's own tasks among it, and closes its connections."""
    import litellm

    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    with contextlib.suppress(Exception):  # a client that cannot be closed is no reason to lose answers
        await litellm.close_litellm_async_clients()
