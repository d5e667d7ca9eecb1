"""Times eval.generate's decoding beside transformers' plain `model.generate` with one prompt at a time, greedy.

Run: .venv/bin/python -m benchmarks.generate -r <run> [--rows 48] [--270m-rows 6]
On a trained nano run's own test prompts, and on Gemma 3 270M's shape with random weights and random prompts. Prints
tokens per second, the ratio, and the share of equal answers; then the share of valid answers under --constrained.
Writes reports/benchmark_generate.json. Exits 100 when a limit of the project's own is missed.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from potstill import answers, models, progress, prompt, runs, snapshots, workload
from potstill.files import write_json
from potstill.records import Example
from potstill.workload import Workload

LIMITS = {"ratio": 3.0, "same": 1.0, "constrained_valid": 1.0}
SHAPE = {
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "pad_token_id": 0,
}
ANSWER_TOKENS, PROMPT_TOKENS = 64, 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--run", required=True, help="a trained run of the nano base")
    parser.add_argument("--rows", type=int, default=48, help="prompts of the run's test split (default: %(default)s)")
    parser.add_argument("--270m-rows", type=int, default=6, dest="large_rows", help="default: %(default)s")
    arguments = parser.parse_args()
    record = runs.require_trained(arguments.run)
    examples = list(snapshots.read(record.snapshots["test"]))[: arguments.rows]
    model, tokenizer = models.load_merged(record.run, torch.float32)
    job = workload.load(record.workload)
    most = max(task.max_new_tokens for task in job.settings.tasks.values())
    prompts = [prompt.prompt_ids(e.system, e.prompt, tokenizer) for e in examples]
    found = {"nano": compare(model, tokenizer, prompts, most)}
    found["nano"]["constrained_valid"] = constrained(model, tokenizer, prompts, examples, job, most)
    if arguments.large_rows:
        found["270m shape"] = compare(*random_270m(tokenizer), random_prompts(arguments.large_rows), ANSWER_TOKENS)
    worst = {key: min(row[key] for row in found.values() if key in row) for key in LIMITS}
    for name, row in found.items():
        print(
            f"{name:10} plain {row['plain']:.0f} tokens/s, ours alone {row['alone']:.0f}, batched {row['batched']:.0f} "
            f"({row['ratio']:.1f} x plain), same answers {row['same']:.1%}"
        )
    print(f"constrained: valid by the task's schema {found['nano']['constrained_valid']:.1%}")
    write_json(Path("reports/benchmark_generate.json"), {"limits": LIMITS, **found})
    return 0 if all(worst[key] >= limit for key, limit in LIMITS.items()) else 100


def compare(model: Any, tokenizer: Any, prompts: list[list[int]], most: int) -> dict[str, float]:
    """Tokens per second: transformers one by one, ours one by one, ours as eval.generate does it."""
    stops = models.stop_ids(model, tokenizer)

    def plain() -> list[list[int]]:
        told = progress.track(prompts, "plain", len(prompts))
        return [cut(models.by_transformers(model, [ids], most, stops, [None])[0], stops) for ids in told]

    def alone() -> list[list[int]]:
        return [next(models.generate(model, tokenizer, [ids], most)).ids for ids in prompts]

    def batched() -> list[list[int]]:
        by_index = {g.index: g.ids for g in models.generate(model, tokenizer, prompts, most)}
        return [by_index[index] for index in range(len(prompts))]

    wanted, base = timed(plain)
    one, alone_rate = timed(alone)
    many, batched_rate = timed(batched)
    same = sum(a == b == c for a, b, c in zip(wanted, one, many, strict=True)) / len(prompts)
    return {
        "plain": base,
        "alone": alone_rate,
        "batched": batched_rate,
        "ratio": batched_rate / base,
        "alone_ratio": alone_rate / base,
        "same": same,
    }


def timed(answer: Callable[[], list[list[int]]]) -> tuple[list[list[int]], float]:
    started = time.perf_counter()
    found = answer()
    return found, sum(map(len, found)) / (time.perf_counter() - started)


def cut(ids: list[int], stops: set[int]) -> list[int]:
    return ids[: next((at for at, token in enumerate(ids) if token in stops), len(ids))]


def constrained(
    model: Any, tokenizer: Any, prompts: list[list[int]], examples: list[Example], job: Workload, most: int
) -> float:
    """The share of answers under --constrained that the task's schema accepts."""
    schemas = [job.schemas[example.task].model_json_schema() for example in examples]
    found = models.generate(model, tokenizer, prompts, most, schemas=schemas)
    texts = {g.index: tokenizer.decode(g.ids, skip_special_tokens=True) for g in found}
    parsed = [(examples[index].task, answers.parse(text)) for index, text in texts.items()]
    return sum(one.valid_json and job.check(task, one.parsed)[0] is not None for task, one in parsed) / len(parsed)


def random_270m(tokenizer: Any) -> tuple[Any, Any]:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(1)
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(18)]
    made = Gemma3ForCausalLM._from_config(Gemma3TextConfig(**SHAPE, layer_types=kinds, initializer_range=0.1))
    return made.eval(), tokenizer


def random_prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(300, 4000, (PROMPT_TOKENS,), generator=generator).tolist() for _ in range(count)]


if __name__ == "__main__":
    raise SystemExit(main())
