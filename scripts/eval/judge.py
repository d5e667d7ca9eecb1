"""Scores every slot of every answer: by rule where a rule decides, by the judge model where free text differs.

Run: python -m scripts.eval.judge -r <run> [--predictions merged|base|null|gguf-q8_0] [--partial] [-o model=...]
     python -m scripts.eval.judge -r <run> -o model=gpt-4o-mini --max-cost 2 [--yes | --dry-run]
     python -m scripts.eval.judge -r <run> --pairwise merged,base
Without --predictions, every answer file of the test split in reports/<run>/ is judged. --pairwise asks which of two
sets of answers is closer to the reference. Killed, or stopped by a cap, the same command goes on. See docs/judge.md.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from potstill import (
    cli,
    config,
    credentials,
    fences,
    grading,
    judge,
    judge_calls,
    judge_pairs,
    judge_run,
    pricing,
    project,
    runs,
    slots,
    snapshots,
    workload,
)
from potstill.fences import PairQuestion, Question
from potstill.files import stage_lock
from potstill.grading import TUNED, JudgeRun
from potstill.judge import Cache, JudgeConfig
from potstill.judge_engine import Job
from potstill.judge_run import Outcome, Plan, Sheet
from potstill.judge_spend import Spend
from potstill.pricing import Price
from potstill.runs import RunRecord
from potstill.stop import DATA, REJECT, USAGE, Stop

CACHE = project.REPORTS / "judge_cache.sqlite"
SPEND = project.REPORTS / "judge_spend.sqlite"
PROMPT = project.CONFIGS / "judge_prompt.txt"
PAIR_PROMPT = project.CONFIGS / "judge_prompt_pairwise.txt"
LEVEL = "llm_similarity"
# a verdict is a number and a short sentence
VERDICT_TOKENS = 40


class Bench(NamedTuple):
    """What a judge run works with, whatever it asks."""

    settings: JudgeConfig
    cache: Cache
    spend: Spend
    yes: bool
    dry_run: bool


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    settings = config.load(project.CONFIGS / f"{arguments.config}.yaml", JudgeConfig, overrides(arguments))
    may_see = credentials.allowed(settings.model, settings.environment)
    if argv is None:
        credentials.start_afresh(may_see, ["-m", "scripts.eval.judge", *sys.argv[1:]])
    credentials.drop_ssh_agent()
    credentials.read_env(Path(".env"), may_see)
    record = runs.read(project.find_run(cli.workload_name(arguments), arguments.run))
    folder = project.reports(record.run)
    levels = slots.load_levels(project.CONFIGS / "judge_slots.yaml"), workload.load(record.workload).levels
    template = read_template(PAIR_PROMPT, PairQuestion) if arguments.pairwise else read_template(PROMPT, Question)
    with stage_lock(folder, "eval.judge"), opened(settings, arguments) as bench:
        names = pair_of(arguments.pairwise) or arguments.predictions or present(folder)
        sheets = [read_sheet(record, folder, name, levels, arguments.partial) for name in names]
        if arguments.pairwise:
            pairwise(folder, bench, template, sheets)
        else:
            single(record, folder, bench, template, sheets, levels[0].get(LEVEL, 1.0))


def parse(argv: list[str] | None) -> Any:
    parser = cli.parser(__doc__, run=True, config="judge", dry_run=True)
    parser.add_argument("--predictions", action="append", metavar="NAME", help="merged, base, val ...; repeatable")
    parser.add_argument("--partial", action="store_true", help="take answers to some of the rows")
    parser.add_argument("--pairwise", metavar="A,B", help="which of two answers is closer to the reference")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="cap of this run (default: max_cost_usd)")
    parser.add_argument("--yes", action="store_true", help="spend without asking")
    return parser.parse_args(argv)


def pair_of(given: str | None) -> list[str]:
    names = given.split(",") if given is not None else []
    if given is not None and (len(names) != 2 or not all(names) or names[0] == names[1]):
        raise Stop(f"--pairwise {given!r}: want the names of two sets of answers, as in merged,base", USAGE)
    return names


def overrides(arguments: Any) -> list[str]:
    cap = [] if arguments.max_cost is None else [f"max_cost_usd={arguments.max_cost!r}"]
    return [*arguments.override, *cap]


@contextlib.contextmanager
def opened(settings: JudgeConfig, arguments: Any) -> Iterator[Bench]:
    with contextlib.closing(Cache(CACHE)) as cache, contextlib.closing(Spend(SPEND)) as spend:
        yield Bench(settings, cache, spend, arguments.yes, arguments.dry_run)


def read_template(path: Path, kind: type[Question] | type[PairQuestion]) -> str:
    if not path.is_file():
        raise Stop(f"{path} is not there. Restore it from the repository.")
    return fences.check_template(path.read_text(encoding="utf-8"), str(path), kind)


def split_of(name: str) -> str:
    """`val` and `val.base` are answers to the split val."""
    first = name.split(".")[0]
    return first if first in snapshots.SPLITS else "test"


def present(folder: Path) -> list[str]:
    """The names of the answer files of the test split, the tuned model first."""
    found = [path.name.removeprefix("predictions").removesuffix(".jsonl") for path in folder.glob("predictions*.jsonl")]
    names = sorted(name.removeprefix(".") or TUNED for name in found)
    names = [name for name in names if split_of(name) == "test"]
    if not names:
        raise Stop(f"{folder} has no predictions.jsonl. Run fab eval.generate.", DATA)
    return sorted(names, key=lambda name: name != TUNED)


def read_sheet(
    record: RunRecord, folder: Path, name: str, levels: tuple[dict[str, float], slots.OwnLevels], partial: bool
) -> Sheet:
    path, split = folder / grading.file_of(name), split_of(name)
    examples = list(snapshots.read(record.snapshots[split]))
    by_id = {example.id: example for example in examples}
    predictions = grading.read_predictions(path, examples, partial)
    grades = [grade for row in predictions for grade in grading.grade(by_id[row.id], row, *levels)]
    return Sheet(name, path, split, len(predictions), grades)


def single(record: RunRecord, folder: Path, bench: Bench, template: str, sheets: list[Sheet], threshold: float) -> None:
    asked = judge_run.questions(sheets)
    plan = judge_run.plan_of(bench.settings.model, asked, threshold)
    job = open_job(bench, template, plan) if asked else None
    if bench.dry_run:
        return
    outcome = Outcome({})
    if job is not None:
        outcome = judge_run.rule(folder, job, bench.cache, bench.spend, plan)
    written = judge_run.write(record, folder, template, bench.settings, sheets, outcome)
    show(written)
    cli.done([folder / item.verdicts for item in written.judged.values()], following(record, written))
    refuse(written)


def open_job(bench: Bench, template: str, plan: Plan) -> Job:
    """The job with its caps; asks before it spends. Raises Stop 2 where nobody is there to agree."""
    settings, kind = bench.settings, type(next(iter(plan.asked.values())))
    every = [*plan.planted.values(), *plan.asked.values()]
    keys = {judge.cache_key(settings, template, question): question for question in every}
    uncached = [question for key, question in keys.items() if bench.cache.get(key) is None]
    job = judge.open_job(settings, template, judge.budget_of(settings), Price(0.0, 0.0), kind)
    if uncached:
        price = judge_calls.price_of(settings)
        if price is None:
            raise Stop(
                f"LiteLLM has no price for {settings.model}, so max_cost_usd could not hold. Give "
                "-o 'price_per_million={input: 0.15, output: 0.60}' in USD; zeros for a server of your own."
            )
        agree(bench, template, uncached, price)
        fingerprint = judge_run.fingerprint_of(job, plan.asked)
        budget = judge.budget_of(settings, bench.spend.of_run(fingerprint), bench.spend.of_day())
        job = job._replace(price=price, budget=budget)
    return job


def agree(bench: Bench, template: str, uncached: list[Any], price: Price) -> None:
    settings = bench.settings
    prompts = [fences.fill(template, question) for question in uncached]
    about = price.of(sum(map(pricing.tokens, prompts)), VERDICT_TOKENS * len(prompts)) * settings.repeats
    most = sum(pricing.most_usd(price, prompt, settings.max_tokens) for prompt in prompts) * settings.repeats
    # a try that fails is free, but one whose answer is no verdict is paid for
    told = (
        f"{len(prompts)} questions to {settings.model}: about {about:.4f} USD, at most "
        f"{most * (1 + settings.retries):.4f} USD with every retry; max_cost_usd is {settings.max_cost_usd}, and "
        f"{bench.spend.of_day():.4f} of {settings.daily_cost_usd} USD are spent today"
    )
    if most or bench.dry_run:
        print(told)
    if not most or bench.yes or bench.dry_run:
        return
    if not sys.stdin.isatty():
        raise Stop(f"{told}. Nobody is there to agree to the cost: give --yes to spend it.")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Stop("nothing was asked")


def following(record: RunRecord, written: JudgeRun) -> str:
    step = "judge" if written.void or written.incomplete else "report"
    return f"fab eval.{step} -r {record.run}"


def refuse(written: Any) -> None:
    """Raises Stop 100 for a run that may not be used."""
    if written.void:
        raise Stop(f"this judge run is void, and its verdicts count for nothing: {written.void}", REJECT)
    if written.incomplete:
        told = f"this judge run is incomplete: {written.incomplete}"
        raise Stop(f"{told}. What was answered is kept. Raise the cap and run this again to go on.", REJECT)


def show(written: JudgeRun) -> None:
    for name, item in written.judged.items():
        print(
            f"{name}: {item.rows} answers, {item.calls} calls to {written.label}, {item.cached} from the cache, "
            f"{item.errors} errors, {item.cost_usd:.4f} USD"
        )
    if written.canaries and not written.void:
        print(f"{written.canaries} canaries, none passed")


def pairwise(folder: Path, bench: Bench, template: str, sheets: list[Sheet]) -> None:
    asked = judge_pairs.questions(*sheets)
    job = open_job(bench, template, judge_pairs.plan_of(bench.settings.model, asked)) if asked else None
    if bench.dry_run:
        return
    found, path = judge_pairs.rule(folder, job, bench.cache, bench.spend, asked, sheets, bench.settings.model)
    a, b = found.a, found.b
    print(f"closer to the reference: {a} {found.a_closer}, {b} {found.b_closer}, tie {found.ties} of {found.n}")
    print(f"{found.order_changed} verdicts changed with the order, and count as ties; {found.errors} errors")
    cli.done([path])
    refuse(found)


if __name__ == "__main__":
    cli.run(main)
