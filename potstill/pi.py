"""The Raspberry Pi bundle of a package: pi/, which can be copied to the board by itself.

    pi/<run>.<type>.gguf   the weights, a hard link to the artifact's where the disk can
    pi/Modelfile           for Ollama
    pi/request.json        a request for llama-server, with the workload's demo message
    pi/prompt.txt          that message, for `ollama run`
    pi/keys.txt            the keys that the answer must have, one a line
    pi/bundle.txt          name, file, tokens of context and MiB of memory, a word and its value to a line
    pi/SHA256SUMS.txt      of all these, for sha256sum -c
    pi/README.md

Nothing in it runs: deploy/pi/install.sh and smoke.sh of Potstill take the folder as their argument.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from potstill import headers, serving
from potstill.files import sha256_file, write_json, write_text
from potstill.stop import USAGE, Stop
from potstill.workload import Workload

NAME = "pi"
SUMS = "SHA256SUMS.txt"
# what llama.cpp holds beside weights and cache: buffers of a step, of the vocabulary's logits, and the program
OVERHEAD_MIB = 192
README = """\
# {run} on a Raspberry Pi

For a Raspberry Pi 5 (or any 64-bit ARM Linux) with {memory} MiB of free memory and Ollama or llama.cpp's llama-server.
Before you copy the folder, check the whole package where Potstill is installed: fab package.verify.

    sh install.sh {folder}      # checks the machine and the files, then registers the model with Ollama
    sh smoke.sh {folder}        # asks one question, checks the answer, prints tokens per second

Both scripts are in deploy/pi/ of Potstill. With llama-server instead of Ollama, in this folder:

    {command}

    sh smoke.sh {folder} http://127.0.0.1:8080

The file was not run on a Pi by those who made it: the memory is counted, not measured.
"""


def write(package: Path, *, run: str, kind: str, gguf: str, job: Workload, system: str | None, num_ctx: int) -> None:
    """Writes package/pi/ from the artifact `kind`, whose file is `gguf` and which serving.write has been at.

    Raises Stop 2 when the package has no such artifact.
    """
    source, folder = package / kind, package / NAME
    if not (source / gguf).is_file():
        made = sorted(path.parent.name for path in package.glob("*/*.gguf"))
        raise Stop(f"pi: {kind} is no GGUF artifact of this package; it has {', '.join(made) or 'none'}", USAGE)
    folder.mkdir()
    link(source / gguf, folder / gguf)
    shutil.copyfile(source / "Modelfile", folder / "Modelfile")
    asked = serving.request(run, job, system, grammar=True)
    write_json(folder / "request.json", asked)
    # without a line end, which Ollama would hand to the model
    write_text(folder / "prompt.txt", asked["messages"][-1]["content"])
    write_text(folder / "keys.txt", "".join(f"{key}\n" for key in keys(job)))
    memory = memory_mib(folder / gguf, num_ctx)
    facts = {"model": run, "gguf": gguf, "num_ctx": num_ctx, "memory_mib": memory}
    write_text(folder / "bundle.txt", "".join(f"{key} {value}\n" for key, value in facts.items()))
    # one slot: a Pi has four cores, which one answer keeps busy
    command = serving.shown(serving.llama_command(run, gguf, num_ctx, 1, False))
    write_text(folder / "README.md", README.format(run=run, memory=memory, command=command, folder=f"<package>/{NAME}"))
    names = sorted(path.name for path in folder.iterdir())
    write_text(folder / SUMS, "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names))


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no hard links."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def keys(job: Workload) -> list[str]:
    """The top keys of an answer to the demo message."""
    task = job.settings.demo_task or next(iter(job.settings.tasks))
    return list(serving.answer_schema(job, task)["properties"])


def memory_mib(gguf: Path, num_ctx: int) -> int:
    """MiB that llama.cpp needs: weights, a float16 cache of num_ctx tokens in every layer, and OVERHEAD_MIB."""
    facts: dict[str, Any] = headers.read_gguf(gguf)[0]
    name = facts["general.architecture"]
    heads, layers = facts[f"{name}.attention.head_count_kv"], facts[f"{name}.block_count"]
    width = heads * (facts[f"{name}.attention.key_length"] + facts[f"{name}.attention.value_length"])
    return -(-(gguf.stat().st_size + 2 * num_ctx * layers * width) // 2**20) + OVERHEAD_MIB
