"""Rulings by question, in one SQLite file: what was answered once is never asked, or paid for, again."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path


class Cache:
    """Rulings are JSON text here; whoever asks parses them. For one thread."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        # a ruling lost to a power cut is asked again; one lost to a killed process is not lost
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS rulings(key TEXT PRIMARY KEY, ruling TEXT NOT NULL)")

    def get(self, key: str) -> str | None:
        row = self._db.execute("SELECT ruling FROM rulings WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, rulings: Iterable[tuple[str, str]]) -> None:
        """Writes [(key, ruling)] in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT OR REPLACE INTO rulings VALUES (?, ?)", rulings)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._db.close()
