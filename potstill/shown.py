"""Text of others made safe to show, in Markdown and on a terminal. Pages, rows and ids are hostile."""

import re
import unicodedata
from collections.abc import Iterable

MAX_CHARS = 400


def terminal(text: str) -> str:
    """Newlines and tabs stay; every other character that moves a cursor, turns text round or hides is shown as \\x1b.

    Covers the categories Cc (ANSI escapes), Cf (bidirectional overrides, zero width), Cs (cannot be encoded), Zl, Zp.
    """
    return "".join(_escaped(c) if c not in "\n\t" and _acts(c) else c for c in text)


def line(text: str, limit: int = MAX_CHARS) -> str:
    """`terminal`, on one line and no longer than `limit` characters and a note."""
    flat = terminal(" ".join(text.split()))
    return flat if len(flat) <= limit else f"{flat[:limit]} [... {len(flat) - limit} more characters]"


def cell(text: str) -> str:
    """Text that can end no Markdown table cell and start no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&$~])", r"\\\1", terminal(" ".join(text.split())))


def row(cells: Iterable[str]) -> str:
    """A row of a Markdown table. Cells are escaped, save those of a line such as | --- | ---: |."""
    return f"| {' | '.join(text if text and set(text) <= set('-:') else cell(text) for text in cells)} |"


def table(head: list[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a Markdown table: the first column to the left, the others to the right."""
    return [row(head), row(["---", *["---:"] * (len(head) - 1)]), *(row(cells) for cells in rows)]


def code(text: str) -> str:
    """A Markdown code span on one line: its fence is longer than any run of backticks inside."""
    flat = line(text) or " "
    fence = "`" * (max((len(run) for run in re.findall(r"`+", flat)), default=0) + 1)
    # a space after the fence is not part of the span (CommonMark 0.31, 6.1)
    return f"{fence} {flat} {fence}" if flat[0] in "` " or flat[-1] in "` " else f"{fence}{flat}{fence}"


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    code_point = ord(character)
    width = 2 if code_point < 0x100 else 4 if code_point < 0x10000 else 8
    return f"\\{'x' if width == 2 else 'u' if width == 4 else 'U'}{code_point:0{width}x}"
