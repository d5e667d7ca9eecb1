"""Proves that whoever reads a package's tokenizer reads a text as the same token ids that the model was trained on.

    mismatches = token_lock.check(package, kinds, examples, tokenizer)

Every rendered prompt and every answer goes through Hugging Face (the tokenizer in the artifact's folder), SentencePiece
(its tokenizer.model) and llama.cpp (the GGUF). vLLM's tokenizer is asked by package.parity, in vLLM's own environment.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from potstill import headers, llama, models, prompt
from potstill.files import canonical_json, sha256_file, sha256_text
from potstill.records import Example, Record

Reader = Callable[[list[str]], list[list[int]]]
# texts that llama.cpp reads in one request
AT_ONCE = 100
# tokens shown before the first that differs
BEFORE = 4


class Mismatch(Record):
    """The first token of one text that a reader sees differently. Ids and tokens are null where one side has ended.

    `before` is the text of the tokens in front of it, as far as both agree.
    """

    artifact: str
    reader: str
    id: str
    part: str
    token: int
    wanted_id: int | None
    wanted: str | None
    found_id: int | None
    found: str | None
    before: str


class Texts(NamedTuple):
    """What a snapshot's rows say to the model, and the training tokenizer's ids of it. `of` names row and part."""

    of: list[tuple[str, str]]
    texts: list[str]
    ids: list[list[int]]


def check(
    package: Path, kinds: Iterable[str], examples: Iterable[Example], tokenizer: Any, rows: int | None = None
) -> list[Mismatch]:
    """The first mismatch of each artifact and reader; empty when all agree. `rows`: at most so many of the examples.

    Artifacts with the same tokenizer are asked once, because the weights have no say in it; a Hugging Face tokenizer
    that has the training tokenizer's files, byte for byte, is that tokenizer.
    """
    chosen = [example for number, example in enumerate(examples) if rows is None or number < rows]
    rendered, found = render(chosen, tokenizer), []
    seen = {("huggingface", _digest(_tokenizer_files(Path(tokenizer.name_or_path))))}
    for kind in kinds:
        for name, files, read in readers(package / kind, tokenizer):
            digest = name, _digest(files)
            if digest not in seen:
                seen.add(digest)
                found.append(compare(kind, name, rendered, read(rendered.texts), tokenizer))
    return [mismatch for mismatch in found if mismatch is not None]


def render(examples: list[Example], tokenizer: Any) -> Texts:
    """Prompts first, then answers: each as it is tokenized in training, apart from the other."""
    of = [(example.id, part) for part in ("prompt", "answer") for example in examples]
    texts = [text_of(example, tokenizer) for example in examples]
    texts += [example.response + prompt.END_OF_TURN for example in examples]
    return Texts(of, texts, tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])


def text_of(example: Example, tokenizer: Any) -> str:
    messages = prompt.messages(example.system, example.prompt)
    text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def readers(folder: Path, tokenizer: Any) -> list[tuple[str, list[Path], Reader]]:
    """Name, files and function of everything that reads texts with the tokenizer of one artifact's folder."""
    ggufs = sorted(folder.glob("*.gguf"))
    found: list[tuple[str, list[Path], Reader]] = [("llama.cpp", [path], llama_cpp(path, tokenizer)) for path in ggufs]
    if (folder / "tokenizer.json").is_file():
        found.append(("huggingface", _tokenizer_files(folder), huggingface(folder)))
    if (folder / "tokenizer.model").is_file():
        found.append(("sentencepiece", [folder / "tokenizer.model"], pieces(folder / "tokenizer.model", tokenizer)))
    return found


def huggingface(folder: Path) -> Reader:
    def read(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = models.load_tokenizer(folder)(texts, add_special_tokens=False)["input_ids"]
        return ids

    return read


def pieces(path: Path, tokenizer: Any) -> Reader:
    """SentencePiece reads no control token from a text, so texts are cut at them first, as the other readers do."""

    def read(texts: list[str]) -> list[list[int]]:
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        # the longest first, so that one that begins like another is not cut short
        control = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
        cut = re.compile("(" + "|".join(map(re.escape, control)) + ")")
        parts = [[part for part in cut.split(text) if part] for text in texts]
        flat = iter(processor.encode([part for row in parts for part in row if part not in control]))
        return [
            [i for part in row for i in ([processor.piece_to_id(part)] if part in control else next(flat))]
            for row in parts
        ]

    return read


def llama_cpp(path: Path, tokenizer: Any) -> Reader:
    def read(texts: list[str]) -> list[list[int]]:
        with llama.serve(path, context=8, parallel=1) as server:
            return tokenize(server, texts, tokenizer)

    return read


def tokenize(server: llama.Server, texts: list[str], tokenizer: Any) -> list[list[int]]:
    """llama.cpp's ids of each text.

    A control token keeps what stands on its two sides apart, so many texts are read in one request, with <eos> between.
    """
    found: list[list[int]] = []
    between, at = tokenizer.eos_token, tokenizer.eos_token_id
    for start in range(0, len(texts), AT_ONCE):
        batch = texts[start : start + AT_ONCE]
        rows: list[list[int]] = [[]]
        for token in llama.tokenize(server, between.join(batch)):
            if token == at:
                rows.append([])
            else:
                rows[-1].append(token)
        # a text that has <eos> in it, or a file that does not know the token, is read text by text
        found += rows if len(rows) == len(batch) else [llama.tokenize(server, text) for text in batch]
    return found


def compare(artifact: str, reader: str, rendered: Texts, found: list[list[int]], tokenizer: Any) -> Mismatch | None:
    """The first text that `found` has other ids of."""
    for (id, part), wanted, ids in zip(rendered.of, rendered.ids, found, strict=True):
        if wanted != ids:
            at = first_difference(wanted, ids)
            names = [
                tokenizer.convert_ids_to_tokens(i) if i is not None else None for i in (item(wanted, at), item(ids, at))
            ]
            return Mismatch(
                artifact=artifact,
                reader=reader,
                id=id,
                part=part,
                token=at,
                wanted_id=item(wanted, at),
                wanted=names[0],
                found_id=item(ids, at),
                found=names[1],
                before=tokenizer.decode(wanted[max(0, at - BEFORE) : at]),
            )
    return None


def explain(mismatch: Mismatch) -> str:
    """One line for a person."""
    sides = ((mismatch.found, mismatch.found_id), (mismatch.wanted, mismatch.wanted_id))
    found, wanted = ("the end" if i is None else f"{name!r} ({i})" for name, i in sides)
    return (
        f"{mismatch.artifact}: {mismatch.reader} reads the {mismatch.part} of {mismatch.id} as other tokens from token "
        f"{mismatch.token} on, after {mismatch.before!r}: {found}, want {wanted}"
    )


def first_difference(one: list[Any], other: list[Any]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def item(values: list[Any], at: int) -> Any:
    return values[at] if at < len(values) else None


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in models.TOKENIZER_FILES if (folder / name).is_file()]


def _digest(files: list[Path]) -> str:
    return sha256_text("".join(f"{path.name if path.suffix != '.gguf' else ''} {_digest_of(path)}" for path in files))


def _digest_of(path: Path) -> str:
    """Of the tokenizer alone: a GGUF's weights would make every file another one."""
    if path.suffix != ".gguf":
        return sha256_file(path)
    fields = headers.read_gguf(path)[0]
    return sha256_text(canonical_json({key: value for key, value in fields.items() if key.startswith("tokenizer.")}))
