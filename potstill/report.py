"""A Report as Markdown and as one HTML file: the same sections, no script, no network. What models wrote is hostile."""

import re
from pathlib import Path
from typing import NamedTuple

from potstill import figures, grading, metrics, slots
from potstill.figures import Part
from potstill.leaves import ABSENT
from potstill.metrics import Numbers, Report, Row
from potstill.records import Verdict

TEMPLATE = Path(__file__).with_name("report.html")
WORST_SLOTS = 6
EXAMPLES_PER_SLOT = 10
MAX_CHARS = 2000
NAMES = {"untuned_base": "untuned base", "always_null": "always null", metrics.UNSEEN: "unseen families (headline)"}


class Section(NamedTuple):
    title: str
    text: str
    head: list[str]
    rows: list[list[str]]


class Failure(NamedTuple):
    """The `_parts` are the same texts, with what differs marked."""

    id: str
    task: str
    reason: str
    prompt: str
    reference: str
    candidate: str
    reference_parts: list[Part]
    candidate_parts: list[Part]


class WorstSlot(NamedTuple):
    path: str
    failed: int
    n: int
    examples: list[Failure]


def headline(report: Report) -> Section:
    rows = [_line("tuned", report), *(_line(NAMES[name], found) for name, found in report.baselines.items())]
    text = "Valid means as generated, without repair. Slot accuracy is over all slots, with its 95% interval."
    if report.grounded is not None:
        text += f" Of the values in the tuned model's answers, {report.grounded:.1%} stand in their prompts."
    return Section("Headline", text, HEAD, rows)


def sections(report: Report) -> list[Section]:
    found = [headline(report), _slots(report), _slices(report)]
    if report.gate.regressions:
        found.append(_regressions(report))
    if report.artifacts:
        found.append(_artifacts(report))
    found.append(_speed(report))
    return [*found, _cost(report)] if report.cost else found


def judge_counts(report: Report) -> str:
    judge = report.judge
    counts = f"{judge.calls} calls, {judge.cached} from the cache, {judge.errors} errors, {judge.cost_usd:.4f} USD"
    counts += f", {judge.canaries} canaries" if judge.canaries else ""
    return counts + (f", scores at most {judge.spread_max:.2f} apart" if judge.spread_max is not None else "")


def judge_lines(report: Report) -> list[str]:
    """Who judged the free text, how well that went, and how far it can be believed."""
    judge = report.judge
    lines = [f"Judge of free text: {judge.label}, {judge_counts(report)}, prompt {judge.prompt_sha256[:12]}."]
    lines.append(f"Certificate: {judge.certificate}.")
    return [*lines, f"VOID: {judge.void}."] if judge.void else lines


def worst_slots(report: Report, rows: list[Row]) -> list[WorstSlot]:
    """The slots with the lowest pass rates, with up to ten failing answers each."""
    failed: dict[str, list[tuple[Row, Verdict]]] = {path: [] for path in report.per_slot}
    for row in rows:
        for verdict in row.verdicts:
            if verdict.passed is False:
                failed[metrics.slot_path(verdict.slot)].append((row, verdict))
    order = sorted((path for path in failed if failed[path]), key=lambda path: report.per_slot[path].pass_rate or 0)
    return [
        WorstSlot(
            path,
            len(failed[path]),
            report.per_slot[path].n,
            [_failure(*pair) for pair in failed[path][:EXAMPLES_PER_SLOT]],
        )
        for path in order[:WORST_SLOTS]
    ]


def html(report: Report, rows: list[Row]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        judge_lines=judge_lines(report),
        sections=sections(report),
        headline=figures.headline(report, NAMES),
        slots=figures.slots(report),
        histograms=figures.histograms(report),
        confusion={slot: (table, figures.shaded(table)) for slot, table in report.confusion.items()},
        worst=worst_slots(report, rows),
    )


def markdown(report: Report, rows: list[Row]) -> str:
    lines = [f"# {_cell(report.run)}", ""]
    lines += [f"Workload {report.workload}, snapshot {report.snapshot}, {report.n} test rows outside the slices.", ""]
    lines += [f"**Gate: {report.gate.verdict}**", "", *(f"- {_cell(reason)}" for reason in report.gate.reasons), ""]
    lines += [text for line in judge_lines(report) for text in (_cell(line), "")]
    lines += [line for note in report.notes for line in (_cell(note), "")]
    for section in sections(report):
        lines += [f"## {section.title}", "", *([section.text, ""] if section.text else [])]
        lines += [_row(section.head), _row(["---", *["---:"] * (len(section.head) - 1)]), *map(_row, section.rows), ""]
    lines += ["## Worst slots", ""]
    worst = worst_slots(report, rows)
    for slot in worst:
        lines += [f"### {_cell(slot.path)}: {slot.failed} of {slot.n} failed", ""]
        for failure in slot.examples:
            lines += [f"{_cell(failure.id)}, {_cell(failure.task)}: {_cell(failure.reason)}", ""]
            for name in ("prompt", "reference", "candidate"):
                lines += [f"{name}:", "", *_block(getattr(failure, name)), ""]
    return "\n".join([*lines, *([] if worst else ["No slot failed.", ""])])


HEAD = ["", "rows", "slot accuracy", "95% interval", "perfect records"]
HEAD += ["valid JSON", "valid schema", "repaired", "errors"]


def _line(name: str, found: Numbers) -> list[str]:
    accuracy = [_share(found.slot_accuracy), _interval(found.ci95.get("slot_accuracy")), _share(found.perfect_records)]
    validity = [_share(found.json_validity), _share(found.schema_validity), _share(found.repaired)]
    return [name, str(found.n), *accuracy, *validity, str(found.errors)]


def _slots(report: Report) -> Section:
    rows = [
        [path, "critical" if rate.critical else "", str(rate.n), _share(rate.pass_rate), _interval(rate.ci95)]
        for path, rate in sorted(report.per_slot.items(), key=lambda item: item[1].pass_rate or 0)
    ]
    return Section("Slots", "The tuned model, worst first.", ["slot", "", "scored", "pass rate", "95% interval"], rows)


def _regressions(report: Report) -> Section:
    rows = []
    for found in report.gate.regressions:
        low, high = (100 * bound for bound in found.ci95)
        change = [f"{100 * found.difference:+.1f} points", f"{low:+.1f} to {high:+.1f}"]
        rows.append([found.slot, "critical" if found.critical else "", *change])
    text = f"Slots that are shown to be worse than in {report.gate.baseline}, by paired bootstrap."
    return Section("Regressions", text, ["slot", "", "difference", "95% interval"], rows)


def _slices(report: Report) -> Section:
    rows = [
        _line(NAMES.get(name, name if "=" in name else name.replace("_", " ")), found)
        for name, found in report.slices.items()
    ]
    return Section("Slices", "Tasks and tenants divide the headline rows; the others stand apart.", HEAD, rows)


def _artifacts(report: Report) -> Section:
    head = ["artifact", "MB", "rows", "same JSON", "same text", "same prompt ids", "decode tokens/s", "slot accuracy"]
    rows = []
    for name, found in report.artifacts.items():
        parity = found.parity or {}
        shares = [_share(parity.get(key)) for key in ("same_json", "same_output", "same_prompt_ids")]
        size, speed = parity.get("bytes"), parity.get("decode_tokens_per_s")
        accuracy = _share(found.numbers.slot_accuracy) if found.numbers else "not judged"
        n = parity.get("n") or (found.numbers and found.numbers.n)
        rows.append(
            [name, f"{size / 1e6:.1f}" if size else "-", str(n), *shares, f"{speed:.0f}" if speed else "-", accuracy]
        )
    return Section("Artifacts", "Same JSON: agreement with the merged model on the test rows.", head, rows)


def _speed(report: Report) -> Section:
    latency, tokens = report.latency_ms, report.tokens
    head = ["", "latency p50 ms", "latency p95 ms", "prompt tokens p50", "answer tokens p50", "tokens in all"]
    figures = [latency["p50"], latency["p95"], tokens["prompt_p50"], tokens["completion_p50"], tokens["total"]]
    return Section("Latency and tokens", "", head, [["tuned", *(f"{figure:,.0f}" for figure in figures)]])


def _cost(report: Report) -> Section:
    cost = report.cost
    assert cost is not None
    text = (
        f"Per 1,000 documents like these, by the prices in configs/gate.yaml; tokens as counted by {cost.tokens_from}."
    )
    rows = [[cost.strong_model, f"{cost.strong_usd_per_1000:,.4f}"]]
    if cost.tuned_usd_per_1000 is not None:
        rows.append([f"tuned, as {cost.tuned_from} in package.parity", f"{cost.tuned_usd_per_1000:,.4f}"])
    return Section("Cost", text, ["", "USD per 1,000 documents"], rows)


def _failure(row: Row, verdict: Verdict) -> Failure:
    usable = grading.why_unusable(row.prediction) is None
    candidate = _shown(verdict.candidate, verdict.reason) if usable else row.prediction.output
    score = f" (score {verdict.score:.2f})" if verdict.judge != grading.RULE and verdict.score is not None else ""
    texts = _short(_shown(verdict.reference, verdict.reason)), _short(candidate)
    return Failure(
        row.example.id,
        row.example.task,
        f"{verdict.slot}: {verdict.reason}{score}",
        _short(row.example.prompt),
        *texts,
        *figures.compared(*texts),
    )


def _shown(value: object, reason: str) -> str:
    """A verdict row writes an absent key as null; its reason tells them apart."""
    if value is None and reason in ("the key is absent", "the reference has no such key"):
        return repr(ABSENT)
    return "null" if value is None else slots.text(value)


def _short(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} [... {len(text) - MAX_CHARS} more characters]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _interval(bounds: list[float] | None) -> str:
    return f"{bounds[0]:.1%} to {bounds[1]:.1%}" if bounds else "-"


def _cell(text: str) -> str:
    """Text that can end no table cell and start no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell if set(cell) <= set('-:') else _cell(cell) for cell in cells)} |"


def _block(text: str) -> list[str]:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *text.splitlines(), fence]
