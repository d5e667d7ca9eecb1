"""Describes a workload's newest snapshot: rows, token lengths with the base's tokenizer, slot coverage, groups.

Run: python -m scripts.dataset.stats -w batfit [-c nano]        (or: fab dataset.stats -w batfit)
-c names the train config whose base's tokenizer and max_length are used.
"""

import json
from collections import Counter, defaultdict
from typing import Any

from potstill import bases, cli, models, progress, project, prompt, runs, snapshots, workload
from potstill.files import write_json, write_text
from potstill.leaves import ABSENT, leaf
from potstill.records import Example
from potstill.snapshots import SPLITS

PERCENTILES = (50, 90, 99, 100)


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parser(__doc__, config="nano").parse_args(argv)
    job = workload.load(cli.workload_name(arguments))
    settings = runs.train_config(arguments.config, arguments.override)
    name, version = snapshots.newest(job.name)
    tokenizer = models.load_tokenizer(bases.resolve(settings.base, settings.revision).path)
    splits = {}
    for split in SPLITS:
        examples = snapshots.read(version.files()[split])
        rows = progress.track(examples, f"stats {split}", version.files()[split].rows)
        splits[split] = describe(list(rows), tokenizer, settings.sft.max_length)
    stats = {"workload": job.name, "snapshot": name, "base": settings.base, "splits": splits}
    folder = project.reports(job.name)
    write_json(folder / "dataset_stats.json", stats)
    write_text(folder / "dataset_stats.md", markdown(stats))
    following = f"fab train.prepare -w {job.name} -c {arguments.config}"
    cli.done([folder / "dataset_stats.json", folder / "dataset_stats.md"], following)


def describe(examples: list[Example], tokenizer: Any, max_length: int) -> dict[str, Any]:
    tokens: dict[str, list[int]] = {"prompt": [], "completion": [], "total": []}
    present: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        rendered = prompt.render(example, tokenizer)
        tokens["prompt"].append(len(rendered.prompt_ids))
        tokens["completion"].append(len(rendered.completion_ids))
        tokens["total"].append(len(rendered.prompt_ids) + len(rendered.completion_ids))
        answer = json.loads(example.response)
        for path in example.slots:
            value = leaf(answer, path)
            present[path]["empty" if value in (None, [], "", ABSENT) else "filled"] += 1
    return {
        "rows": len(examples),
        "tasks": dict(Counter(e.task for e in examples)),
        "groups": len({e.metadata.get("group", e.id) for e in examples}),
        "tenants": dict(Counter(e.metadata["tenant"] for e in examples if "tenant" in e.metadata)),
        "slices": dict(Counter(e.metadata["slice"] for e in examples if "slice" in e.metadata)),
        "tokens": {kind: {f"p{p}": percentile(values, p) for p in PERCENTILES} for kind, values in tokens.items()},
        "tokens_total": sum(tokens["total"]),
        "over_max_length": sum(n > max_length for n in tokens["total"]),
        "slot_coverage": {path: round(c["filled"] / c.total(), 4) for path, c in present.items()},
    }


def percentile(values: list[int], percent: int) -> int:
    """The nearest-rank percentile, a value that occurs; 0 for no values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0


def markdown(stats: dict[str, Any]) -> str:
    splits = stats["splits"]
    lines = [
        f"# Dataset statistics: {stats['workload']}, snapshot {stats['snapshot']}",
        "",
        f"Token counts are those of the base `{stats['base']}`.",
        "",
        "| | train | val | test |",
        "|---|---|---|---|",
    ]
    for key in ("rows", "groups", "tasks", "tenants", "slices", "tokens_total", "over_max_length"):
        cells = [s[key] if isinstance(s[key], int) else counts(s[key]) for s in splits.values()]
        lines.append(f"| {key.replace('_', ' ')} | {' | '.join(map(str, cells))} |")
    for kind in ("prompt", "completion", "total"):
        cells = [" / ".join(str(v) for v in s["tokens"][kind].values()) for s in splits.values()]
        lines.append(f"| {kind} tokens p50 / p90 / p99 / max | {' | '.join(cells)} |")
    lines += ["", "Share of rows in which a slot is neither null nor empty:", "", "| slot | train | val | test |"]
    lines.append("|---|---|---|---|")
    for path in splits["train"]["slot_coverage"]:
        lines.append(f"| {path} | {' | '.join(str(s['slot_coverage'].get(path, '')) for s in splits.values())} |")
    return "\n".join(lines) + "\n"


def counts(values: dict[str, int]) -> str:
    return ", ".join(f"{key} {n}" for key, n in sorted(values.items())) or "none"


if __name__ == "__main__":
    cli.run(main)
