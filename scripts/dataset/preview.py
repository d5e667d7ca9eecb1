"""Shows rows as they were logged, as the model gets them, and as the tokens it is trained on.

Run: python -m scripts.dataset.preview -w batfit [--id <id> | -n 3] [--split train] [--full]   (or: fab dataset.preview)
On a terminal the trained tokens are green, the masked ones dim and the special ones magenta; elsewhere lines say which
are which. The newest snapshot is shown; --split clean shows clean.jsonl. A row that was taken down is not shown.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from potstill import bases, cli, database, models, project, prompt, rows, runs, shown, snapshots, tombstones, workload
from potstill.files import sha256_text
from potstill.records import Example, Reject, read_jsonl
from potstill.snapshots import SPLITS
from potstill.stop import DATA, USAGE, Stop
from potstill.tombstones import Tombstones

CLEAN = "clean"
# of a text, and of the masked tokens; --full shows all
MAX_CHARS = 3_000
MAX_TOKENS = 400
Styled = tuple[str, str]


class Logged(NamedTuple):
    prompt: str
    answer: str


class Token(NamedTuple):
    text: str
    trained: bool
    special: bool


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, config="nano")
    parser.add_argument("--id", help="the row to show; looked for in every split unless --split names one")
    parser.add_argument("-n", "--number", type=int, default=3, help="how many rows to show (default: %(default)s)")
    parser.add_argument("--split", choices=(*SPLITS, CLEAN), help="default: train")
    parser.add_argument("--full", action="store_true", help="shorten nothing")
    arguments = parser.parse_args(argv)
    if arguments.number < 1:
        raise Stop(f"-n {arguments.number}: want 1 or more", USAGE)
    job = workload.load(cli.workload_name(arguments))
    settings = runs.train_config(arguments.config, arguments.override)
    gone = tombstones.load(job.name)
    found = pick(job.name, gone, arguments.id, arguments.number, arguments.split)
    tokenizer = models.load_tokenizer(bases.resolve(settings.base, settings.revision).path)
    raw = logged({str(example.metadata.get("parent", example.id)) for _, example in found}, gone)
    for split, example in found:
        own = raw.get(str(example.metadata.get("parent", example.id)))
        show(parts(split, example, own, tokenizer, settings.sft.max_length, arguments.full))
    cli.done([], f"fab train.prepare -w {job.name} -c {arguments.config}")


def pick(name: str, gone: Tombstones, id: str | None, number: int, split: str | None) -> list[tuple[str, Example]]:
    """The row `id`, or an even draw of `number` rows, always the same. Raises Stop 65 when there is none to show."""
    if id is None:
        split = split or "train"
        rows = (example for example in examples(name, split) if not gone.matches(example))
        found = heapq.nsmallest(number, rows, key=lambda example: (sha256_text(example.id), example.id))
        if not found:
            raise Stop(f"the split {split} of {name} has no row to show. Run fab dataset.split -w {name}.", DATA)
        return [(split, example) for example in found]
    if gone.named(id, {}, None):
        raise Stop(f"row {shown.line(id)} was taken down ({tombstones.FILE}).", DATA)
    for where in [split] if split else SPLITS:
        for example in examples(name, where):
            if example.id == id:
                if gone.matches(example):
                    raise Stop(f"row {shown.line(id)} was taken down ({tombstones.FILE}).", DATA)
                return [(where, example)]
    raise Stop(f"row {shown.line(id)} is not in {split or 'the newest snapshot'}{rejected(name, id)}.", DATA)


def examples(name: str, split: str) -> Iterator[Example]:
    if split == CLEAN:
        yield from read_jsonl(project.processed(name) / "clean.jsonl", Example, f"Run fab dataset.clean -w {name}.")
    else:
        yield from snapshots.read(snapshots.newest(name)[1].files()[split])


def rejected(name: str, id: str) -> str:
    path = project.processed(name) / "rejected.jsonl"
    for reject in read_jsonl(path, Reject) if path.is_file() else ():
        if reject.id == id:
            return f": {path} has it, {reject.reason}: {shown.line(reject.detail)}"
    return ""


def logged(ids: set[str], gone: Tombstones) -> dict[str, Logged]:
    """The rows as they were logged; none where the table is not here or was pulled anew without them."""
    path = project.database()
    ids = {id for id in ids if not gone.named(id, {}, None)}
    # raises Stop for a file that is no database of exemplars
    if not path.is_file() or not database.task_counts(path):
        return {}
    connection = database.connect(path, read_only=True)
    try:
        found = connection.execute(
            "SELECT CAST(id AS VARCHAR), CAST(prompt_text AS VARCHAR), CAST(response_strong AS VARCHAR) FROM examples "
            "WHERE CAST(id AS VARCHAR) IN (SELECT unnest(CAST(? AS VARCHAR[])))",
            [sorted(ids)],
        ).fetchall()
    finally:
        connection.close()
    return {id: Logged(prompt or "", answer or "") for id, prompt, answer in found}


def parts(
    split: str, example: Example, raw: Logged | None, tokenizer: Any, max_length: int, full: bool
) -> Iterator[tuple[str, list[Styled]]]:
    """(heading, styled texts) from top to bottom. Every text is safe for a terminal."""
    limit = None if full else MAX_CHARS
    yield f"{example.id}  task {example.task}, split {split}", []
    if raw is not None:
        yield f"raw prompt, {count(raw.prompt, tokenizer)}", [(shortened(raw.prompt, limit), "")]
        yield "raw answer", [(shortened(raw.answer, limit), "")]
    else:
        yield "raw: not in the database", []
    if example.system:
        yield f"system text, {count(example.system, tokenizer)}", [(shortened(example.system, limit), "")]
    yield f"prompt, {count(example.prompt, tokenizer)}", [(shortened(example.prompt, limit), "")]
    yield f"answer, {count(example.response, tokenizer)}", [(shortened(example.response, limit), "")]
    tokens, refused = tokenised(example, tokenizer, max_length)
    masked = [token for token in tokens if not token.trained]
    trained = [token for token in tokens if token.trained]
    yield f"masked, {len(masked)} tokens: no loss", styled(masked, None if full else MAX_TOKENS)
    yield f"trained, {len(trained)} tokens: the loss is on these", styled(trained, None)
    if refused:
        yield f"train.prepare refuses this row: {refused.reason}, {refused.detail}", []


def tokenised(example: Example, tokenizer: Any, max_length: int) -> tuple[list[Token], Reject | None]:
    """The tokens with the mask that training uses, and why training would refuse the row, if it would."""
    kept, refused = rows.training_rows([example], tokenizer, max_length)
    if kept:
        ids, labels = kept[0]["input_ids"], kept[0]["labels"]
    else:
        rendered = prompt.render(example, tokenizer)
        ids = [*rendered.prompt_ids, *rendered.completion_ids]
        labels = [rows.IGNORED] * len(rendered.prompt_ids) + rendered.completion_ids
    special = {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}
    names = tokenizer.convert_ids_to_tokens(ids)
    tokens = [
        Token(str(name), label != rows.IGNORED, id in special)
        for name, id, label in zip(names, ids, labels, strict=True)
    ]
    return tokens, refused[0] if refused else None


def styled(tokens: list[Token], limit: int | None) -> list[Styled]:
    """One piece a token: a bar ends each, ▁ is its space, and line ends are shown as well as made."""
    pieces: list[Styled] = []
    for number, token in enumerate(tokens):
        if limit and limit // 2 <= number < len(tokens) - limit // 2:
            if number == limit // 2:
                pieces.append((f"\n[... {len(tokens) - limit} more tokens]\n", "bold"))
            continue
        style = "magenta" if token.special else "green" if token.trained else "dim"
        text = shown.terminal(token.text).replace("\n", "⏎\n").replace("\t", "→")
        pieces.append((text + ("" if text.endswith("\n") else "|"), style))
    return pieces


def count(text: str, tokenizer: Any) -> str:
    return f"{len(text)} characters, {len(tokenizer(text, add_special_tokens=False)['input_ids'])} tokens"


def shortened(text: str, limit: int | None) -> str:
    """Head and tail of a long text, safe for a terminal."""
    if limit is None or len(text) <= limit:
        return shown.terminal(text)
    left = len(text) - limit
    return f"{shown.terminal(text[: limit // 2])}\n[... {left} more characters]\n{shown.terminal(text[-limit // 2 :])}"


def show(found: Iterable[tuple[str, list[Styled]]], console: Any = None) -> None:
    """With colours on a terminal. Elsewhere every line of a text starts with a bar, so that none can pass for ours."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False)
    colours = console.is_terminal and not console.no_color
    for number, (heading, pieces) in enumerate(found):
        heading = shown.line(heading)
        if colours:
            # Text takes no markup, so [red] in a row stays as it is
            console.print(Text(heading, style="bold underline" if number == 0 else "bold"), soft_wrap=True)
            console.print(Text.assemble(*pieces), soft_wrap=True)
        else:
            body = "".join(text for text, _ in pieces)
            print(f"{'== ' if number == 0 else '-- '}{heading}", file=console.file)
            print(*(f"  | {line}" for line in body.splitlines()), "", sep="\n", file=console.file)


if __name__ == "__main__":
    cli.run(main)
