"""Compares GGUF files with llama.cpp's own converter and quantiser, byte by byte, and times the converter in turns.

Run: .venv/bin/python -m benchmarks.gguf [--converter .../llama.cpp/convert_hf_to_gguf.py] [--quantizer .../bin/python]
         [-r <run>] [--folder <where the made-up model is kept>] [--rounds 3]
Two models: the nano base, and Gemma 3 270M's shape in bfloat16 with random weights and a made-up vocabulary of 262,144
pieces in Gemma 3's layout (benchmarks/gemma_vocabulary.py). The converter is run by this interpreter with the gguf-py
beside it; the quantiser is llama-cpp-python in an environment of its own (benchmarks/gguf_peer.py), fed our F32 file,
with an importance matrix and without. Each side is a new process, so both pay for starting. With -r, how far each file
type moves that run's answers: Kullback-Leibler divergence and the share of equal first choices on its test rows, told
the right answer so far, weights rounded and computed in float32. Prints tables, writes reports/benchmark_gguf.json, and
exits 100 when a limit of the project's own is missed.
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import vocab
from potstill import imatrix, models, project, prompt, runs, snapshots
from potstill.files import write_json
from potstill.gguf import write_gguf
from potstill.gguf_types import FILE_TYPES, WEIGHTED
from potstill.project import MODELS, run_folder

# of three files, CPU time: on a quiet machine they take less, on a shared one wall time is anything
LIMITS = {"differing_tensors": 0, "converter_ratio": 2.0, "three_files_s": 60.0}
CONVERTED = {"F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "q8_0"}
THREE = ("BF16", "Q8_0", "Q4_0")
TIMED = ("F16", "BF16", "Q8_0")
# what we write differently or the converter does not write; any other difference is listed
KNOWN = {"GGUF.kv_count", "general.name", "general.quantized_by", "general.sampling.temp", "general.sampling.top_k"}
KNOWN |= {"gemma3.vocab_size", "tokenizer.ggml.eot_token_id"}
# importance is only to differ from column to column here, not to be a job's
RANDOM_PROMPTS, RANDOM_TOKENS = 4, 64
ROWS = 40
PROGRAM = "import sys; from pathlib import Path; from potstill.gguf import write_gguf; "
PROGRAM += "write_gguf(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", type=Path, help="llama.cpp's convert_hf_to_gguf.py (default: not compared)")
    parser.add_argument("--quantizer", type=Path, help="a Python with llama-cpp-python (default: not compared)")
    parser.add_argument("-r", "--run", help="a fully tuned run whose answers are measured (default: none)")
    parser.add_argument("--folder", type=Path, help="where the made-up model is kept (default: nowhere)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    project.go_offline()
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="potstill-gguf-")))
        if arguments.run:
            found["answers"] = answers(arguments.run, out)
        big = arguments.folder or out / "whole"
        if not (big / "model.safetensors").is_file():
            vocab.build(big)
        three = [timed(ours(big, out / "own.gguf", kind)) for kind in THREE]
        found["three_files_s"] = {key: sum(row[key] for row in three) for key in ("wall", "cpu")}
        print(f"{', '.join(THREE)} of 270M's shape, one after the other: {found['three_files_s']}", flush=True)
        for folder in (MODELS / "nano", big):
            row = found[folder.name] = {"sizes": sizes(folder, out)}
            if arguments.converter:
                row["converter"] = converted(folder, out, arguments.converter)
            if arguments.quantizer:
                row["quantizer"] = quantized(folder, out, arguments.quantizer)
        if arguments.converter:
            found["turns"] = turns(big, out, arguments.converter, arguments.rounds)
    return verdict(found)


def verdict(found: dict[str, Any]) -> int:
    compared = [row for part in found.values() if isinstance(part, dict) for row in part.get("converter", [])]
    compared += [row for part in found.values() if isinstance(part, dict) for row in part.get("quantizer", [])]
    met = {"three_files_s": found["three_files_s"]["cpu"] <= LIMITS["three_files_s"]}
    if compared:
        met["differing_tensors"] = sum(len(row["differing"]) for row in compared) <= LIMITS["differing_tensors"]
    if "turns" in found:
        met["converter_ratio"] = min(row["ratio"] for row in found["turns"].values()) >= LIMITS["converter_ratio"]
    write_json(Path("reports/benchmark_gguf.json"), {"limits": LIMITS, "met": met, **found})
    print("met:", met)
    return 0 if all(met.values()) else 100


def ours(folder: Path, path: Path, kind: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(folder), str(path), kind]


def theirs(folder: Path, path: Path, kind: str, converter: Path) -> list[str]:
    return [sys.executable, str(converter), str(folder), "--outfile", str(path), "--outtype", CONVERTED[kind]]


def timed(command: list[str]) -> dict[str, float]:
    """Seconds a program took, and of all CPUs."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def sizes(folder: Path, out: Path) -> dict[str, Any]:
    rows = {}
    for kind in FILE_TYPES:
        report = write_gguf(folder, out / "own.gguf", kind)
        rows[kind] = {"bytes": report.nbytes, "tensors": report.tensors, "fallbacks": report.fallbacks}
        print(f"{folder.name} {kind:7} {report.nbytes / 1e6:7.2f} MB, {report.fallbacks} fell back, {report.tensors}")
    return rows


def read(path: Path) -> tuple[dict[str, tuple[str, Any]], dict[str, Any]]:
    """(type, bytes) of every tensor, and the metadata."""
    import gguf

    reader = gguf.GGUFReader(path)
    tensors = {t.name: (t.tensor_type.name, np.asarray(t.data).view(np.uint8).ravel()) for t in reader.tensors}
    return tensors, {key: field.contents() for key, field in reader.fields.items()}


def differing(own: dict[str, tuple[str, Any]], other: dict[str, tuple[str, Any]]) -> list[str]:
    """Names of the tensors that only one has, or whose type or bytes differ."""
    both = own.keys() & other.keys()
    unlike = {n for n in both if own[n][0] != other[n][0] or not np.array_equal(own[n][1], other[n][1])}
    return sorted((own.keys() ^ other.keys()) | unlike)


def converted(folder: Path, out: Path, converter: Path) -> list[dict[str, Any]]:
    rows = []
    for kind in CONVERTED:
        write_gguf(folder, out / "own.gguf", kind)
        timed(theirs(folder, out / "other.gguf", kind, converter))
        (own, said), (other, said_there) = read(out / "own.gguf"), read(out / "other.gguf")
        keys = sorted(k for k in said.keys() | said_there.keys() if said.get(k) != said_there.get(k))
        new = [key for key in keys if key not in KNOWN]
        rows.append({"type": kind, "tensors": len(own), "differing": differing(own, other), "keys": keys})
        print(f"{folder.name} {kind:5} converter: {len(rows[-1]['differing'])} of {len(own)} tensors differ; ", end="")
        print(f"metadata beyond the known: {new or 'none'}", flush=True)
    return rows


def quantized(folder: Path, out: Path, interpreter: Path) -> list[dict[str, Any]]:
    import gguf

    write_gguf(folder, out / "f32.gguf", "F32")
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    ids = np.random.default_rng(7).integers(0, size, (RANDOM_PROMPTS, RANDOM_TOKENS)).tolist()
    weights = imatrix.collect(folder, ids)
    np.savez(out / "weights.npz", **weights)
    rows = []
    for kind, weighted in [(k, w) for k in ("Q8_0", *WEIGHTED) for w in (False, True)]:
        report = write_gguf(folder, out / "own.gguf", kind, importance=weights if weighted else None)
        number = str(int(gguf.LlamaFileType[f"MOSTLY_{kind}"]))
        command = [str(interpreter), str(Path(__file__).with_name("gguf_peer.py")), str(out / "f32.gguf")]
        command += [str(out / "other.gguf"), number, *([str(out / "weights.npz")] if weighted else [])]
        there = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        names = differing(read(out / "own.gguf")[0], read(out / "other.gguf")[0])
        fell_back = {"fallbacks": report.fallbacks, "fallbacks_there": there["fallbacks"]}
        rows.append({"type": kind, "weighted": weighted, "differing": names, **fell_back})
        print(f"{folder.name} {kind:7}{' weighted' * weighted} quantiser: {len(names)} tensors differ; ", end="")
        print(f"fell back: {report.fallbacks}, there {there['fallbacks']}", flush=True)
    return rows


def turns(folder: Path, out: Path, converter: Path, rounds: int) -> dict[str, Any]:
    """Seconds of both, one after the other, so that what else the machine does slows both alike."""
    rows = {}
    for kind in TIMED:
        pairs = [
            (timed(ours(folder, out / "own.gguf", kind)), timed(theirs(folder, out / "other.gguf", kind, converter)))
            for _ in range(rounds)
        ]
        row: dict[str, Any] = {"turns": pairs}
        for clock in ("wall", "cpu"):
            row[clock] = [statistics.median(side[clock] for side in sides) for sides in zip(*pairs, strict=True)]
        row["ratio"] = statistics.median(there["wall"] / own["wall"] for own, there in pairs)
        print(
            f"{kind:5} {row['wall'][0]:.1f} s ({row['cpu'][0]:.1f} s of CPU), the converter {row['wall'][1]:.1f} s "
            f"({row['cpu'][1]:.1f} s): {row['ratio']:.1f} times as fast",
            flush=True,
        )
        rows[kind] = row
    return rows


def answers(run: str, out: Path) -> dict[str, Any]:
    """Divergence from the float32 model on test rows, by file type, without and with an importance matrix."""
    import torch

    record, folder = runs.require_trained(run), run_folder(run) / "model"
    model, tokenizer = models.load_folder(folder, torch.float32)
    rendered = [prompt.render(row, tokenizer) for row in list(snapshots.read(record.snapshots["test"]))[:ROWS]]
    train = [prompt.render(row, tokenizer) for row in snapshots.read(record.snapshots["train"])]
    weights = imatrix.collect(folder, [row.prompt_ids + row.completion_ids for row in train])
    wanted = [said(model, row) for row in rendered]
    rows = {}
    for kind, weighted in [(k, w) for k in FILE_TYPES[1:] for w in ((False, True) if k in WEIGHTED else (False,))]:
        report = write_gguf(folder, out / "own.gguf", kind, importance=weights if weighted else None)
        load_rounded(model, out / "own.gguf")
        found = [said(model, row) for row in rendered]
        divergence = torch.cat([(w.exp() * (w - f)).sum(-1) for w, f in zip(wanted, found, strict=True)])
        same = torch.cat([w.argmax(-1) == f.argmax(-1) for w, f in zip(wanted, found, strict=True)])
        name = f"{kind}{' weighted' if weighted else ''}"
        rows[name] = {"bytes": report.nbytes, "kl": divergence.mean().item(), "same_first": same.float().mean().item()}
        print(f"{run} {name:16} {report.nbytes / 1e6:.2f} MB, KL {rows[name]['kl']:.2e}, ", end="")
        print(f"same first choice {rows[name]['same_first']:.2%} of {len(same)} tokens", flush=True)
    return rows


def said(model: Any, row: prompt.Rendered) -> Any:
    """Log-probabilities at the tokens of the answer, told the right answer so far."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([row.prompt_ids + row.completion_ids])).logits[0]
    return torch.log_softmax(logits[len(row.prompt_ids) - 1 : -1].double(), -1)


def load_rounded(model: Any, path: Path) -> None:
    """Puts the weights of a GGUF file, as float32, in place of the model's."""
    import gguf
    import torch

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, model.config.num_hidden_layers)
    stored = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            shift = float(name.endswith("norm.weight"))
            weight.copy_(torch.from_numpy(stored[names.get_name(name, try_suffixes=(".weight",))] - shift))


if __name__ == "__main__":
    raise SystemExit(main())
