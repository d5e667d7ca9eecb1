"""A package of the tiny model as export leaves it before the manifest, with what serving and the Pi bundle write."""

import shutil
from pathlib import Path

import tiny_gemma

from potstill import models, serving, workload
from potstill.gguf import write_gguf

RUN, GGUF = "batfit-tiny", "batfit-tiny.Q8_0.gguf"
KINDS = ("bf16", "fp16", "rtn-w4a16")
NUM_CTX = 1024


def make(folder: Path, tiny: Path, *, copied: float = 0.4, system: str | None = tiny_gemma.SYSTEM) -> Path:
    """The weights of every folder are those of the tiny model: nothing here looks at them."""
    for kind in KINDS:
        shutil.copytree(tiny, folder / kind)
    (folder / "gguf-q8_0").mkdir()
    write_gguf(tiny, folder / "gguf-q8_0" / GGUF, "Q8_0")
    serving.write(
        folder,
        run=RUN,
        job=workload.load("batfit"),
        tokenizer=models.load_tokenizer(tiny),
        system=system,
        num_ctx=NUM_CTX,
        slots=4,
        copied=copied,
        ggufs={"gguf-q8_0": GGUF},
    )
    return folder
