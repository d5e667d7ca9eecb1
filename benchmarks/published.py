"""Recomputes a public benchmark's published scores from its recorded answers, with Potstill's own slot rules.

Run: .venv/bin/python -m benchmarks.published --folder <checkout of the Structured Output Benchmark>/data
The benchmark (JigsawStack/sob on GitHub) publishes the answers of many models (images_responses/*.jsonl) and a score
per record (evaluation/image/<model>/eval_records.jsonl). `leaf_value_em` is the share of the reference's leaves that
the answer has exactly, times a factor for missing and surplus paths; one that breaks its schema gets nothing. Here
the share comes from `exact` slots and `counts.leaf_accuracy`; the factor, and which answers break their schema, are
taken from the published row. Writes reports/benchmark_published.json; exits 100 when any record differs.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import grading
from potstill.counts import leaf_accuracy
from potstill.files import write_json
from potstill.leaves import leaf_paths
from potstill.records import Example, Prediction, SlotSpec
from potstill.slots import load_levels
from potstill.stop import DATA, OK, REJECT, Stop

REPO = Path(__file__).resolve().parent.parent
EXACT = SlotSpec(level="exact")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="the benchmark's data folder")
    folder = parser.parse_args(argv).folder
    published = {
        (row["model_id"], row["record_id"]): row for row in rows(folder.glob("evaluation/image/*/eval_records.jsonl"))
    }
    if not published:
        raise Stop(
            f"{folder}/evaluation/image has no */eval_records.jsonl. Give the data folder of the benchmark.", DATA
        )
    levels, compared, differing = load_levels(REPO / "configs/judge_slots.yaml"), 0, []
    for answer in rows(folder.glob("images_responses/*.jsonl")):
        metadata, output = answer["metadata"], answer["output"]
        row = published.get((metadata["model_id"], metadata["record_id"]))
        if row is None:
            continue
        own = score(output["ground_truth"], output["candidate_response"], levels) * factor(row)
        compared += 1
        if not math.isclose(own, row["leaf_value_em"], abs_tol=1e-12):
            differing.append({**metadata, "own": own, "published": row["leaf_value_em"]})
    models = len({model for model, _ in published})
    print(f"{compared - len(differing):,} of {compared:,} records of {models} models have the published score")
    target = Path("reports/benchmark_published.json")
    write_json(target, {"compared": compared, "models": models, "published": len(published), "differing": differing})
    print(f"wrote {target}")
    return REJECT if differing or compared < len(published) else OK


def rows(paths: Iterator[Path]) -> Iterator[dict[str, Any]]:
    for path in sorted(paths):
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)


def score(reference: Any, candidate: Any, levels: Any) -> float:
    """The share of the reference's leaves that the candidate has; 1 when it has none, as the benchmark counts."""
    paths = leaf_paths(reference, candidate)
    example = Example(
        id="row",
        task="sob",
        system="",
        prompt="",
        response=json.dumps(reference),
        slots=dict.fromkeys(paths, EXACT),
        metadata={},
        schema_version="1",
        source_sha256="0" * 64,
    )
    prediction = Prediction(
        id="row",
        task="sob",
        output="",
        parsed=candidate,
        valid_json=True,
        valid_schema=True,
        repaired=False,
        prompt_tokens=0,
        completion_tokens=0,
        latency_ms=0.0,
        finish_reason="stop",
        backend="recorded",
    )
    verdicts = [grading.verdict(grade, None, "rule") for grade in grading.grade(example, prediction, levels, {})]
    found = leaf_accuracy(verdicts)
    return 1.0 if found is None else found


def factor(row: dict[str, Any]) -> float:
    """What the benchmark multiplies the share by: nothing for a broken schema, less for missing or surplus paths."""
    if not (row["json_parse_success"] and row["json_root_structured"] and row["schema_compliance"]):
        return 0.0
    return min(1.0, (row["path_set_f1"] / 0.90) ** 2)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stop as stop:
        sys.exit(f"error: {stop}")
