"""What compression costs and saves: a trained run's answers in awq, rtn-w4a16 and rtn-w8a16, and Gemma 3 270M's shape.

Run: .venv/bin/python -m benchmarks.compressed [-r RUN] [--rows 484] [--vocabulary 262144] [--no-shape]
The run's test rows are answered greedily by the merged float32 model and by each artifact's weights, unpacked, in
float32 by the same decoder: what differs is the rounding of the weights, not an engine. Slots that need a judge are
left out. The 270M shape has random weights; seconds and bytes are a real model's, its answers are not asked.
Prints a table, writes reports/benchmark_compressed.json, exits 100 when a limit of the project's own is missed.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from potstill import answers, compressed, grading, models, project, prompt, runs, slots, snapshots, workload
from potstill.files import write_json
from potstill.records import Example, Prediction
from potstill.workload import Workload
from scripts.package import export

# the largest drop of slot accuracy, in shares of 1
LIMITS = {"awq": 0.02, "rtn-w4a16": 0.02, "rtn-w8a16": 0.005}
SHAPE = {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 512}
SHAPE |= {"max_position_embeddings": 32_768}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", default="batfit")
    parser.add_argument("-r", "--run", help="default: the newest run of the workload")
    parser.add_argument("--rows", type=int, help="only the first N test rows")
    parser.add_argument("--vocabulary", type=int, default=262_144, help="of the 270M shape (default: %(default)s)")
    parser.add_argument("--no-shape", action="store_true", help="the trained run only")
    arguments = parser.parse_args()
    project.go_offline()
    run = project.find_run(arguments.workload, arguments.run)
    result: dict[str, Any] = {"limits": LIMITS, "run": run}
    with tempfile.TemporaryDirectory(prefix="potstill-compressed-") as folder:
        prompts = merge(run, Path(folder) / "whole")
        result["trained"] = export_all(Path(folder), prompts)
        show(f"{run}: export", result["trained"])
        result["answers"] = compare(run, Path(folder), arguments.rows)
        show(f"{run}: answers", result["answers"])
    if not arguments.no_shape:
        with tempfile.TemporaryDirectory(prefix="potstill-compressed-") as folder:
            build(Path(folder) / "whole", arguments.vocabulary)
            result["shape"] = export_all(Path(folder), prompts)
            show(f"270M shape, vocabulary {arguments.vocabulary}", result["shape"])
    write_json(Path("reports/benchmark_compressed.json"), result)
    missed = [kind for kind, limit in LIMITS.items() if result["answers"][kind]["slot_drop"] > limit]
    print(f"missed: {', '.join(missed) or 'none'}; wrote reports/benchmark_compressed.json")
    return 100 if missed else 0


def merge(run: str, whole: Path) -> list[list[int]]:
    """The merged run as a float32 folder; returns its train rows as token ids."""
    import torch

    record = runs.require_trained(run)
    model, tokenizer = models.load_merged(run, torch.float32)
    export.save_folder(model, Path(record.base.path), whole)
    rendered = (prompt.render(example, tokenizer) for example in snapshots.read(record.snapshots["train"]))
    return [row.prompt_ids + row.completion_ids for row in rendered]


def export_all(folder: Path, prompts: list[list[int]]) -> dict[str, dict[str, Any]]:
    """Compresses folder/whole by every scheme; seconds, CPU seconds, bytes against bfloat16, peak memory so far."""
    found = {}
    bf16 = (folder / "whole" / compressed.WEIGHTS).stat().st_size / 2
    for scheme in ("rtn-w4a16", "rtn-w8a16", "awq"):
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        report = compressed.write(folder / "whole", folder / scheme, scheme, prompts)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found[scheme] = {
            "wall_s": time.perf_counter() - started,
            "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "peak_gib": after.ru_maxrss / 2**20,
            "megabytes": report.weights_bytes / 1e6,
            "of_bf16": report.weights_bytes / bf16,
            "kept_share": report.other_values / (report.other_values + report.linear_values),
            "rows": report.calibration_rows,
        }
    return found


def compare(run: str, folder: Path, limit: int | None) -> dict[str, dict[str, Any]]:
    """Shares of test rows with the same text and the same JSON as the merged model's, and slot accuracies."""
    import torch

    record = runs.read(run)
    job = workload.load(record.workload)
    examples = list(snapshots.read(record.snapshots["test"]))[:limit]
    wanted = answer(*models.load_folder(folder / "whole", torch.float32), job, examples)
    best = slot_accuracy(job, examples, wanted)
    found = {}
    for scheme in compressed.SCHEMES:
        own = answer(*compressed.load(folder / scheme, torch.float32), job, examples)
        pairs = list(zip(own, wanted, strict=True))
        accuracy = slot_accuracy(job, examples, own)
        found[scheme] = {
            "n": len(own),
            "same_output": sum(a.output == b.output for a, b in pairs) / len(own),
            "same_json": sum(as_json(a) == as_json(b) for a, b in pairs) / len(own),
            "slot_accuracy": accuracy,
            "slot_drop": best - accuracy,
        }
    return found


def answer(model: Any, tokenizer: Any, job: Workload, examples: list[Example]) -> list[Prediction]:
    prompts = [prompt.prompt_ids(e.system, e.prompt, tokenizer) for e in examples]
    most = max(task.max_new_tokens for task in job.settings.tasks.values())
    found = {generated.index: generated for generated in models.generate(model, tokenizer, prompts, most)}
    return [
        answers.predict_row(
            job,
            id=example.id,
            task=example.task,
            output=tokenizer.decode(found[i].ids, skip_special_tokens=True),
            prompt_tokens=len(prompts[i]),
            completion_tokens=len(found[i].ids),
            latency_ms=found[i].latency_ms,
            finish_reason=found[i].finish_reason,
            backend="transformers",
        )
        for i, example in enumerate(examples)
    ]


def as_json(prediction: Prediction) -> str:
    return prediction.output if prediction.parsed is None else json.dumps(prediction.parsed, sort_keys=True)


def slot_accuracy(job: Workload, examples: list[Example], predictions: list[Prediction]) -> float:
    levels = slots.load_levels(project.CONFIGS / "judge_slots.yaml")
    pairs = zip(examples, predictions, strict=True)
    decided = [g.decided for pair in pairs for g in grading.grade(*pair, levels, job.levels)]
    passed = [score.passed for score in decided if score is not None and score.passed is not None]
    return sum(passed) / len(passed)


def build(whole: Path, vocabulary: int) -> None:
    """Gemma 3 270M's shape with random weights, and the nano base's tokenizer, whose ids are among its own."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    tokens = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    model = Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=vocabulary, **SHAPE, **tokens))
    model.save_pretrained(whole)
    for name in models.TOKENIZER_FILES:
        if (Path("models/nano") / name).is_file():
            shutil.copyfile(Path("models/nano") / name, whole / name)


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    print(title)
    for kind, row in rows.items():
        print(f"  {kind:<10} " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
