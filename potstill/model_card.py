"""The README.md at the root of a package: what the model is for, how good it is, where it is weak, how to check it.

Made from records only (run.json, the resolved config, report.json, parity.json): the same records, the same bytes.
The header is that of Hugging Face model cards: https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from potstill import bases
from potstill import licence as licences
from potstill.files import sha256_file, write_text
from potstill.project import reports
from potstill.runs import RunRecord

NAME = "README.md"
# slots shown, the weakest first
WEAKEST = 8


def write(
    package: Path,
    record: RunRecord,
    *,
    config: Mapping[str, Any],
    tasks: Mapping[str, str],
    licence: str,
    num_ctx: int,
    artifacts: Mapping[str, int],
    runtimes: Mapping[str, Mapping[str, str]],
) -> None:
    """Writes package/README.md.

    `config` is the resolved train config, `tasks` says what each task's answer is, `artifacts` has their bytes, and
    `runtimes` is the manifest's. Scores are those of reports/<run>/, where there are some.
    """
    sections = [
        _header(record, licence, list(artifacts)),
        _purpose(record, tasks, num_ctx),
        _artifacts(artifacts, runtimes),
        _scores(read(reports(record.run) / "report.json")),
        _parity(read(reports(record.run) / "parity.json"), package),
        _training(record, config),
        _checks(record, licence),
    ]
    write_text(package / NAME, "\n".join(sections))


def read(path: Path) -> dict[str, Any]:
    """A report, or nothing where there is none."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _header(record: RunRecord, licence: str, artifacts: list[str]) -> str:
    values: dict[str, Any] = {"license": licence if licence in licences.SHOWN else "other"}
    # a base that is no id of the hub would be a broken link there
    if bases.HUB_ID.match(record.base.name):
        values |= {"base_model": record.base.name, "base_model_relation": "finetune"}
    tags = ["potstill", "distillation", record.workload, *(["gguf"] if any("gguf" in a for a in artifacts) else [])]
    values |= {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"


def _purpose(record: RunRecord, tasks: Mapping[str, str], num_ctx: int) -> str:
    lines = [
        f"# {record.run}",
        "",
        f"A small model for one job, `{record.workload}`, distilled from a stronger model's answers.",
    ]
    lines += ["", "It answers these tasks with JSON, and nothing else:", ""]
    lines += [f"- `{task}`" + (f": {' '.join(words.split())}" if words else "") for task, words in tasks.items()]
    lines += [
        "",
        "Intended use: prompts of the form it was trained on, one turn, greedy decoding, prompt and answer together at",
        f"most {num_ctx} tokens. Other prompts get answers of the same form, with nothing behind them; it is no",
        "assistant, and what it states about people or products is a guess unless the prompt says it.",
        "",
    ]
    if record.base.name.rstrip("/").endswith("nano"):
        lines += ["Its base, nano, knows next to no words and no facts: it is for trying things out.", ""]
    return "\n".join(lines)


def _artifacts(artifacts: Mapping[str, int], runtimes: Mapping[str, Mapping[str, str]]) -> str:
    lines = ["## Artifacts", "", "| folder | MB | loads in | |", "|---|---|---|---|"]
    for kind, size in artifacts.items():
        loads = [name for name, words in runtimes[kind].items() if words.startswith(("works", "warns"))]
        lines.append(f"| `{kind}/` | {size / 1e6:.1f} | {', '.join(loads) or 'untested'} | [how]({kind}/README.md) |")
    lines += [
        "",
        "Which GPU, and who says so: `runtimes` in manifest.json. `schemas/` has the form of every answer.",
        "",
    ]
    return "\n".join(lines)


def _scores(report: Mapping[str, Any]) -> str:
    if not report:
        return "## Scores\n\nNot judged: there was no report when this was written.\n"
    judge = report.get("judge", {}).get("label", "rules")
    verdict = (report.get("gate") or {}).get("verdict", "?")
    lines = [
        "## Scores",
        "",
        f"The merged model on {report['n']} test rows of snapshot {report.get('snapshot', '?')}, judged by "
        f"{judge}; the gate said {verdict}.",
        "",
        "| | share | 95% interval |",
        "|---|---|---|",
    ]
    for key in ("json_validity", "schema_validity", "slot_accuracy", "perfect_records"):
        if report.get(key) is not None:
            lines.append(f"| {key} | {report[key]:.3f} | {_interval(report.get('ci95', {}).get(key))} |")
    slots = {name: slot for name, slot in report.get("per_slot", {}).items() if slot.get("pass_rate") is not None}
    weakest = sorted(slots, key=lambda name: (slots[name]["pass_rate"], name))[:WEAKEST]
    if weakest:
        lines += [
            "",
            "## Limits",
            "",
            "Where it is weakest:",
            "",
            "| slot | rows | passed | 95% interval |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {slots[name]['n']} | {slots[name]['pass_rate']:.3f} | {_interval(slots[name].get('ci95'))} |"
            for name in weakest
        ]
    return "\n".join([*lines, ""])


def _parity(parity: Mapping[str, Any], package: Path) -> str:
    """Rows of parity.json that are of these very files: an older package's say nothing of this one."""
    lines = ["## The same answers in each artifact", ""]
    kinds = {row["artifact"]: row["sha256"] for row in parity.get("artifacts", {}).values()}
    same = {kind for kind, sha256 in kinds.items() if sha256 in _weights(package / kind)}
    measured = [row for row in parity.get("artifacts", {}).values() if row["artifact"] in same]
    if not measured:
        return "\n".join([*lines, "Not compared yet: fab package.parity had not run when this was written.", ""])
    lines += ["Against the merged float32 model, on its test rows:", ""]
    lines += ["| artifact | engine | rows | same text | same JSON | slot accuracy lost |", "|---|---|---|---|---|---|"]
    for row in measured:
        drop = (row.get("slots") or {}).get("drop")
        shares = f"{row['same_output']:.1%} | {row['same_json']:.1%} | {'' if drop is None else f'{drop:.3f}'}"
        lines.append(f"| {row['artifact']} | {row['engine']} | {row['n']} | {shares} |")
    return "\n".join([*lines, ""])


def _weights(folder: Path) -> set[str]:
    return {sha256_file(path) for path in folder.glob("*.*") if path.suffix in (".gguf", ".safetensors")}


def _training(record: RunRecord, config: Mapping[str, Any]) -> str:
    sft = config["sft"]
    facts = {
        "base": f"{record.base.name}" + (f", revision {record.base.revision}" if record.base.revision else ""),
        "base weights, sha256": record.base.sha256,
        "data": f"snapshot {record.snapshot}: "
        + ", ".join(f"{snapshot.rows} {split}" for split, snapshot in record.snapshots.items()),
        "train rows, sha256": record.snapshots["train"].sha256,
        "method": f"{record.mode} fine-tuning, {record.train_config}.yaml",
        "learning rate, epochs, seed": f"{sft['learning_rate']}, {sft['num_train_epochs']}, {record.seed}",
        "code": f"commit {record.git_commit or 'unknown'}" + (", with changes" if record.git_dirty else ""),
        "made": f"{record.created_at}, on {record.device}",
    }
    if record.vocabulary:
        facts["vocabulary"] = (
            f"{record.vocabulary.pieces_before:,} pieces trimmed to {record.vocabulary.pieces_after:,}"
        )
    rows = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *rows, ""])


def _checks(record: RunRecord, licence: str) -> str:
    words = licences.SHOWN.get(licence, licences.UNKNOWN)
    return f"""\
## Licence

{words}. Base: {record.base.name}.

## How to check this package

Every file is listed with its sha256 in manifest.json. Where Potstill is installed, without a network:

    fab package.verify --folder <this folder>
"""


def _interval(bounds: list[float] | None) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""
