"""Weighs and times Gemma 3 270M's shape in llama.cpp with its whole vocabulary and trimmed to a snapshot.

Run: .venv/bin/python -m benchmarks.vocab -w batfit [--reserve 4096] [--threads 2] [--rounds 5] [--llama .../bin/python]
Random weights and a made-up vocabulary of 262,144 pieces in Gemma 3's layout (benchmarks/gemma_vocabulary.py): sizes
and speeds are the real model's, what it says is not. Pieces that trimming drops are given zero weights in the whole
model, as a tuned model does not say them; then both must give the same answers. The two answer in turns,
one program at a time. With --llama, decoding alone is timed as well, by llama-cpp-python in an environment of its own
(benchmarks/llama_peer.py), and the limit is on its speeds: they are what llama-bench reports.
Prints ratios, writes reports/benchmark_vocab.json, and exits 100 when a limit of the project's own is missed. With
--folder the made-up model is kept there for the next time.
"""

import argparse
import contextlib
import importlib
import json
import multiprocessing
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import gemma_vocabulary
from potstill import llama, models, project, prompt, snapshots, vocab
from potstill.files import write_json
from potstill.gguf import write_gguf
from scripts.train.prepare import texts

# of the Q4_0 files; trim_s is CPU time, as a shared machine makes wall time anything
LIMITS = {"speed_ratio": 3.0, "bytes_ratio": 0.35, "same_outputs": 1.0, "trim_s": 60.0}
SIZE, LEARNT, CHARACTERS = 262_144, 8_000, 19_255
SHAPE = {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 512}
SHAPE |= {"max_position_embeddings": 32_768}
TYPES = ("Q4_0", "Q8_0")
# of the texts of the samples, every how many is learnt from
TAKE = 16
PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 2, 48, 128
STOPS = [1, 106]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", default="batfit", help="its newest snapshot (default: %(default)s)")
    parser.add_argument("--reserve", type=int, default=4096, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--llama", type=Path, help="a Python with llama-cpp-python (default: none)")
    parser.add_argument("--folder", type=Path, help="where the made-up model is kept (default: nowhere)")
    arguments = parser.parse_args()
    project.go_offline()
    _, version = snapshots.newest(arguments.workload)
    rows = {split: list(snapshots.read(version.files()[split])) for split in ("train", "test")}
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="potstill-vocab-"))
        folder = arguments.folder or Path(made)
        whole, trimmed = folder / "whole", folder / "trimmed"
        if not (whole / vocab.WEIGHTS).is_file():
            build(whole)
        tokenizer = models.load_tokenizer(whole)
        train = [text for example in rows["train"] for text in texts(example, tokenizer)]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            report, seconds, peak_gib = pool.apply(timed_trim, (whole, train, trimmed, arguments.reserve))
        kept = vocab.kept_ids(trimmed)
        silence(whole, sorted(set(range(SIZE)) - set(kept)))
        print(f"trimmed in {seconds['wall']:.1f} s ({seconds['cpu']:.1f} s of CPU), peak {peak_gib:.2f} GiB: {report}")
        other = otherwise(rows["test"], tokenizer, models.load_tokenizer(trimmed), kept)
        print(
            f"test rows with other tokens than before: {other['rows']:.1%}, {other['tokens']:+.2%} tokens", flush=True
        )
        prompts = [tokenizer(text, add_special_tokens=False)["input_ids"][:PROMPT_TOKENS] for text in train[::2]]
        found = {t: compare(whole, trimmed, t, prompts[:PROMPTS], kept, arguments) for t in TYPES}
    result = {**found, "trim_s": seconds, "trim_peak_gib": peak_gib, "report": report, "test_rows": other}
    write_json(
        Path("reports/benchmark_vocab.json"),
        {"limits": LIMITS, "settings": {k: str(v) for k, v in vars(arguments).items()}, **result},
    )
    best = {**found["Q4_0"], "trim_s": seconds["cpu"]}
    most = {"bytes_ratio", "trim_s"}
    met = {key: best[key] <= limit if key in most else best[key] >= limit for key, limit in LIMITS.items()}
    print("met:", met)
    return 0 if all(met.values()) else 100


def build(folder: Path) -> None:
    """The whole model, bfloat16. Its pieces are learnt from the samples of all workloads."""
    started = time.perf_counter()
    paths = sorted(project.SAMPLES.rglob("*.jsonl"))
    said = [text for path in paths for line in path.open(encoding="utf-8") for text in strings(json.loads(line))]
    gemma_vocabulary.write_tokenizer(folder, sorted(set(said))[::TAKE], SIZE, LEARNT, CHARACTERS)
    gemma_vocabulary.write_model(folder, SIZE, "bfloat16", **SHAPE)
    silence(folder, STOPS)
    print(f"built in {time.perf_counter() - started:.0f} s", flush=True)


def strings(value: Any) -> list[str]:
    """All texts in a JSON value, but for very long ones."""
    if isinstance(value, str):
        return [value[:2000]]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in items for text in strings(item)]


def silence(folder: Path, ids: list[int]) -> None:
    """Sets embedding rows to zero, in place."""
    import numpy as np

    from potstill import headers

    path = folder / vocab.WEIGHTS
    table = next(t for t in headers.read_safetensors(path) if t.name == "model.embed_tokens.weight")
    with path.open("rb") as file:
        first = 8 + int.from_bytes(file.read(8), "little") + table.start
    rows = np.memmap(path, np.uint8, "r+", offset=first, shape=(table.shape[0], table.nbytes // table.shape[0]))
    rows[ids] = 0
    rows.flush()


def timed_trim(whole: Path, said: list[str], out: Path, reserve: int) -> tuple[dict[str, Any], dict[str, float], float]:
    """Report, seconds, and peak GiB, in a process of its own, so that the peak is its own."""
    # loading libraries is no part of trimming
    for library in ("torch", "transformers"):
        importlib.import_module(library)
    started, cpu = time.perf_counter(), time.process_time()
    report = vocab.trim(whole, said, out, reserve)
    seconds = {"wall": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    # of this program alone: getrusage would count its parent's memory before exec
    peak_kib = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    return report.model_dump(), seconds, peak_kib / 2**20


def otherwise(examples: list[Any], before: Any, after: Any, kept: list[int]) -> dict[str, float]:
    """The share of unseen rows whose prompt has other tokens after trimming, and how many more tokens they all have."""
    pairs = []
    for example in examples:
        old, new = (prompt.prompt_ids(example.system, example.prompt, t) for t in (before, after))
        pairs.append((old, [kept[i] for i in new]))
    changed = sum(old != new for old, new in pairs) / len(pairs)
    return {"rows": changed, "tokens": sum(len(n) for _, n in pairs) / sum(len(o) for o, _ in pairs) - 1}


def compare(
    whole: Path, trimmed: Path, file_type: str, prompts: list[list[int]], kept: list[int], arguments: Any
) -> dict[str, Any]:
    """Sizes, decode speed in turns, and the share of equal answers of the two models in one file type."""
    new_ids = {old: new for new, old in enumerate(kept)}
    sides = {"whole": (whole, prompts), "trimmed": (trimmed, [[new_ids[i] for i in ids] for ids in prompts])}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    said: dict[str, list[list[int]]] = {name: [] for name in sides}
    alone: dict[str, list[float]] = {name: [] for name in sides}
    paths = {name: folder.with_name(f"{name}.{file_type}.gguf") for name, (folder, _) in sides.items()}
    for name, (folder, _) in sides.items():
        write_gguf(folder, paths[name], file_type)
    # each turn in a process of its own, as llama-bench has it: two models in one disturb each other, the smaller more
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        # in turns, so that what else the machine does slows both alike
        for _ in range(arguments.rounds):
            for name, (_, ids) in sides.items():
                speed, answers = pool.apply(timed_answers, (paths[name], ids, arguments.threads))
                speeds[name].append(speed)
                said[name] += answers
                if arguments.llama:
                    alone[name].append(decoding(arguments.llama, paths[name], arguments.threads))
    back = [[kept[i] for i in ids] for ids in said["trimmed"]]
    size = {name: path.stat().st_size for name, path in paths.items()}
    row: dict[str, Any] = {"bytes": size, "bytes_ratio": size["trimmed"] / size["whole"], "answering": told(speeds)}
    row["same_outputs"] = sum(a == b for a, b in zip(said["whole"], back, strict=True)) / len(back)
    print(f"{file_type}: {size['whole'] / 1e6:.1f} -> {size['trimmed'] / 1e6:.1f} MB ({row['bytes_ratio']:.3f} x)")
    print(f"  answering {in_words(row['answering'])}, same {row['same_outputs']:.0%}", flush=True)
    if arguments.llama:
        row["decoding"] = told(alone)
        print(f"  decoding alone {in_words(row['decoding'])}", flush=True)
    row["speed_ratio"] = row.get("decoding", row["answering"])["ratio"]
    return row


def told(speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of the turns' tokens per second and of their ratios; the best turn of each is the least disturbed one."""
    ratios = [fast / slow for slow, fast in zip(speeds["whole"], speeds["trimmed"], strict=True)]
    found: dict[str, Any] = {name: round(statistics.median(turns), 1) for name, turns in speeds.items()}
    best = max(speeds["trimmed"]) / max(speeds["whole"])
    return {**found, "ratio": round(statistics.median(ratios), 3), "ratio_of_best": round(best, 3), "turns": speeds}


def in_words(found: dict[str, Any]) -> str:
    speeds = f"{found['whole']} -> {found['trimmed']} tokens/s"
    return f"{speeds}, median of turns {found['ratio']} x, best turns {found['ratio_of_best']} x"


def decoding(python: Path, path: Path, threads: int) -> float:
    """Tokens per second of llama.cpp's decoding alone."""
    peer = Path(__file__).with_name("llama_peer.py")
    command = [str(python), str(peer), str(path), str(threads), str(ANSWER_TOKENS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def timed_answers(path: Path, prompts: list[list[int]], threads: int) -> tuple[float, list[list[int]]]:
    """Tokens per second of decoding, and the answers."""
    with llama.serve(path, 256, parallel=1, threads=threads) as server:
        list(llama.generate(server, prompts[:1], ANSWER_TOKENS))
        answers = list(llama.generate(server, prompts, ANSWER_TOKENS))
    seconds = sum(answer.decode_ms for answer in answers) / 1000
    return sum(answer.completion_tokens for answer in answers) / seconds, [answer.ids for answer in answers]


if __name__ == "__main__":
    raise SystemExit(main())
