"""The options of steps that ask a model behind LiteLLM, and the question whether to spend the money."""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from potstill import credentials, pricing, teacher
from potstill.pricing import Price
from potstill.stop import Stop
from potstill.teacher import Question, Settings


def add_options(group: Any, *, max_tokens: int | None = None) -> None:
    """`max_tokens` is the default of an answer's length, where the step does not know it from the task."""
    group.add_argument("--model", help="a LiteLLM name, such as openai/gpt-4o-mini or hosted_vllm/<served name>")
    group.add_argument("--api-base", help="address of an OpenAI-compatible server of your own")
    group.add_argument("--max-cost", type=float, default=1.0, metavar="USD", help="default: %(default)s")
    group.add_argument("--price", metavar="IN,OUT", help="USD per million tokens, where LiteLLM knows none")
    if max_tokens is not None:
        text = "of an answer (default: %(default)s)"
        group.add_argument("--max-tokens", type=int, default=max_tokens, help=text)
    group.add_argument("--concurrency", type=int, default=8, help="default: %(default)s")
    group.add_argument("--retries", type=int, default=3, help="default: %(default)s")
    group.add_argument("--timeout", type=float, default=60, metavar="S", help="default: %(default)s")
    group.add_argument("--yes", action="store_true", help="spend without asking")


def check(arguments: argparse.Namespace) -> None:
    if arguments.concurrency < 1 or arguments.retries < 0 or arguments.max_cost < 0:
        raise Stop("want --concurrency from 1, --retries and --max-cost from 0")


def settings(arguments: argparse.Namespace, max_tokens: int) -> Settings:
    """Reads the keys of .env into the environment, and gives up the way to the SSH agent: hostile text comes."""
    credentials.drop_ssh_agent()
    credentials.read_env(Path(".env"))
    return Settings(
        arguments.model,
        arguments.api_base,
        price_of(arguments),
        max_tokens,
        arguments.concurrency,
        arguments.retries,
        arguments.timeout,
        arguments.max_cost,
    )


def price_of(arguments: argparse.Namespace) -> Price:
    if arguments.price is not None:
        found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?),(\d{1,6}(?:\.\d+)?)", arguments.price)
        if not found:
            raise Stop(f"--price {arguments.price!r}: want USD per million tokens in and out, as in --price 0.15,0.60")
        return Price(float(found[1]) / 1e6, float(found[2]) / 1e6)
    known = teacher.known_price(arguments.model)
    if known is None:
        raise Stop(
            f"LiteLLM has no price for {arguments.model}, so --max-cost could not hold. Give --price IN,OUT in USD per "
            "million tokens; --price 0,0 for a server of your own."
        )
    return known


def estimate(settings: Settings, questions: Iterable[Question], expected: Iterable[str]) -> None:
    """Prints what asking will cost, given answers about as long as the `expected` ones."""
    asked = list(questions)
    prompts = sum(pricing.tokens(question.system + question.prompt) for question in asked)
    completions = sum(map(pricing.tokens, expected))
    cost, most = settings.price.of(prompts, completions), sum(teacher.most_usd(settings, q) for q in asked)
    print(f"{len(asked)} prompts to {settings.model}: about {prompts:,} tokens in and {completions:,} out")
    print(f"about {cost:.4f} USD, at most {most:.4f} USD; --max-cost is {settings.max_cost_usd} USD")


def confirm() -> None:
    """Raises Stop 2 unless somebody agrees."""
    if not sys.stdin.isatty():
        raise Stop("nobody is there to agree to the cost. Give --yes.")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Stop("nothing was asked")
