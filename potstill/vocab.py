"""Trims a model's vocabulary to some texts: a smaller model that reads and says those texts as the whole one does.

    report = trim(Path("models/hub/..."), texts, Path("models/<run>/base"), reserve=4096)

Two thirds of Gemma 3 270M are the embedding of 262,144 tokens, of which a narrow job uses some thousand. What is kept
is in potstill/vocab_select.py, the files are in potstill/vocab_files.py, and what it is worth in docs/vocabulary.md.
"""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from potstill import vocab_files, vocab_select
from potstill.files import canonical_json, sha256_text, write_text
from potstill.records import Record
from potstill.stop import BUG, DATA, Stop
from potstill.vocab_files import Tokenizer

WEIGHTS = "model.safetensors"
# new id -> original id, as a JSON list
KEPT = "vocabulary.json"
COPIED = ("*.jinja", "chat_template.json", "LICENSE*", "NOTICE*")


class TrimReport(Record):
    """`used` pieces occur in the texts, `reserve` were added by frequency; bytes are those of the weights' files.

    `kept_sha256` is of the kept original ids, as compact JSON; the ids themselves are in vocabulary.json.
    """

    pieces_before: int
    pieces_after: int
    used: int
    reserve: int
    bytes_before: int
    bytes_after: int
    kept_sha256: str


def trim(model_dir: Path, texts: Iterable[str], out_dir: Path, reserve: int = 0) -> TrimReport:
    """Writes the model of `model_dir` with the vocabulary that `texts` need to `out_dir`, whole or not at all.

    Every text gets the same tokens as before, under new ids, in Hugging Face, SentencePiece and llama.cpp, and the
    model's hidden states on them are the same bits; any other text still round-trips, perhaps in more tokens. The
    first two readers are checked on all texts before the folder takes its place; one that was there is replaced.
    Control tokens in the texts are recognised, so give texts as the chat template renders them.

    Raises Stop 65 when the folder is no BPE model with byte fallback in one model.safetensors, or when a text has a
    token that the embedding has no row for.
    """
    model_dir, out_dir = Path(model_dir), Path(out_dir)
    if not (model_dir / WEIGHTS).is_file():
        raise Stop(f"{model_dir / WEIGHTS} is not there; want the weights in one file.", DATA)
    tokenizer = vocab_files.read(model_dir)
    distinct = list(dict.fromkeys(texts))
    before = list(vocab_select.encodings(*readers(model_dir, tokenizer), distinct))
    used = ids_in(before, tokenizer, model_dir)
    selection = vocab_select.select(tokenizer, used, vocab_files.named_ids(model_dir, tokenizer), reserve)
    partial = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(model_dir, tokenizer, selection.ids, partial)
        check(partial, tokenizer, selection.ids, distinct, before)
        sync(partial)
        shutil.rmtree(out_dir, ignore_errors=True)
        partial.rename(out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TrimReport(
        pieces_before=tokenizer.rows,
        pieces_after=len(selection.ids),
        used=selection.used,
        reserve=selection.reserve,
        bytes_before=(model_dir / WEIGHTS).stat().st_size,
        bytes_after=(out_dir / WEIGHTS).stat().st_size,
        kept_sha256=sha256_text(canonical_json(selection.ids)),
    )


def kept_ids(folder: Path) -> list[int]:
    """The original id of every token of a trimmed folder. Raises Stop 65 when it is none."""
    import json

    path = Path(folder) / KEPT
    if not path.is_file():
        raise Stop(f"{path} is not there: {folder} has no trimmed vocabulary.", DATA)
    return json.loads(path.read_text(encoding="utf-8"))


def readers(folder: Path, tokenizer: Tokenizer) -> tuple[Any, Any, re.Pattern[str] | None]:
    """Hugging Face's tokenizer, SentencePiece's, and the pattern of the special tokens that llama.cpp splits at."""
    from sentencepiece import SentencePieceProcessor

    from potstill.models import load_tokenizer

    special = [re.escape(e["content"]) for e in tokenizer.json["added_tokens"] if e["special"]]
    slow = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    # the longest first, where one begins another
    pattern = re.compile("|".join(sorted(special, key=len, reverse=True))) if special else None
    return load_tokenizer(folder), slow, pattern


def ids_in(encodings: list[tuple[Any, Any]], tokenizer: Tokenizer, folder: Path) -> set[int]:
    import numpy as np

    used = {int(i) for both in encodings for ids in both for i in np.unique(ids)}
    if beyond := sorted(i for i in used if i >= tokenizer.rows):
        names = [text for text, i in tokenizer.added.items() if i in beyond]
        raise Stop(
            f"a text has the token {', '.join(names)}, for which {folder} has no row. Take it out of the texts "
            "(fab dataset.clean) and run fab train.prepare again.",
            DATA,
        )
    return used


def write(model_dir: Path, tokenizer: Tokenizer, kept: list[int], out: Path) -> None:
    new_ids = {old: new for new, old in enumerate(kept)}
    vocab_files.write_tokenizer(model_dir, tokenizer, new_ids, out)
    vocab_files.write_configs(model_dir, new_ids, out)
    for path in (path for pattern in COPIED for path in model_dir.glob(pattern)):
        shutil.copyfile(path, out / path.name)
    write_text(out / KEPT, canonical_json(kept) + "\n")
    vocab_files.write_weights(model_dir / WEIGHTS, tokenizer.rows, kept, out / WEIGHTS)


def check(out: Path, tokenizer: Tokenizer, kept: list[int], texts: list[str], before: list[tuple[Any, Any]]) -> None:
    """Raises Stop 1 when a text has other tokens than it had, or a reader other tokens than the embedding has rows."""
    import numpy as np

    fast, slow, controls = readers(out, tokenizer)
    if len(fast) > len(kept):
        extra = sorted(fast.get_vocab().items(), key=lambda item: item[1])[len(kept) :]
        raise Stop(f"trimming left tokens without a row: {extra[:5]}. Give -o vocabulary=keep, and report this.", BUG)
    original = np.array(kept, np.int32)
    after = vocab_select.encodings(fast, slow, controls, texts)
    for old, new in zip(before, after, strict=True):
        for reader, one, other in zip(("Hugging Face", "SentencePiece"), old, new, strict=True):
            if not np.array_equal(one, original[other]):
                raise Stop(
                    f"{reader} splits a text otherwise than before. Give -o vocabulary=keep, and report this.", BUG
                )


def sync(folder: Path) -> None:
    """Puts the folder's files on the disk before a rename makes them count."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
