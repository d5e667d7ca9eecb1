"""Asks vLLM, which needs other versions of shared libraries than training does and so has an environment of its own.

    answered = vllm_engine.generate(Path("package/bf16"), prompts, limits, context=1024, stop_ids=[1, 106])

./scripts/setup_env.sh vllm builds .venv-vllm. Each call starts potstill/vllm_answers.py there: token ids in, greedy,
bf16, no network, prefix caching off; what it writes comes back as `Answered`.
"""

import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from potstill import llama
from potstill.stop import DATA, UNAVAILABLE, Stop

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("vllm_answers.py")
BUILD = "./scripts/setup_env.sh vllm"
TIMEOUT_S = 3600
# what a position shows of vLLM's distribution
TOP = 20
# room for 32 sequences of a 270M Gemma at 1,024 tokens (18 KB a token)
CACHE_BYTES = 2**30
# of the parent's environment, what finds programs, libraries and devices; nothing that could hold a secret
KEPT = (
    *("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_HOME", "ROCM_PATH"),
)


@dataclass(frozen=True)
class Request:
    """`timed` prompts are answered alone as well; the first `shown` answers come with the `top` likeliest tokens.

    `texts` are read by vLLM's tokenizer.
    """

    folder: str
    context: int
    cache_bytes: int = CACHE_BYTES
    prompts: list[list[int]] = field(default_factory=list)
    max_new_tokens: list[int] = field(default_factory=list)
    stop_ids: list[int] = field(default_factory=list)
    timed: int = 0
    shown: int = 0
    top: int = TOP
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Generated:
    """One answer: `ids` without the stop token, `text` as vLLM detokenizes them.

    `latency_ms` has the wait for a turn. `likeliest[t]` has log probabilities by token id at place t, stop included.
    """

    index: int
    ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    likeliest: list[dict[int, float]]


@dataclass(frozen=True)
class Timed:
    """`wall_ms` of all answers together; the rest are sums over single streams."""

    wall_ms: float
    prompt_tokens: int
    prompt_ms: float
    decoded_tokens: int
    decode_ms: float


@dataclass(frozen=True)
class Answered:
    """What vLLM said: answers in the order of the prompts, token ids in the order of the texts."""

    version: str
    load_ms: float
    peak_bytes: int
    answers: list[Generated]
    timed: Timed | None
    tokens: list[list[int]]


def python() -> Path:
    """The interpreter of vLLM's environment: beside the code, or where POTSTILL_VLLM_ENV says."""
    return Path(os.environ.get("POTSTILL_VLLM_ENV", ROOT / ".venv-vllm")).absolute() / "bin" / "python"


def is_built() -> bool:
    return python().is_file()


def is_for_cpu() -> bool:
    """Whether the environment has vLLM's CPU build: scripts/setup_env.sh writes down what it built."""
    stamp = python().parent.parent / "potstill-stamp"
    return stamp.is_file() and stamp.read_text(encoding="utf-8").startswith("cpu ")


def generate(folder: Path, prompts: list[list[int]], max_new_tokens: list[int], **request: Any) -> list[Generated]:
    """Greedy answers to prompts given as token ids, in order. `request`: other keys of Request, `context` at least."""
    return ask(Request(folder=str(folder), prompts=prompts, max_new_tokens=max_new_tokens, **request)).answers


def ask(request: Request) -> Answered:
    """Runs vLLM once. Raises Stop 69 without its environment, 65 when it ends badly, with its last useful line."""
    if not is_built():
        raise Stop(
            f"{python().parent.parent} is not there, and vLLM runs in no other environment. Run {BUILD}.", UNAVAILABLE
        )
    _check(request)
    with tempfile.TemporaryDirectory(prefix="potstill-vllm-") as name:
        folder = Path(name)
        asked, answers, log = folder / "request.json", folder / "answers.jsonl", folder / "log"
        whole = replace(request, folder=str(Path(request.folder).absolute()))
        asked.write_text(json.dumps(asdict(whole)), encoding="utf-8")
        command = [str(python()), "-I", str(PROGRAM), str(asked), str(answers)]
        with open(log, "wb") as output:
            # a process group of its own would outlive Ctrl-C
            done = subprocess.run(
                command, cwd=folder, env=environment(folder), stdout=output, stderr=output, timeout=TIMEOUT_S
            )
        lines = answers.read_text(encoding="utf-8").splitlines() if answers.is_file() else []
        if done.returncode or not lines or json.loads(lines[-1])["kind"] != "done":
            told = last_useful(log.read_text(encoding="utf-8", errors="replace"))
            raise Stop(f"vLLM could not answer with {request.folder} (exit {done.returncode}): {told}", DATA)
        return _read([json.loads(line) for line in lines])


def last_useful(log: str) -> str:
    """The line of a traceback that names the error: the last one that begins with an exception's name."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line.split(") ", 1)[-1] for line in lines if _names_error(line)]
    return (named or lines or ["it said nothing"])[-1][:500]


def _names_error(line: str) -> bool:
    # vLLM's own processes put "(EngineCore pid=1) ERROR ..." in front; the bare line is the traceback's
    head = line.split(":", 1)[0].split(" ")[-1].rsplit(".", 1)[-1]
    return ":" in line and head.endswith(("Error", "Exception", "Interrupt")) and "See root cause above" not in line


def _check(request: Request) -> None:
    if not (Path(request.folder) / "config.json").is_file():
        raise Stop(f"{request.folder} is no model folder: it has no config.json. Run fab package.export.", DATA)
    longest = [len(p) + n for p, n in zip(request.prompts, request.max_new_tokens, strict=True)]
    if longest and max(longest) > request.context:
        raise Stop(
            f"a prompt and its answer take {max(longest)} tokens, the context is {request.context}; "
            "raise num_ctx in configs/package/*.yaml",
            DATA,
        )


def environment(folder: Path) -> dict[str, str]:
    """What vLLM's process sees of the shell, and what keeps it off the network."""
    found = {name: os.environ[name] for name in KEPT if name in os.environ}
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "VLLM_DO_NOT_TRACK")
    return {
        **found,
        **dict.fromkeys(offline, "1"),
        # whatever is cached goes with the folder
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
        # the engine in the process that is measured, and no process left behind by a kill
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(llama.THREADS),
        # else a CPU computes W4A16 with activations of 8 bits, which is not what a GPU does
        "VLLM_CPU_INT4_W4A8": "0",
    }


def _read(lines: list[dict[str, Any]]) -> Answered:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(line.pop("kind"), []).append(line)
    [loaded], [done] = by_kind["loaded"], by_kind["done"]
    timed = by_kind.get("timed")
    return Answered(
        **loaded,
        **done,
        answers=[_generated(line) for line in by_kind.get("answer", [])],
        timed=Timed(**timed[0]) if timed else None,
        tokens=[line["ids"] for line in by_kind.get("tokens", [])],
    )


def _generated(line: dict[str, Any]) -> Generated:
    return Generated(**{**line, "likeliest": [dict(place) for place in line["likeliest"]]})
