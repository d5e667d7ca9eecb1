"""Asks a run's model, or an artifact of its package, one question at a time, with the run's system text."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from potstill import llama, models, project, prompt, runs
from potstill.files import sha256_file
from potstill.records import Example, read_jsonl
from potstill.runs import RunRecord
from potstill.stop import DATA, Stop
from potstill.workload import Workload

CONTEXT = 4096
# the untuned base in the place of an artifact
BASE = "base"
# the smallest GGUF of the package, whichever left it for being over its limits
SMALLEST = "gguf"
# the output for one prompt in pieces, as the model gives it
Ask = Callable[[str], Iterator[str]]


def open_model(
    run: str, artifact: str | None, system: str, max_new_tokens: int
) -> contextlib.AbstractContextManager[Ask]:
    """The run's merged model, an artifact of its package, or `base`; loaded when the context is entered."""
    if artifact and artifact != BASE:
        return packaged(run, artifact, system, max_new_tokens)
    return in_process(run, system, max_new_tokens, artifact == BASE)


def system_of(record: RunRecord, job: Workload) -> str:
    """The system text of all train rows; the workload's own where they differ or the snapshot is not here."""
    snapshot = record.snapshots["train"]
    path = Path(snapshot.file)
    if not path.is_file() or sha256_file(path) != snapshot.sha256:
        return job.system_prompt
    texts = {example.system for example in read_jsonl(path, Example)}
    return texts.pop() if len(texts) == 1 else job.system_prompt


@contextlib.contextmanager
def in_process(run: str, system: str, max_new_tokens: int, base: bool = False) -> Iterator[Ask]:
    """The merged model, or its untuned base, in float32. Raises Stop 65 when the run is not trained."""
    import torch

    dtype = torch.float32
    model, tokenizer = models.load_base(runs.read(run), dtype) if base else models.load_merged(run, dtype)
    yield lambda message: models.stream(model, tokenizer, prompt.prompt_ids(system, message, tokenizer), max_new_tokens)


@contextlib.contextmanager
def packaged(run: str, artifact: str, system: str, max_new_tokens: int) -> Iterator[Ask]:
    """The artifact in llama.cpp, which renders the chat template itself. Raises Stop 65 when it holds no GGUF."""
    folder = project.run_folder(run) / "package" / artifact
    if artifact == SMALLEST:
        files = sorted(folder.parent.glob("gguf-*/*.gguf"), key=lambda path: path.stat().st_size)
    else:
        files = sorted(folder.glob("*.gguf"))
    if not files:
        known = ", ".join(sorted(p.parent.name for p in folder.parent.glob("*/*.gguf"))) or "none"
        raise Stop(f"{folder} holds no GGUF; artifacts that do: {known}. Run fab package.export -r {run}.", DATA)
    with llama.serve(files[0], context=CONTEXT, parallel=1) as server:
        yield lambda message: llama.stream(server, prompt.messages(system, message), max_new_tokens)
