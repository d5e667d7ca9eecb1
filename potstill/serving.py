"""Writes into a package how each artifact is served: the command, a request that works, and the answers' schemas.

    bf16/, awq/, rtn-*/   README.md, vllm.json (the command as a list), request.json
    fp16/                 README.md
    gguf-*/               README.md, Modelfile, llama-server.json, request.json
    schemas/              per task <task>.json, and <task>.gbnf.txt for llama.cpp

Options are those of vLLM 0.32.0 (vllm serve --help) and of the llama-server of llama.cpp in autumn 2026. Everything
listens on 127.0.0.1 only, answers greedily, and asks no network for anything.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from potstill import constraints, llama_grammar, modelfile, prompt, prompt_lookup
from potstill.files import write_json, write_text
from potstill.runtime_table import ARTIFACTS
from potstill.workload import Workload

VLLM_VERSION = "0.32.0"
# no telemetry, and no hub: the folder has everything
OFFLINE = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
VLLM_README = """\
# {run} ({kind}) in vLLM

Written for vLLM {version}. In this folder:

    {command}

The same as a list of words is in vllm.json. On an AMD GPU: deploy/vllm-rocm/ of Potstill. What loads where, and who
says so, is in the package's manifest.json under runtimes.

Ask it, from a second terminal:

    curl -sS -H 'Content-Type: application/json' -d @request.json http://127.0.0.1:8000/v1/chat/completions

{system} `response_format` in request.json keeps the answer to the task's JSON Schema; schemas/ of the package has the
schema of every task.

- `temperature` 0 is set for requests that name none: vLLM does not read `do_sample` and would sample at 1.
- `guidance` and no blanks: the model was trained on compact JSON, and with xgrammar 0.2.8, which this vLLM has, blanks
  after commas come all the same.
- {ngram}
"""
LLAMA_README = """\
# {run} ({kind})

## Ollama

    ollama create {run} -f Modelfile
    ollama run {run}

Run both in this folder. {modelfile} Ollama does not trim a message as training did: send it without white space around
it.

## llama-server (llama.cpp)

    {command}

The same as a list of words is in llama-server.json. Ask it, from a second terminal:

    curl -sS -H 'Content-Type: application/json' -d @request.json http://127.0.0.1:8080/v1/chat/completions

{system} `grammar` in request.json keeps the answer to compact JSON of the task's form; schemas/ of the package has the
grammar of every task. llama.cpp makes a grammar of a JSON Schema too, but one with blanks and line ends between values.

- {ngram}
"""
FP16_README = """\
# {run} (fp16)

For runtimes that have no bfloat16. Every weight fits into float16; activations of Gemma 3 can still leave its range, so
let package.parity ask it the test set before you trust it. vLLM refuses float16 for Gemma 3: it gets bf16.
"""


def write(
    package: Path,
    *,
    run: str,
    job: Workload,
    tokenizer: Any,
    system: str | None,
    num_ctx: int,
    slots: int,
    copied: float,
    ggufs: dict[str, str],
) -> None:
    """Writes beside every artifact that `package` has.

    `system` is the system text of all rows, None when they differ. `copied` is prompt_lookup.steps_saved of train rows:
    from prompt_lookup.WORTH_IT on, n-gram speculation is in the commands. `ggufs` maps artifacts to their file names.
    Raises Stop 65 when a Modelfile cannot hold the template or the system text.
    """
    ngram = copied >= prompt_lookup.WORTH_IT
    told = {"run": run, "system": system_words(system), "ngram": _ngram_words(copied, ngram)}
    write_schemas(package / "schemas", job)
    for folder in sorted(path for path in package.iterdir() if path.name in ARTIFACTS):
        kind = folder.name
        if kind in ggufs:
            words = llama_command(run, ggufs[kind], num_ctx, slots, ngram)
            write_text(folder / "Modelfile", modelfile.modelfile(ggufs[kind], tokenizer, system, num_ctx))
            write_json(folder / "llama-server.json", {"argv": words})
            write_json(folder / "request.json", request(run, job, system, grammar=True))
            told["modelfile"] = modelfile_words(system)
            write_text(folder / "README.md", LLAMA_README.format(kind=kind, command=shown(words), **told))
        elif kind == "fp16":
            write_text(folder / "README.md", FP16_README.format(run=run))
        else:
            words = vllm_command(run, num_ctx, ngram)
            write_json(folder / "vllm.json", {"vllm": VLLM_VERSION, "argv": words, "environment": OFFLINE})
            write_json(folder / "request.json", request(run, job, system, grammar=False))
            text = VLLM_README.format(kind=kind, version=VLLM_VERSION, command=shown(words, OFFLINE), **told)
            write_text(folder / "README.md", text)


def write_schemas(folder: Path, job: Workload) -> None:
    """Every task's answer as the JSON Schema that eval.generate --constrained keeps to, and as llama.cpp's grammar."""
    for task in job.schemas:
        schema = answer_schema(job, task)
        write_json(folder / f"{task}.json", schema)
        write_text(folder / f"{task}.gbnf.txt", llama_grammar.grammar(schema))


def answer_schema(job: Workload, task: str) -> dict[str, Any]:
    schema: dict[str, Any] = constraints.bounded(job.schemas[task].model_json_schema())
    return schema


def vllm_command(run: str, num_ctx: int, ngram: bool) -> list[str]:
    """`vllm serve` of the folder it is run in."""
    structured = {"backend": "guidance", "disable_any_whitespace": True}
    words = ["vllm", "serve", ".", "--served-model-name", run, "--dtype", "bfloat16"]
    words += ["--max-model-len", str(num_ctx), "--seed", "0", "--enable-prefix-caching"]
    words += ["--override-generation-config", _json({"temperature": 0.0})]
    words += ["--structured-outputs-config", _json(structured), "--host", "127.0.0.1", "--port", "8000"]
    if ngram:
        lookup = {"prompt_lookup_min": prompt_lookup.MATCHED, "prompt_lookup_max": prompt_lookup.MATCHED}
        tried = {"method": "ngram", "num_speculative_tokens": prompt_lookup.TRIED, **lookup}
        words += ["--speculative-config", _json(tried)]
    return words


def llama_command(run: str, gguf: str, num_ctx: int, slots: int, ngram: bool) -> list[str]:
    """`llama-server` of the folder it is run in; -c is shared by the slots, of which each needs num_ctx tokens."""
    words = ["llama-server", "-m", gguf, "--alias", run, "-c", str(num_ctx * slots), "-np", str(slots)]
    words += ["--temp", "0", "--top-k", "1", "--seed", "0", "--offline", "--no-ui", "--cors-origins", "localhost"]
    words += ["--host", "127.0.0.1", "--port", "8080"]
    if ngram:
        words += ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", str(prompt_lookup.MATCHED)]
        words += ["--spec-ngram-simple-size-m", str(prompt_lookup.TRIED)]
    return words


def request(run: str, job: Workload, system: str | None, *, grammar: bool) -> dict[str, Any]:
    """A chat completion with the workload's demo message. None of anybody's data is in a package."""
    task = job.settings.demo_task or next(iter(job.settings.tasks))
    schema = answer_schema(job, task)
    body: dict[str, Any] = {
        "model": run,
        "messages": prompt.messages(system or "", job.settings.demo_message.strip()),
        "temperature": 0.0,
        "max_tokens": job.settings.tasks[task].max_new_tokens,
    }
    if grammar:
        return {**body, "grammar": llama_grammar.grammar(schema)}
    return {**body, "response_format": {"type": "json_schema", "json_schema": {"name": task, "schema": schema}}}


def shown(words: list[str], environment: dict[str, str] | None = None) -> str:
    """A command for a shell, one option with its value to a line."""
    lines, current = [], " ".join(f"{key}={value}" for key, value in (environment or {}).items())
    for word in words:
        if word.startswith("-") or (current and word == words[0]):
            lines.append(current)
            current = shlex.quote(word)
        else:
            current = f"{current} {shlex.quote(word)}".strip()
    return " \\\n      ".join([*lines, current])


def system_words(system: str | None) -> str:
    if system:
        return "The first message is the system text that every row was trained with: send it with every call."
    return "Rows were trained with different system texts, or none: send with each call the one that belongs to it."


def modelfile_words(system: str | None) -> str:
    return "The Modelfile holds the system text." if system else "The Modelfile holds no system text, for rows differ."


def _ngram_words(copied: float, on: bool) -> str:
    guess = f"guessing what followed the same {prompt_lookup.MATCHED} tokens before"
    measured = f"{guess} would save {copied:.0%} of the steps"
    if on:
        return f"n-gram speculation is on: on train rows, {measured}. Leave it out where many requests run at once."
    return f"n-gram speculation is off: on train rows, {measured}, which wrong guesses cost again."


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
