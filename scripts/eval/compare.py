"""Compares two sets of answers to the same test rows: base against tuned, or one run against another.

Run: python -m scripts.eval.compare [-a small] [-b small:base] [--samples 20]      (or: fab eval.compare)
A side is a run, for its merged model's answers, or run:answers, such as small:base, small:null or small:gguf-q8_0.
Without -a the newest run of the workload; without -b the base of a. Differences are a - b. --samples times both sides
on the first N test rows, one prompt after the other.
"""

import itertools

from potstill import breakdown, cli, comparing, gate, grading, project, shown, snapshots, speed, workload
from potstill.comparing import HEADLINE, Answers, Comparison
from potstill.files import stage_lock, write_json, write_text
from potstill.paired import Difference
from potstill.speed import Speed
from potstill.stop import USAGE, Stop

TITLES = {name: name.replace("_", " ").replace("json", "JSON") for name in HEADLINE}
HEAD = ["", "a", "b", "a - b", "95% interval", "scored"]
MAX_IDS = 50


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("-a", "--a", metavar="RUN[:ANSWERS]", help="default: the newest run of the workload")
    parser.add_argument("-b", "--b", metavar="RUN[:ANSWERS]", help="default: the base of a")
    parser.add_argument("--samples", type=int, metavar="N", help="time both sides on N test rows")
    arguments = parser.parse_args(argv)
    if arguments.samples is not None and arguments.samples < 1:
        raise Stop(f"--samples {arguments.samples}: want at least 1", USAGE)
    name = cli.workload_name(arguments)
    a = side(name, arguments.a)
    b = side(name, arguments.b or f"{a.record.run}:base")
    group = workload.load(a.record.workload).settings.split.group
    folder = project.reports(a.record.run)
    with stage_lock(folder, "eval.compare"):
        found = comparing.compare(a, b, group)
        measured = timed(a, b, arguments.samples) if arguments.samples else {}
        found = found.model_copy(update={"speed": measured, "cost": costs(a, b, measured)})
        stem = folder / f"compare_{file_name(a)}_{file_name(b)}"
        text = markdown(found)
        write_text(stem.with_name(f"{stem.name}.md"), text)
        write_json(stem.with_name(f"{stem.name}.json"), found.model_dump())
    show(found)
    cli.done([f"{stem}.json", f"{stem}.md"], f"fab package.export -r {a.record.run}")


def side(name: str, given: str | None) -> Answers:
    run, _, answers = (given or "").partition(":")
    return comparing.read(project.find_run(name, run or None), answers or grading.TUNED)


def timed(a: Answers, b: Answers, samples: int) -> dict[str, Speed]:
    """Both sides on the same rows, the first of the test snapshot."""
    settings = workload.load(a.record.workload).settings
    examples = list(itertools.islice(snapshots.read(a.record.snapshots["test"]), samples))
    limits = {task: own.max_new_tokens for task, own in settings.tasks.items()}
    return {key: speed.measure(side.record, side.name, examples, limits) for key, side in (("a", a), ("b", b))}


def costs(a: Answers, b: Answers, measured: dict[str, Speed]) -> dict[str, float]:
    """USD per 1,000 answers by the prices of configs/gate.yaml: the strong model's by tokens, others by their time."""
    prices = gate.load_limits().prices
    found: dict[str, float] = {}
    if prices is None:
        return found
    for key, side in (("a", a), ("b", b)):
        answered = [row.prediction for row in side.rows]
        if answered[0].backend == f"litellm {prices.strong_model}":
            spent = [
                p.prompt_tokens * prices.input_usd_per_million + p.completion_tokens * prices.output_usd_per_million
                for p in answered
            ]
            found[key] = sum(spent) / len(spent) / 1000
        elif key in measured and prices.host_usd_per_hour is not None:
            found[key] = breakdown.host_usd(prices.host_usd_per_hour, measured[key].answers_per_s)
    return found


def fast(found: Comparison) -> list[str]:
    return [
        f"{key}: {own.tokens_per_s:.0f} tokens/s, latency p50 {own.latency_ms['p50']:.0f} ms, p95 "
        f"{own.latency_ms['p95']:.0f} ms over {own.samples} prompts one by one, {own.bytes / 1e6:.1f} MB"
        for key, own in found.speed.items()
    ] + [f"{key}: {usd:,.4f} USD per 1,000 answers" for key, usd in found.cost.items()]


def sensitivity(found: Comparison) -> str:
    smallest = found.detectable["slot_accuracy"]
    if smallest is None:
        return "no difference could be shown: no slot was scored on both sides"
    return f"rows like these show a true difference of {100 * smallest:.1f} points of slot accuracy 4 times of 5"


def file_name(side: Answers) -> str:
    # no run has an @ in its name, so no two sides share a file
    return side.record.run if side.name == grading.TUNED else f"{side.record.run}@{side.name}"


def verdict(found: Comparison) -> str:
    """One sentence. Says that nothing is shown where the interval holds zero."""
    difference = found.headline["slot_accuracy"]
    if difference.difference is None or difference.ci95 is None:
        return "no slot was scored on both sides"
    low, high = difference.ci95
    if low <= 0 <= high:
        return f"no difference is shown: {points(difference.difference)} of slot accuracy, {interval(difference)}"
    better = "a" if low > 0 else "b"
    return f"{better} is better: {points(difference.difference)} of slot accuracy, {interval(difference)}"


def tables(found: Comparison) -> list[tuple[str, list[list[str]]]]:
    by_size = sorted(found.per_slot.items(), key=lambda item: -abs(item[1].difference or 0))
    return [
        ("Headline", [line(TITLES[name], found.headline[name]) for name in HEADLINE]),
        ("Slots, the largest difference first", [line(name, difference) for name, difference in by_size]),
        ("Slot accuracy by task and slice", [line(name, difference) for name, difference in found.parts.items()]),
    ]


def line(name: str, found: Difference) -> list[str]:
    scored = str(found.n_a) if found.n_a == found.n_b else f"{found.n_a}, {found.n_b}"
    shares = [share(found.a), share(found.b)]
    return [name, *shares, points(found.difference), interval(found), scored]


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def points(value: float | None) -> str:
    # -0.0 is no difference
    return "-" if value is None else f"{value * 100 + 0.0:+.1f} points"


def interval(found: Difference) -> str:
    if found.ci95 is None:
        return "-"
    low, high = (value * 100 + 0.0 for value in found.ci95)
    return f"{low:+.1f} to {high:+.1f}"


def perfect(found: Comparison) -> str:
    test = found.mcnemar
    value = "< 0.0001" if test.p_value < 0.0001 else f"= {test.p_value:.4f}"
    return f"perfect records: {test.only_a} of a alone, {test.only_b} of b alone (McNemar's exact test, p {value})"


def names(found: Comparison) -> list[str]:
    return [f"{side} = {at.run}, {at.answers}" for side, at in (("a", found.a), ("b", found.b))]


def markdown(found: Comparison) -> str:
    lines = [f"# {shown.cell(' against '.join(names(found)))}", ""]
    lines += [f"Workload {shown.cell(found.workload)}, snapshot {found.snapshot}: {found.n} test rows outside the "]
    lines[-1] += (
        f"slices, of {found.groups} groups. Intervals: 95%, paired bootstrap of whole groups, {found.draws} draws."
    )
    lines += ["", f"**{verdict(found)}**", "", f"{shown.cell(perfect(found))}.", "", f"{sensitivity(found)}.", ""]
    lines += [f"- {line}" for line in fast(found)] + ([""] if fast(found) else [])
    lines += [text for note in found.notes for text in (shown.cell(note), "")]
    for title, rows in tables(found):
        lines += [f"## {title}", "", *shown.table(HEAD, rows), ""]
    for title, ids in (("Rows won by a", found.won), ("Rows lost to b", found.lost)):
        lines += [f"## {title}: {len(ids)} of {found.n}", "", *(f"- {shown.code(id)}" for id in ids[:MAX_IDS])]
        lines += [f"- and {len(ids) - MAX_IDS} more in the JSON file"] if len(ids) > MAX_IDS else []
        lines += [""]
    return "\n".join(lines)


def show(found: Comparison) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    # a pipe has no width: keep the tables whole
    console = console if console.is_terminal else Console(width=120)
    for title, rows in tables(found):
        table = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left")
        for number, head in enumerate(HEAD):
            table.add_column(Text(head), justify="right" if number else "left")
        for row in rows:
            table.add_row(*(Text(shown.line(cell)) for cell in row))
        console.print(table)
    lines = [*names(found), verdict(found), perfect(found), sensitivity(found), *fast(found)]
    lines += [f"rows: {len(found.won)} won, {len(found.lost)} lost, {found.tied} alike", *found.notes]
    console.print(Text("\n".join(lines)), soft_wrap=True)


if __name__ == "__main__":
    cli.run(main)
