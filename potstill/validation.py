"""reports/<w>/dataset_validation.md: what dataset.clean kept, dropped, lost and replaced, and what to do about it."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import median

from potstill.cleaning import REASONS
from potstill.near import Conflicts
from potstill.records import Example, Reject
from potstill.workload import Workload

EXAMPLES_PER_REASON = 5
PAIRS = 20  # conflicts that are listed
HOW = ("exact", "normalised", "typed", "lost", "unfounded", "none")


@dataclass
class Tally:
    kept: Counter[str] = field(default_factory=Counter)  # by task
    rejected: Counter[str] = field(default_factory=Counter)  # by reason
    shown: dict[str, list[Reject]] = field(default_factory=dict)  # the first few of each reason
    grounded: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # slot -> how -> rows
    lost: list[tuple[str, str]] = field(default_factory=list)  # the first few (id, slot) a reduction lost
    pii: Counter[str] = field(default_factory=Counter)  # by kind
    pii_rows: int = 0
    kept_percent: list[float] = field(default_factory=list)  # characters a reduction kept, per page

    def add(self, result: Example | Reject) -> None:
        if isinstance(result, Reject):
            self.rejected[result.reason] += 1
            if self.rejected[result.reason] <= EXAMPLES_PER_REASON:
                self.shown.setdefault(result.reason, []).append(result)
            return
        self.kept[result.task] += 1
        for slot, how in result.metadata.get("grounded", {}).items():
            self.grounded[slot][how] += 1
            if how == "lost" and len(self.lost) < EXAMPLES_PER_REASON:
                self.lost.append((result.id, slot))
        counts = result.metadata.get("pii", {})
        self.pii.update(counts)
        self.pii_rows += bool(counts)
        reduction = result.metadata.get("reduction")
        if reduction and reduction["raw_chars"]:
            self.kept_percent.append(100 * reduction["reduced_chars"] / reduction["raw_chars"])


def report(job: Workload, found: dict[str, int], tally: Tally, conflicts: Conflicts) -> str:
    lines = [f"# Dataset validation: {job.name}", "", "| task | rows in | kept | rejected |", "|---|---|---|---|"]
    lines += [f"| {task} | {n} | {tally.kept[task]} | {n - tally.kept[task]} |" for task, n in found.items()]
    lines += _rejects(tally)
    if tally.kept_percent:
        lines += ["", "## Reduction", "", f"{len(tally.kept_percent)} pages keep {median(tally.kept_percent):.1f}% "]
        lines[-1] += "of their characters (median)."
    lines += _grounding(tally) + _pii(job, tally) + _conflicts(conflicts)
    return "\n".join(lines) + "\n"


def _rejects(tally: Tally) -> list[str]:
    lines: list[str] = []
    if tally.rejected:
        lines += ["", "| reason | rows | what to do |", "|---|---|---|"]
        lines += [f"| {reason} | {n} | {REASONS[reason]} |" for reason, n in sorted(tally.rejected.items())]
    for reason, rows in sorted(tally.shown.items()):
        lines += ["", f"## {reason}", ""]
        # a detail never holds a value of the row, only keys and rules
        lines += [f"- `{row.id}`: {row.detail}" for row in rows]
        if tally.rejected[reason] > len(rows):
            lines.append(f"- and {tally.rejected[reason] - len(rows)} more in rejected.jsonl")
    return lines


def _grounding(tally: Tally) -> list[str]:
    if not tally.grounded:
        return []
    lines = [
        "",
        "## Grounding",
        "",
        "How the values of each slot are found in the prompt. `lost`: the raw page has it and the reduced one does not "
        "(raise html.budget_tokens, or keep more attributes). `unfounded`: not in the raw prompt either: the strong "
        "model made it up or said it in other words (grounding.unfounded: reject drops such rows).",
        "",
        f"| slot | {' | '.join(HOW)} |",
        "|---|" + "---|" * len(HOW),
    ]
    for slot, counts in sorted(tally.grounded.items()):
        lines.append(f"| {slot} | {' | '.join(str(counts[how]) for how in HOW)} |")
    if tally.lost:
        lines += ["", "Lost, for example: " + ", ".join(f"`{id}` {slot}" for id, slot in tally.lost) + "."]
    return lines


def _pii(job: Workload, tally: Tally) -> list[str]:
    if job.settings.pii is None:
        return []
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(tally.pii.items())) or "none"
    names = "" if job.settings.pii.recogniser else " Names and addresses are not looked for without pii.recogniser."
    return ["", "## Personal data", "", f"Replaced in {tally.pii_rows} rows: {kinds}.{names}"]


def _conflicts(conflicts: Conflicts) -> list[str]:
    if not conflicts.count:
        return []
    lines = [
        "",
        "## Conflicts",
        "",
        f"{conflicts.count} pairs of nearly equal prompts have different answers. All are kept: see which are right.",
        "",
    ]
    lines += [f"- `{pair.first}` and `{pair.second}`: {', '.join(pair.slots)}" for pair in conflicts.pairs[:PAIRS]]
    return lines + ([f"- and {conflicts.count - PAIRS} more"] if conflicts.count > PAIRS else [])
