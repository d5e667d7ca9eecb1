"""The rule that says promote, reject or inconclusive, from configs/gate.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field

from potstill import config, project
from potstill.config import Config
from potstill.intervals import wilson
from potstill.records import Record


class Gate(Record):
    verdict: Literal["promote", "reject", "inconclusive"]
    reasons: list[str]


class Limits(Config):
    """configs/gate.yaml"""

    min_json_validity: Annotated[float, Field(ge=0, le=1)]
    min_slot_accuracy: Annotated[float, Field(ge=0, le=1)]


def load_limits() -> Limits:
    return config.load(project.CONFIGS / "gate.yaml", Limits)


def decide(n: int, json_validity: float, passed: int, scored: int, errors: int, limits: Limits) -> Gate:
    """Promote when every 95% interval lies above its limit, reject when one lies below, else inconclusive.

    A slot that could not be scored might have passed or failed: the interval spans both.
    """
    every = scored + errors
    low, high = (passed / every, (passed + errors) / every) if every else (0.0, 1.0)
    checks = [
        ("json_validity", json_validity, json_validity, limits.min_json_validity),
        ("slot_accuracy", low, high, limits.min_slot_accuracy),
    ]
    findings = [_check(name, low, high, n, limit) for name, low, high, limit in checks]
    verdicts = {verdict for verdict, _ in findings}
    final: Any = next((v for v in ("reject", "inconclusive") if v in verdicts), "promote")
    reasons = [reason for _, reason in findings]
    if errors:
        reasons.append(f"{errors} slots could not be scored")
    return Gate(verdict=final, reasons=reasons)


def _check(name: str, low: float, high: float, n: int, limit: float) -> tuple[str, str]:
    bottom, top = wilson(low, n)[0], wilson(high, n)[1]
    verdict = "promote" if bottom >= limit else "reject" if top < limit else "inconclusive"
    where = {"promote": "above", "reject": "below", "inconclusive": "around"}[verdict]
    value = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
    return verdict, f"{name} {value}, 95% interval {bottom:.3f} to {top:.3f}, is {where} the limit {limit:g}"
