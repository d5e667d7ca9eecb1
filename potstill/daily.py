"""Tokens used per day, in one SQLite file for all processes, so that a daily budget holds over several runs."""

import contextlib
import datetime
import sqlite3
from pathlib import Path

from potstill import project

PATH = project.REPORTS / "daily_tokens.sqlite"


def today() -> str:
    """The day in UTC, as providers count."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def used(day: str, path: Path = PATH) -> int:
    with _open(path) as db:
        row = db.execute("SELECT tokens FROM days WHERE day = ?", (day,)).fetchone()
    return int(row[0]) if row else 0


def add(day: str, tokens: int, path: Path = PATH) -> None:
    with _open(path) as db:
        db.execute(
            "INSERT INTO days VALUES (?, ?) ON CONFLICT(day) DO UPDATE SET tokens = tokens + excluded.tokens",
            (day, tokens),
        )


def _open(path: Path) -> contextlib.closing[sqlite3.Connection]:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.execute("CREATE TABLE IF NOT EXISTS days(day TEXT PRIMARY KEY, tokens INTEGER NOT NULL)")
    return contextlib.closing(db)
