"""Asks every artifact of a package the test snapshot, in its own engine, and compares with the merged model's answers.

Run: python -m scripts.package.parity -r <run> [--all]        (after eval.generate and package.export)
Writes reports/<run>/parity.json and predictions.<artifact>.jsonl, which eval.judge can score. The engines are those of
configs/package/<config>.yaml; --all asks transformers, llama.cpp, vLLM and Ollama where they are there.
An artifact over its limits, or that reads a prompt as other tokens, goes to package-rejected/; the exit code is 100.
"""

from pathlib import Path

from potstill import (
    cli,
    llama,
    manifest,
    models,
    package,
    parity_engines,
    parity_forced,
    parity_measure,
    parity_reject,
    parity_slots,
    project,
    prompt,
    runs,
    snapshots,
    token_lock,
    workload,
)
from potstill.files import stage_lock, write_json
from potstill.package import PackageConfig
from potstill.parity import ArtifactParity, Parity
from potstill.parity_engines import Engine, Questions
from potstill.parity_measure import Bench, Rows
from potstill.records import Prediction, read_jsonl
from potstill.runs import RunRecord
from potstill.stop import DATA, OK, REJECT, Stop


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(__doc__, run=True, config="")
    parser.add_argument("--all", action="store_true", help="asks every engine that is there, not only the config's")
    arguments = parser.parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    record = runs.require_trained(run)
    config = arguments.config or workload.load(record.workload).settings.package_config
    settings = package.load_config(config, arguments.override)
    folder, out = package.folder(run), project.reports(run)
    if problems := manifest.verify(folder):
        raise Stop(f"{folder}/{problems[0]}. Run fab package.export -r {run}.", DATA)
    chosen, not_run = plan(settings, folder, parity_reject.folder(run), arguments.all)
    if not chosen:
        told = "; ".join(f"{name}: {why}" for name, why in not_run.items())
        raise Stop(f"{folder}: no artifact of configs/package/{config}.yaml can be asked here: {told}", DATA)
    with stage_lock(out, "parity"):
        bench = prepare(record, settings, out)
        results, given, unanswered = measure_all(bench, chosen, out)
        not_run |= {name: why for name, (_, why) in unanswered.items()}
        over = [result.artifact for result in results.values() if not result.passed]
        rejected = list(dict.fromkeys([*over, *(kind for kind, _ in unanswered.values())]))
        found = Parity(
            run=run,
            snapshot=record.snapshot,
            context=settings.num_ctx,
            slots=settings.slots,
            threads=llama.THREADS,
            artifacts=results,
            pairs=parity_measure.pairs(bench, results, given),
            not_run=not_run,
            rejected=rejected,
        )
        write_json(out / "parity.json", found.model_dump())
        parity_reject.settle(run, rejected)
    show(found)
    cli.done(
        [out / "parity.json", *(out / f"predictions.{name}.jsonl" for name in results)], f"fab eval.judge -r {run}"
    )
    gone = [kind for kind in settings.artifacts if (parity_reject.folder(run) / kind).is_dir()]
    return REJECT if rejected or any(not (folder / kind).is_dir() for kind in gone) else OK


def measure_all(
    bench: Bench, chosen: list[tuple[str, Engine]], out: Path
) -> tuple[dict[str, ArtifactParity], dict[str, Rows], dict[str, tuple[str, str]]]:
    """Results and answers by name, and for each name whose engine could not load or ask it: the artifact, and why.

    Raises Stop when none could be asked: then it is the engine that is to be looked at.
    """
    results: dict[str, ArtifactParity] = {}
    given: dict[str, Rows] = {}
    unanswered: dict[str, tuple[str, str]] = {}
    for kind, engine in chosen:
        name = parity_engines.name_of(kind, engine)
        try:
            results[name], given[name] = parity_measure.measure(bench, kind, engine, out)
        except Stop as stop:
            if stop.code != DATA:
                raise
            unanswered[name] = kind, str(stop)
            print(f"{name}: {stop}", flush=True)
    if not results:
        raise Stop("; ".join(why for _, why in unanswered.values()), DATA)
    return results, given, unanswered


def plan(
    settings: PackageConfig, folder: Path, rejected: Path, every: bool
) -> tuple[list[tuple[str, Engine]], dict[str, str]]:
    """(artifact, engine) to ask, in the order of the config, and why each other one is not asked."""
    chosen, not_run = [], {}
    for kind in settings.artifacts:
        if not (folder / kind).is_dir():
            gone = (rejected / kind).is_dir()
            not_run[kind] = f"it is in {rejected}, over its limits" if gone else "not in the package: export again"
            continue
        for engine in parity_engines.engines_of(kind):
            why = parity_engines.missing(engine, kind)
            if not every and engine not in settings.engines:
                why = f"{engine} is not among the config's engines: fab package.parity --all"
            if why is None:
                chosen.append((kind, engine))
            else:
                not_run[parity_engines.name_of(kind, engine)] = why
    return chosen, not_run


def prepare(record: RunRecord, settings: PackageConfig, out: Path) -> Bench:
    """The test rows that the merged model has answered, and all that is asked about them."""
    mend = f"Run fab eval.generate -r {record.run}."
    merged = {row.id: row for row in read_jsonl(out / "predictions.jsonl", Prediction, mend)}
    examples = [example for example in snapshots.read(record.snapshots["test"]) if example.id in merged]
    if not examples:
        raise Stop(f"{out}/predictions.jsonl answers no row of the test snapshot. {mend}", DATA)
    job, tokenizer = workload.load(record.workload), models.load_tokenizer(record.base.path)
    texts = [token_lock.text_of(example, tokenizer) for example in examples]
    questions = Questions(
        prompts=tokenizer(texts, add_special_tokens=False)["input_ids"],
        texts=texts,
        messages=[prompt.messages(example.system, example.prompt) for example in examples],
        limits=[job.settings.tasks[example.task].max_new_tokens for example in examples],
        context=settings.num_ctx,
        slots=settings.slots,
        shown=settings.forced_rows,
        tokenizer=tokenizer,
    )
    reference, grader = parity_forced.Reference(record.run), parity_slots.Grader(job, examples)
    return Bench(record, settings, examples, merged, questions, reference, grader)


def show(found: Parity) -> None:
    heads = ("same text", "same JSON", "slots", "same ids", "KL", "top 1", "decode/s", "MB")
    print(f"{'artifact':<20} {'n':>5} " + " ".join(f"{head:>9}" for head in heads))
    for name, r in found.artifacts.items():
        slots = "-" if r.slots.drop is None else f"{-100 * r.slots.drop + 0.0:+.2f}"
        ids = "-" if r.same_prompt_ids is None else f"{r.same_prompt_ids:.1%}"
        kl, top1 = ("-", "-") if r.forced is None else (f"{r.forced.kl:.5f}", f"{r.forced.top1:.2%}")
        shares = f"{r.same_output:.1%}", f"{r.same_json:.1%}", slots, ids, kl, top1
        cells = (*shares, f"{r.decode_tokens_per_s:.0f}", f"{r.bytes / 1e6:.1f}")
        print(f"{name:<20} {r.n:>5} " + " ".join(f"{cell:>9}" for cell in cells))
    left_out = max(r.slots.left_out for r in found.artifacts.values())
    print(
        f"slots: points against the merged model, by rule; up to {left_out} slots need a model judge and are left out"
    )
    for pair in found.pairs:
        print(f"{pair.one} and {pair.other} give the same text on {pair.same_output:.1%} of the rows")
    for name, why in found.not_run.items():
        print(f"{name}: not run: {why}")
    for name, r in found.artifacts.items():
        for reason in r.reasons:
            print(f"{name}: {reason}")
    if found.rejected:
        print(f"left the package for {parity_reject.folder(found.run)}: {', '.join(found.rejected)}")


if __name__ == "__main__":
    cli.run(main)
