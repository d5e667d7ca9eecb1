"""What is known of a judge's agreement with people, and whether a gate may lean on it: configs/certificates/<w>.json.

A certificate is part of the configuration, like the limits that it serves: it is reviewed, committed and dated.
`fab eval.calibrate` writes it. docs/gate.md explains both.
"""

from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field

from potstill import grading, metrics, project, slots, workload
from potstill.gate import Limits
from potstill.grading import JudgeRun, Row
from potstill.records import Record, parse_row

FOLDER = project.CONFIGS / "certificates"
MEND = "Run fab eval.calibrate."
# a judge likes answers of its own family better; Gemma was distilled from Google's larger models
FAMILIES = (
    ("gemma", "gemini"),
    ("gpt", "openai/o"),
    ("claude",),
    ("llama",),
    ("mistral", "mixtral", "ministral"),
    ("qwen",),
    ("phi-",),
    ("deepseek",),
)


class Agreement(Record):
    """Judge against people. `judge_only` passed by the judge alone, `human_only` by people alone.

    `kappa` is null where it is undefined: both gave every answer the same one label.
    """

    n: int
    both_pass: int
    judge_only: int
    human_only: int
    both_fail: int
    accuracy: Annotated[float, Field(ge=0, le=1)]
    kappa: Annotated[float, Field(ge=-1, le=1)] | None


class Certificate(Record):
    """`thresholds` are the scores from which each judged slot passed; dates are ISO 8601, UTC."""

    workload: str
    run: str
    judge: str
    prompt_sha256: str
    thresholds: dict[str, float]
    created_on: str
    expires_on: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    labels_sha256: str
    overall: Agreement
    kappa_ci95: list[float]
    per_slot: dict[str, Agreement]


def path_of(workload: str) -> Path:
    return FOLDER / f"{workload}.json"


def read(workload: str) -> Certificate | None:
    """Raises Stop 65 when the file is no certificate."""
    path = path_of(workload)
    if not path.is_file():
        return None
    return parse_row(path.read_text(encoding="utf-8"), Certificate, str(path), MEND)


def judged_slots(rows: list[Row]) -> dict[str, int]:
    """How many verdicts of each slot are a model's own; a rule decides where the texts are equal or one is missing."""
    found: dict[str, int] = {}
    for row in rows:
        for verdict in row.verdicts:
            if verdict.judge != grading.RULE:
                path = metrics.slot_path(verdict.slot)
                found[path] = found.get(path, 0) + 1
    return dict(sorted(found.items()))


def thresholds_of(rows: list[Row], name: str) -> dict[str, float]:
    """The pass threshold of every judged slot, as the workload and configs/judge_slots.yaml have it now."""
    levels, own = slots.load_levels(project.CONFIGS / "judge_slots.yaml"), workload.load(name).levels
    found = {}
    for path in judged_slots(rows):
        for row in rows:
            slot = metrics.slot_name(row.example, path)
            if slot is not None:
                found[path] = grading.threshold_of(row.example, slot, row.example.slots[slot], levels, own)
                break
    return found


def faults(
    certificate: Certificate, judge_run: JudgeRun, thresholds: dict[str, float], limits: Limits, today: date
) -> list[str]:
    """Every reason why the certificate does not cover the judge run; empty when it does."""
    found = []
    if certificate.judge != judge_run.model:
        found.append(f"it is for the judge {certificate.judge}, not {judge_run.model}")
    if certificate.prompt_sha256 != judge_run.prompt_sha256:
        found.append("the judge's prompt changed since")
    if lacking := sorted(thresholds.keys() - certificate.thresholds.keys()):
        found.append(f"it does not cover {', '.join(lacking)}")
    common = thresholds.keys() & certificate.thresholds.keys()
    if changed := sorted(slot for slot in common if thresholds[slot] != certificate.thresholds[slot]):
        found.append(f"the pass threshold changed since for {', '.join(changed)}")
    if today > date.fromisoformat(certificate.expires_on):
        found.append(f"it expired on {certificate.expires_on}")
    low = certificate.kappa_ci95[0]
    if low < limits.min_kappa:
        found.append(f"its kappa may be as low as {low:.2f} (95% interval), min_kappa asks for {limits.min_kappa:g}")
    return found


def standing(
    rows: list[Row], judge_run: JudgeRun, name: str, base: str, limits: Limits, today: date
) -> tuple[str, list[str]]:
    """(one line for the reader, doubts for the gate) about the judge of these rows."""
    asked = judged_slots(rows)
    if not asked:
        return "no certificate needed: rules decided every slot", []
    doubts = []
    if same_family(judge_run.model, base) and not limits.allow_own_family:
        told = f"the judge {judge_run.model} is of the family of the base {base}: allow_own_family in configs/gate.yaml"
        doubts.append(f"{told} is false")
    certificate = read(name)
    leans = f"{sum(asked.values())} verdicts on {', '.join(asked)} are of {judge_run.label}"
    if certificate is None:
        line = f"none: {leans}, whose agreement with people is not known"
        wrong = [f"{path_of(name)} is not there"]
    else:
        wrong = faults(certificate, judge_run, thresholds_of(rows, name), limits, today)
        low, high = certificate.kappa_ci95
        kappa = "undefined" if certificate.overall.kappa is None else f"{certificate.overall.kappa:.2f}"
        line = f"kappa {kappa} ({low:.2f} to {high:.2f}, {certificate.overall.n} labels), "
        line += f"valid until {certificate.expires_on}" if not wrong else f"refused: {'; '.join(wrong)}"
    if wrong and limits.require_certificate:
        doubts.append(f"{leans}, without a certificate that holds: {'; '.join(wrong)}. {MEND}")
    return line, doubts


def family(model: str) -> int | None:
    """The number of the family that a model's name tells; None for a name that tells none."""
    lower = model.lower()
    return next((n for n, words in enumerate(FAMILIES) if any(word in lower for word in words)), None)


def same_family(judge: str, base: str) -> bool:
    return family(judge) is not None and family(judge) == family(base)
