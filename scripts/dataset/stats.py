"""Describes a workload's newest snapshot: rows, token lengths with the base's tokenizer, slots, groups, reduction.

Run: python -m scripts.dataset.stats -w batfit [-c nano]        (or: fab dataset.stats -w batfit)
-c names the train config whose base's tokenizer and max_length are used.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from potstill import bases, cli, describe, models, plots, progress, project, prompt, runs, shown, snapshots, workload
from potstill.describe import LENGTHS, STATES, Tally
from potstill.files import write_json, write_text
from potstill.snapshots import SPLITS

TEMPLATE = Path(describe.__file__).with_name("dataset.html")
# a plot of more slots than this is no picture any more; the table has them all
MAX_BARS = 40
Stats = dict[str, Any]


class Plot(NamedTuple):
    title: str
    keys: list[str]
    note: str
    svg: str


class Section(NamedTuple):
    title: str
    text: str
    head: list[str]
    rows: list[list[str]]
    # not drawn for the Markdown
    plots: Callable[[], list[Plot]] = list


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__, config="nano").parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    settings = runs.train_config(arguments.config, arguments.override)
    name, version = snapshots.newest(job.name)
    tokenizer = models.load_tokenizer(bases.resolve(settings.base, settings.revision).path)
    max_length = settings.sft.max_length
    tallies = {split: Tally() for split in SPLITS}
    for split, tally in tallies.items():
        snapshot = version.files()[split]
        for example in progress.track(snapshots.read(snapshot), f"stats {split}", snapshot.rows):
            describe.add(tally, example, prompt.render(example, tokenizer), job, max_length)
    stats: Stats = {"workload": job.name, "snapshot": name, "base": settings.base, "max_length": max_length}
    common = describe.commonest(tallies.values())
    stats["splits"] = {split: describe.summary(tally, common, split == "train") for split, tally in tallies.items()}
    lengths = {kind: {split: tally.lengths[kind] for split, tally in tallies.items()} for kind in LENGTHS}
    stats["histograms"] = {f"{kind} tokens": describe.histogram(counts) for kind, counts in lengths.items()}
    if any(tally.reduction for tally in tallies.values()):
        kept = {split: tally.reduction for split, tally in tallies.items()}
        stats["histograms"]["percent kept"] = describe.histogram(kept)
    found, folder = sections(stats), project.reports(job.name)
    write_json(folder / "dataset_stats.json", stats)
    write_text(folder / "dataset_stats.md", markdown(stats, found))
    write_text(folder / "dataset_stats.html", html(stats, found))
    wrote = [folder / f"dataset_stats.{suffix}" for suffix in ("json", "md", "html")]
    cli.done(wrote, f"fab train.prepare -w {job.name} -c {arguments.config}")


def sections(stats: Stats) -> list[Section]:
    found = [overview(stats), lengths(stats), slots(stats), facets(stats), reduction(stats), grounding(stats)]
    return [section for section in found if section.rows]


def overview(stats: Stats) -> Section:
    def cells(key: str) -> list[str]:
        values = [split[key] for split in stats["splits"].values()]
        return [f"{v:,}" if isinstance(v, int) else counts(v) for v in values]

    keys = ("rows", "groups", "tasks", "tenants", "slices", "tokens_total", "over_max_length")
    rows = [[key.replace("_", " "), *cells(key)] for key in keys]
    effective = [f"{split['effective']['rows']:,}" for split in stats["splits"].values()]
    text = "Effective rows: what an epoch counts once metadata.weight is applied. Weights apply to train only."
    return Section("Rows", text, ["", *SPLITS], [*rows, ["effective rows", *effective]], lambda: weights(stats))


def weights(stats: Stats) -> list[Plot]:
    """Rows beside effective rows, by task and tenant; none when every row of train counts once."""
    train = stats["splits"]["train"]
    if train["effective"]["rows"] == train["rows"]:
        return []
    plots_ = []
    for what in ("tasks", "tenants"):
        counted = {**train[what]}
        if what == "tenants" and (nameless := train["rows"] - sum(counted.values())):
            counted["-"] = nameless
        names = sorted(counted, key=lambda name: (-counted[name], name))[: describe.TOP]
        effective = [train["effective"][what].get(name, 0) for name in names]
        texts = [f"{counted[name]:,} count as {n:,}" for name, n in zip(names, effective, strict=True)]
        picture = plots.bars(f"effective-{what}", names, {"effective": effective}, texts)
        plots_.append(Plot(f"Effective rows of train by {what[:-1]}", [], "", picture))
    return plots_


def lengths(stats: Stats) -> Section:
    rows = []
    for kind in LENGTHS:
        cells = [" / ".join(f"{v:,}" for v in s["tokens"][kind].values()) for s in stats["splits"].values()]
        rows.append([f"{kind} tokens p50 / p90 / p99 / max", *cells])
    return Section("Token lengths", "", ["", *SPLITS], rows, lambda: [length_plot(stats, kind) for kind in LENGTHS])


def length_plot(stats: Stats, kind: str) -> Plot:
    mark = stats["max_length"] if kind == "total" else None
    note = f"The dashed line is max_length, {mark:,}. " if mark else ""
    return _histogram(stats, f"{kind} tokens", "tokens", mark, note)


def slots(stats: Stats) -> Section:
    splits = stats["splits"]
    paths = list(dict.fromkeys(path for split in splits.values() for path in split["slot_states"]))
    rows = [[path, *(_states(split["slot_states"].get(path)) for split in splits.values())] for path in paths]
    text = "Share of rows in which a slot is filled / null / empty / absent, of the rows that have the slot."

    def draw() -> list[Plot]:
        states = {path: shares for path, shares in splits["train"]["slot_states"].items()}
        order = sorted(states, key=lambda path: (states[path]["filled"], path))[:MAX_BARS]
        series = {state: [states[path][state] for path in order] for state in STATES}
        texts = [f"{states[path]['filled']:.1%} filled" for path in order]
        return [
            Plot("Slots in train, the least filled first", list(STATES), "", plots.bars("slots", order, series, texts))
        ]

    return Section("Slot coverage and null rates", text, ["slot", *SPLITS], rows, draw)


def facets(stats: Stats) -> Section:
    splits = stats["splits"]
    keys = list(splits["train"]["facets"])
    # value -> rows in each split
    found = {key: _by_split([split["facets"][key]["values"] for split in splits.values()]) for key in keys}
    rows = []
    for key in keys:
        rows += [[f"{key}: {name}", *(f"{n:,}" for n in numbers)] for name, numbers in found[key].items()]
        others = [split["facets"][key]["other_rows"] for split in splits.values()]
        rows += [[f"{key}: others", *(f"{n:,}" for n in others)]] if any(others) else []

    def draw() -> list[Plot]:
        shown_ = {"task": _by_split([split["tasks"] for split in splits.values()]), **found}
        return [Plot(key, list(SPLITS), "", _counts(key, values)) for key, values in shown_.items() if len(values) > 1]

    text = f"The {describe.TOP} commonest values of each metadata key, in each split."
    return Section("What the rows are", text, ["", *SPLITS], rows, draw)


def reduction(stats: Stats) -> Section:
    found = {split: s["reduction"] or {} for split, s in stats["splits"].items()}
    keys = list(dict.fromkeys(key for values in found.values() for key in values))
    rows = [[key.replace("_", " "), *(f"{v[key]:,}" if key in v else "-" for v in found.values())] for key in keys]
    text = "How much of its raw page a prompt keeps, in percent of the tokens, or else of the characters."
    note = "Percent of the raw page kept. "
    return Section(
        "Reduction", text, ["", *SPLITS], rows, lambda: [_histogram(stats, "percent kept", "percent", None, note)]
    )


def grounding(stats: Stats) -> Section:
    splits = stats["splits"]
    ways = sorted({how for split in splits.values() for shares in split["grounded"].values() for how in shares})
    together = {path: shares for split in reversed(splits.values()) for path, shares in split["grounded"].items()}
    rows = [[path, *(f"{shares.get(how, 0):.1%}" for how in ways)] for path, shares in sorted(together.items())]

    def draw() -> list[Plot]:
        order = sorted(together)[:MAX_BARS]
        series = {how: [together[path].get(how, 0.0) for path in order] for how in ways}
        return [Plot("Where values are found", ways, "", plots.bars("grounded", order, series, [""] * len(order)))]

    text = "Where the value of each slot is found in the prompt, as dataset.clean saw it; rows of train."
    return Section("Grounding", text, ["slot", *ways], rows, draw)


def markdown(stats: Stats, found: list[Section]) -> str:
    lines = [f"# Dataset statistics: {stats['workload']}, snapshot {stats['snapshot']}", ""]
    lines += [
        f"Token counts are those of the base {shown.code(stats['base'])}; max_length is {stats['max_length']}.",
        "",
    ]
    for section in found:
        lines += [f"## {section.title}", "", *([section.text, ""] if section.text else [])]
        lines += [*shown.table(section.head, section.rows), ""]
    return "\n".join(lines)


def html(stats: Stats, found: list[Section]) -> str:
    import jinja2

    drawn = [{**section._asdict(), "plots": section.plots()} for section in found]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(stats=stats, sections=drawn)


def counts(values: dict[str, int]) -> str:
    return ", ".join(f"{key} {n:,}" for key, n in sorted(values.items())) or "none"


def _histogram(stats: Stats, name: str, unit: str, mark: int | None, note: str) -> Plot:
    found = stats["histograms"][name]
    note += "The last bar also has all that is longer." if found["open_end"] else ""
    picture = plots.histogram(name.replace(" ", "-"), found["width"], found["counts"], mark, unit)
    return Plot(name, list(SPLITS), note, picture)


def _states(shares: dict[str, float] | None) -> str:
    return " / ".join(f"{shares[state]:.1%}" for state in STATES) if shares else "-"


def _by_split(counted: list[dict[str, int]]) -> dict[str, list[int]]:
    names = dict.fromkeys(name for values in counted for name in values)
    return {name: [values.get(name, 0) for values in counted] for name in names}


def _counts(key: str, found: dict[str, list[int]]) -> str:
    series = {split: [float(values[number]) for values in found.values()] for number, split in enumerate(SPLITS)}
    return plots.bars(f"facet-{key}", list(found), series, [f"{sum(values):,}" for values in found.values()])


if __name__ == "__main__":
    cli.run(main)
