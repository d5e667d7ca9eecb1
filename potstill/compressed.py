"""4-bit and 8-bit artifacts for vLLM: compressed-tensors folders, made by llmcompressor in a process of its own.

    awq         W4A16: AWQ scales channels by what flows through them on rows of the train snapshot, then rounds
    rtn-w4a16   W4A16: each weight rounded to the nearest of 16 levels, no data
    rtn-w8a16   W8A16: the same with 256 levels

Rounded are the linear layers. The embedding, which is the head too, and the norms are bfloat16, as are the scales.
Sources: Lin et al., "AWQ" (MLSys 2024), arXiv:2306.00978; compressed-tensors' pack-quantized format.

The process of its own (potstill/compressed_job.py) has neither unsloth's patches of transformers nor this one's memory,
and llmcompressor's global session and log ends with it.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from potstill import headers, models
from potstill.compressed_job import Job, Result
from potstill.files import write_json
from potstill.records import Record, explain
from potstill.stop import BUG, DATA, UNAVAILABLE, USAGE, Stop

Scheme = Literal["awq", "rtn-w4a16", "rtn-w8a16"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
REPORT = "compression.json"
# of columns that share a scale, at 4 bits: two fifths less divergence than 128, for 0.375 bits a weight more
GROUP_SIZE = 32
# AWQ needs the mean magnitude of each channel: 8 rows give as good a model as 96 (docs/compressed.md)
MAX_ROWS, MAX_TOKENS = 128, 4096
WEIGHTS = "model.safetensors"


class CompressedReport(Record):
    """What was done, the same for the same input; it is the artifact's compression.json.

    `group_size` columns share a scale; null: a whole row of the matrix does. `linear_values` weights have `bits` each,
    `other_values` are bfloat16. Rows and tokens are those AWQ was calibrated on; `seed` chose them.
    """

    scheme: Scheme
    bits: Literal[4, 8]
    group_size: int | None
    symmetric: bool
    observer: str
    calibration_rows: int
    calibration_tokens: int
    seed: int
    linear_values: int
    other_values: int
    weights_bytes: int
    llmcompressor: str
    compressed_tensors: str


def write(whole: Path, out: Path, scheme: Scheme, prompts: list[list[int]], *, seed: int = 0) -> CompressedReport:
    """Compresses the float32 model folder `whole` into the folder `out`, which appears when it is complete.

    `prompts` are token ids of rendered train rows, answers included; only awq looks at them. Raises Stop 65 when the
    model's shape or the prompts do not do, 69 when the process was ended, by the kernel for want of memory mostly.
    """
    if scheme not in SCHEMES:
        raise Stop(f"compression {scheme!r} is unknown; known: {', '.join(SCHEMES)}", USAGE)
    if out.exists():
        raise Stop(f"{out} is there already; want a folder that is not", USAGE)
    config = _config(whole)
    bits: Literal[4, 8] = 8 if scheme == "rtn-w8a16" else 4
    # 256 levels need no groups, and one scale for each row is what most kernels take
    group_size = GROUP_SIZE if bits == 4 else None
    _check_shape(whole, scheme, group_size)
    rows = choose(prompts, config, seed) if scheme == "awq" else []
    smooth = scheme == "awq"
    job = Job(whole=str(whole.resolve()), bits=bits, group_size=group_size, smooth=smooth, rows=rows, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        result = _in_own_process(job, Path(work), scheme)
        made = Path(work) / "made"
        report = _assemble(whole, config, Path(work) / WEIGHTS, made, scheme, job, result)
        made.rename(out)
    for said in result.warnings:
        print(f"{scheme}: {said}", file=sys.stderr)
    return report


def _assemble(
    whole: Path, config: dict[str, Any], weights: Path, made: Path, scheme: Scheme, job: Job, result: Result
) -> CompressedReport:
    """A Hugging Face folder: the packed weights, what belongs to them in config.json, the rest as `whole` has it."""
    made.mkdir(mode=0o755)
    weights.rename(made / WEIGHTS)
    (made / WEIGHTS).chmod(0o644)  # safetensors writes 0600; a package is read by the user a service runs as
    quantization = {"quantization_config": result.quantization_config}
    write_json(made / "config.json", {**config, "dtype": "bfloat16", **quantization})
    for name in (*models.TOKENIZER_FILES, "generation_config.json"):
        if (whole / name).is_file():
            shutil.copyfile(whole / name, made / name)
    report = CompressedReport(
        scheme=scheme,
        bits=job.bits,
        group_size=job.group_size,
        symmetric=True,
        observer=result.observer,
        calibration_rows=len(job.rows),
        calibration_tokens=sum(map(len, job.rows)),
        seed=job.seed,
        linear_values=result.linear_values,
        other_values=result.other_values,
        weights_bytes=(made / WEIGHTS).stat().st_size,
        llmcompressor=result.llmcompressor,
        compressed_tensors=result.compressed_tensors,
    )
    write_json(made / REPORT, report.model_dump())
    return report


def load(folder: Path, dtype: Any) -> tuple[Any, Any]:
    """The model of a compressed folder with plain weights of the values it stores, and its tokenizer."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import CompressedTensorsConfig

    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that dequantize overrides what is stored
        plain = CompressedTensorsConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=plain)
    return model.eval(), models.load_tokenizer(folder)


def choose(prompts: list[list[int]], config: dict[str, Any], seed: int) -> list[list[int]]:
    """The rows to calibrate on, by seed: at most 128, and as many as fit 4,096 tokens, but one at least.

    Raises Stop 65 when there are none, or one is empty, too long for the model, or has tokens that it does not have.
    """
    if not prompts:
        raise Stop("awq: no prompts to calibrate on; want some rows of the train snapshot", DATA)
    most, vocabulary = config["max_position_embeddings"], config["vocab_size"]
    for index, ids in enumerate(prompts):
        if not 0 < len(ids) <= most:
            raise Stop(f"awq: prompt {index} has {len(ids)} tokens, want 1 to {most}, which the model can read", DATA)
        if not 0 <= min(ids) <= max(ids) < vocabulary:
            raise Stop(f"awq: prompt {index} has a token that is none of the model's {vocabulary}", DATA)
    chosen: list[list[int]] = []
    for ids in random.Random(seed).sample(prompts, min(len(prompts), MAX_ROWS)):
        if not chosen or sum(map(len, chosen)) + len(ids) <= MAX_TOKENS:
            chosen.append(ids)
    return chosen


def _config(whole: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise Stop(f"{whole} has no readable config.json; want a model folder", DATA) from None
    if "quantization_config" in found:
        raise Stop(f"{whole} is compressed already; want the merged float32 model", DATA)
    return found


def _check_shape(whole: Path, scheme: str, group_size: int | None) -> None:
    """Raises Stop 65 naming the first matrix whose rows the groups do not fill."""
    try:
        tensors = headers.read_safetensors(whole / WEIGHTS)
    except (OSError, headers.BadHeader) as error:
        raise Stop(f"{whole / WEIGHTS}: {error}", DATA) from None
    for tensor in sorted(tensors, key=lambda item: item.name):
        matrix = len(tensor.shape) == 2 and not tensor.name.endswith(("embed_tokens.weight", "lm_head.weight"))
        if matrix and group_size and tensor.shape[1] % group_size:
            raise Stop(
                f"{scheme}: tensor {tensor.name} has {tensor.shape[1]} columns, and a scale is shared by {group_size}: "
                f"want a multiple of {group_size}. Leave {scheme} out of the package config; rtn-w8a16 has no groups.",
                DATA,
            )


def _in_own_process(job: Job, work: Path, scheme: str) -> Result:
    """Runs potstill.compressed_job with `work` as its current folder, where it leaves the weights and its result."""
    package = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    quiet = {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "potstill.compressed_job"],
        cwd=work,
        env={**os.environ, **quiet, "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        # a process that has ended already reads nothing, and says below why
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
        # its standard input stays open until it is done: closed, by whatever ends this process, it ends the other too
        said = [line.rstrip() for line in process.stderr if line.strip()]
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stderr.close()
    if code < 0:
        raise Stop(f"{scheme}: the process was ended by signal {-code}; it may need more memory", UNAVAILABLE)
    if code:
        print(*said, sep="\n", file=sys.stderr)
        raise Stop(f"{scheme}: llmcompressor failed: {said[-1] if said else f'exit code {code}'}", BUG)
    try:
        return Result.model_validate_json((work / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        what = explain(error) if isinstance(error, ValidationError) else str(error)
        raise Stop(f"{scheme}: llmcompressor left no result: {what}", BUG) from None
