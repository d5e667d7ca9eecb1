"""Measures a package: whether every artifact answers as the merged model does, and what the token lock takes.

Run: .venv/bin/python -m benchmarks.parity -r RUN        (after fab package.parity -r RUN --all)
Reads reports/RUN/parity.json and the run's package, prints a table and writes reports/benchmark_parity.json. Exits 100
when a limit of the project's own is missed. `lock` is the token lock over all rows of the run's snapshots.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from potstill import cli, models, package, project, runs, snapshots, token_lock
from potstill.files import write_json
from potstill.parity import ArtifactParity, Parity
from potstill.stop import DATA, OK, REJECT, Stop

# issue 6: shares of identical answers, and slot accuracy lost
SAME = {"bf16": 1.0, "bf16-vllm": 1.0, "gguf-q8_0": 0.98}
DROP_8_BIT, DROP_4_BIT = 0.005, 0.02
FOUR_BIT = ("awq", "rtn-w4a16", "gguf-q4_0", "gguf-q4_k_m")
# a first token that differs where the merged model was of two minds is rounding; e to that is 1.1
NEAR_TIE = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--run", required=True)
    run = parser.parse_args().run
    path = project.reports(run) / "parity.json"
    if not path.is_file():
        raise Stop(f"{path} is not there. Run fab package.parity -r {run} --all.", DATA)
    parity = Parity.model_validate(json.loads(path.read_text(encoding="utf-8")))
    found: dict[str, Any] = {"run": run, "artifacts": {}, "lock": lock(run)}
    for name, result in parity.artifacts.items():
        found["artifacts"][name] = line(name, result)
    found["pairs"] = [pair.model_dump() for pair in parity.pairs]
    print(json.dumps(found, indent=2))
    write_json(project.REPORTS / "benchmark_parity.json", found)
    cli.done([project.REPORTS / "benchmark_parity.json"])
    return OK if all(row["held"] for row in found["artifacts"].values()) and not found["lock"]["mismatches"] else REJECT


def line(name: str, result: ArtifactParity) -> dict[str, Any]:
    """What was found and what was wanted. `near_ties`: of the answers that differ, those that part at one."""
    wanted = SAME.get(name)
    most = DROP_4_BIT if name.removesuffix("-vllm").removesuffix("-ollama") in FOUR_BIT else DROP_8_BIT
    gaps = [abs(found.gap) for found in result.divergences if found.gap is not None]
    near = sum(gap < NEAR_TIE for gap in gaps)
    # where an answer of the unquantised model differs at a near tie alone, it is explained
    same = wanted is None or result.same_output >= wanted or (wanted == 1.0 and near == len(result.divergences))
    return {
        "same_output": result.same_output,
        "same_output_wanted": wanted,
        "slot_drop": result.slots.drop,
        "slot_drop_wanted": most,
        "kl": result.forced.kl if result.forced else None,
        "divergences_shown": len(result.divergences),
        "near_ties": near,
        "first_gap": gaps[0] if gaps else None,
        "held": same and (result.slots.drop is None or result.slots.drop <= most),
    }


def lock(run: str) -> dict[str, Any]:
    record = runs.read(run)
    examples = [row for split in ("train", "val", "test") for row in snapshots.read(record.snapshots[split])]
    folder = package.folder(run)
    kinds = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    tokenizer = models.load_tokenizer(record.base.path)
    started = time.perf_counter()
    mismatches = token_lock.check(folder, kinds, examples, tokenizer)
    return {
        "rows": len(examples),
        "artifacts": kinds,
        "seconds": time.perf_counter() - started,
        "mismatches": [token_lock.explain(mismatch) for mismatch in mismatches],
    }


if __name__ == "__main__":
    cli.run(main)
