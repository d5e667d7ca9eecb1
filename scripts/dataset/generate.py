"""Makes exemplars: the workload's seeded generator writes them, or a strong model answers the generator's prompts.

Run: python -m scripts.dataset.generate -w coach --count 1000 [--seed 1]
     python -m scripts.dataset.generate -w coach --count 1000 --model openai/gpt-4o-mini --max-cost 2 [--yes]
A model's answer is kept when the task's schema and the workload's own levels accept it. Killed, or stopped by the cap,
the same command goes on; what was answered once is never asked, or paid for, again.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from potstill import answers, cli, database, leaves, paid, progress, project, teacher, workload
from potstill.files import canonical_json, sha256_text, stage_lock, write_json
from potstill.ledger import Ledger
from potstill.records import Exemplar
from potstill.stop import UNAVAILABLE, Stop
from potstill.teacher import Question, Reply
from potstill.workload import Workload

LEASE_S = 3600
FENCE = re.compile(r"^```(?:json)?\s*\n(.*?)\n?```\s*$", re.DOTALL)


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, dry_run=True)
    parser.add_argument("--count", type=int, default=1000, help="exemplars (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    strong = parser.add_argument_group("a strong model's answers")
    paid.add_options(strong, max_tokens=400)
    arguments = parser.parse_args(argv)
    paid.check(arguments)
    if arguments.count < 1:
        raise Stop("want --count from 1")
    job = workload.load(cli.workload_name(arguments))
    if not hasattr(job.module, "generate"):
        raise Stop(f"potstill/workloads/{job.name}.py has no generate: fab dataset.convert reads its raw material")
    drafts = job.module.generate(arguments.count, arguments.seed)
    following = f"fab dataset.clean -w {job.name}"
    if arguments.model:
        cli.done(ask_model(job, list(drafts), arguments), following)
    elif arguments.dry_run:
        print(f"would write {sum(1 for _ in drafts)} exemplars to {project.database()}")
    else:
        path = project.database()
        rows = marked(progress.track(drafts, "generate", arguments.count), f"seed {arguments.seed}")
        print(f"{job.name}: {database.write(path, rows)} exemplars from seed {arguments.seed}")
        cli.done([path], following)


def marked(rows: Iterable[Exemplar], by: str) -> Iterator[Exemplar]:
    for row in rows:
        yield row.model_copy(update={"metadata": {**row.metadata, "generated_by": by}})


def ask_model(job: Workload, drafts: list[Exemplar], arguments: Any) -> list[Path | str]:
    """Has the model answer the prompts of `drafts` and writes what is kept; returns the files."""
    settings = paid.settings(arguments, arguments.max_tokens)
    systems = {task: teacher.system_of(job, task) for task in job.schemas}
    asked = [Question(draft.id, systems[draft.task], draft.prompt_text) for draft in drafts]
    paid.estimate(settings, asked, (draft.response_strong for draft in drafts))
    if arguments.dry_run:
        return []
    with stage_lock(project.processed(job.name), "generate"):
        path = ledger_path(job, settings, arguments.seed, systems)
        with Ledger(path, path.stem, alone=True) as ledger:
            ledger.retry_failed()
            ledger.add((draft.id, {}) for draft in drafts)
            done = dict(ledger.results())
            left = [draft for draft in drafts if draft.id not in done]
            print(f"{len(drafts) - len(left)} of {len(drafts)} prompts are answered already")
            if left and not arguments.yes:
                paid.confirm()
            stopped: BaseException | None = None
            try:
                with teacher.finishing() as halt:
                    for _ in progress.track(work(job, ledger, settings, left, systems, halt), "ask", len(left)):
                        pass
            except (Stop, KeyboardInterrupt) as error:
                stopped = error
            results = dict(ledger.results())
        written = write(job, drafts, results, settings)
    if stopped is not None:
        raise stopped
    if lacking := len(drafts) - len(results.keys() & {draft.id for draft in drafts}):
        raise Stop(f"{lacking} prompts got no answer; those that did are written. Run this again.", UNAVAILABLE)
    return written


def ledger_path(job: Workload, settings: teacher.Settings, seed: int, systems: dict[str, str]) -> Path:
    """Named for what decides the answers: a longer list, a higher cap or more retries go on with the same file."""
    inputs = [job.name, settings.model, settings.api_base, settings.max_tokens, seed, systems]
    return project.database().parent / f".generate-{job.name}-{sha256_text(canonical_json(inputs))[:16]}.ledger"


def work(
    job: Workload,
    ledger: Ledger,
    settings: teacher.Settings,
    left: list[Exemplar],
    systems: dict[str, str],
    halt: threading.Event,
) -> Iterator[None]:
    """Yields once per answer, after it is recorded."""
    by_id = {draft.id: draft for draft in left}
    budget = teacher.budget_of(settings, sum(result["cost_usd"] for _, result in ledger.results()))
    while items := ledger.claim(16 * settings.concurrency, LEASE_S):
        # a run for more exemplars may have left items behind that this one was not asked for
        wanted = [by_id[item.key] for item in items if item.key in by_id]
        questions = [Question(draft.id, systems[draft.task], draft.prompt_text) for draft in wanted]
        for question, reply in teacher.ask_all(settings, questions, budget, halt):
            if reply.error:
                ledger.fail(question.key, reply.error)
            else:
                ledger.finish(question.key, read(job, by_id[question.key], reply))
            yield


def read(job: Workload, draft: Exemplar, reply: Reply) -> dict[str, Any]:
    """{"response"} or {"reject": reason}, with what the call took."""
    took = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
    return {**judge_answer(job, draft, reply), **took, "cost_usd": reply.cost_usd}


def judge_answer(job: Workload, draft: Exemplar, reply: Reply) -> dict[str, Any]:
    content = (reply.content or "").strip()
    if reply.finish_reason == "length":
        return {"reject": "cut_off"}
    if not content:
        return {"reject": "empty_answer"}
    fenced = FENCE.match(content)
    parsed = answers.parse(fenced[1] if fenced else content)
    if not parsed.valid_json:
        return {"reject": "invalid_json"}
    answer, _ = job.check(draft.task, parsed.parsed)
    if answer is None:
        return {"reject": "schema_violation"}
    for path, spec in job.settings.tasks[draft.task].slots.items():
        if spec.level in job.levels:
            value = leaves.leaf(answer, leaves.place(path, spec))
            if not job.levels[spec.level](value, value, prompt=draft.prompt_text).passed:
                return {"reject": f"fails_{spec.level}"}
    return {"response": canonical_json(answer)}


def write(
    job: Workload, drafts: list[Exemplar], results: dict[str, Any], settings: teacher.Settings
) -> list[Path | str]:
    """Writes the kept answers to DuckDB and the counts to reports/<workload>/generated.json."""
    suffix = sha256_text(settings.model)[:8]
    rows, rejects, cost = [], Counter[str](), 0.0
    for draft in drafts:
        result = results.get(draft.id)
        if result is None:
            continue
        cost += result["cost_usd"]
        if "reject" in result:
            rejects[result["reject"]] += 1
            continue
        took = {key: result[key] for key in ("prompt_tokens", "completion_tokens")}
        metadata = {**draft.metadata, "model": settings.model, "generated_by": settings.model, **took}
        update = {"id": f"{draft.id}-{suffix}", "response_strong": result["response"], "metadata": metadata}
        rows.append(draft.model_copy(update=update))
    path, report = project.database(), project.reports(job.name) / "generated.json"
    if rows:
        database.write(path, rows)
    answered = len(rows) + rejects.total()
    counts = {"asked": len(drafts), "answered": answered, "kept": len(rows), "rejected": dict(rejects.most_common())}
    write_json(report, {"workload": job.name, "model": settings.model, **counts, "cost_usd": cost})
    told = ", ".join(f"{n} {reason}" for reason, n in rejects.most_common())
    print(f"{job.name}: {len(rows)} kept, {rejects.total()} rejected{f' ({told})' if told else ''}, {cost:.4f} USD")
    return [path, report]


if __name__ == "__main__":
    cli.run(main)
