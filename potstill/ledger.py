"""Durable item-wise work in one SQLite file: killed at any instant, nothing is lost and nothing is done twice.

    with Ledger(path, fingerprint) as ledger:
        ledger.add((row.id, {"prompt": row.prompt}) for row in rows)
        while items := ledger.claim(32, lease_s=600):
            ledger.finish_many((item.key, work(item.payload)) for item in items)

To resume is to run the same lines again. Only what is claimed and not finished when a process dies is worked on again;
its result is recorded once, whoever comes first.
"""

import contextlib
import errno
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from potstill.stop import DATA, Stop

BUSY_TIMEOUT_S = 60.0
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS items(
        seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, payload TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'todo' CHECK (state IN ('todo', 'done', 'failed')),
        claimer TEXT, lease_until REAL NOT NULL DEFAULT 0, result TEXT, error TEXT)""",
    "CREATE INDEX IF NOT EXISTS items_by_state ON items(state, seq)",
)


class Item(NamedTuple):
    key: str
    payload: dict[str, Any]


class Ledger:
    """Several processes may hold the same file; one object is one claimer, for one thread.

    `fingerprint` names the inputs (a hash of snapshot, run and configuration). A ledger made for other inputs raises
    Stop 65, unless `restart` is given: then its items are dropped first. `alone` drops every lease: for a caller that
    holds the stage lock, whose predecessor is dead and will not come back for them.
    """

    def __init__(self, path: Path | str, fingerprint: str = "", *, restart: bool = False, alone: bool = False):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.claimer = uuid.uuid4().hex
        self._db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._open(fingerprint, restart, alone)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def add(self, items: Iterable[tuple[str, dict[str, Any]]]) -> int:
        """Adds what is not there yet, all or nothing; returns how many were new. A known key keeps its payload."""
        rows = ((key, json.dumps(payload, allow_nan=False)) for key, payload in items)
        with self._transaction():
            before = self._db.total_changes
            self._db.executemany("INSERT INTO items(key, payload) VALUES (?, ?) ON CONFLICT(key) DO NOTHING", rows)
            return self._db.total_changes - before

    def claim(self, n: int, lease_s: float) -> list[Item]:
        """Leases up to `n` open items, oldest first, for `lease_s` seconds; [] when nothing is free just now.

        An item whose lease has run out is free again. Leases run on the wall clock, which processes share.
        """
        now = time.time()
        with self._transaction():
            rows = self._db.execute(
                "SELECT seq, key, payload FROM items WHERE state = 'todo' AND lease_until <= ? ORDER BY seq LIMIT ?",
                (now, n),
            ).fetchall()
            self._db.executemany(
                "UPDATE items SET claimer = ?, lease_until = ? WHERE seq = ?",
                [(self.claimer, now + lease_s, seq) for seq, _, _ in rows],
            )
        return [Item(key, json.loads(payload)) for _, key, payload in rows]

    def finish(self, key: str, result: dict[str, Any]) -> bool:
        """Records the result and marks the item done, in one transaction; False when the lease went to another."""
        return self.finish_many([(key, result)]) == 1

    def finish_many(self, results: Iterable[tuple[str, dict[str, Any]]]) -> int:
        """`finish` for many items in one transaction; returns how many were still leased to this claimer."""
        # the results are worked out before the write lock is taken, so that slow work blocks nobody
        rows = [("done", json.dumps(result, allow_nan=False), None, key, self.claimer) for key, result in results]
        return self._close_items(rows)

    def fail(self, key: str, error: str) -> bool:
        """Marks the item failed, with the reason; False when the lease went to another. See `retry_failed`."""
        return self._close_items([("failed", None, error, key, self.claimer)]) == 1

    def retry_failed(self) -> int:
        """Opens failed items again; returns how many."""
        with self._transaction():
            return self._db.execute(
                "UPDATE items SET state = 'todo', claimer = NULL, lease_until = 0, error = NULL WHERE state = 'failed'"
            ).rowcount

    def counts(self) -> dict[str, int]:
        """{"todo", "done", "failed"}: items in each state; a leased item is still to do."""
        found = dict(self._db.execute("SELECT state, COUNT(*) FROM items GROUP BY state"))
        return {state: found.get(state, 0) for state in ("todo", "done", "failed")}

    def results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, result) of every done item, in the order the items were added."""
        for key, result in self._db.execute("SELECT key, result FROM items WHERE state = 'done' ORDER BY seq"):
            yield key, json.loads(result)

    def failures(self) -> Iterator[tuple[str, str]]:
        """(key, error) of every failed item, in the order the items were added."""
        yield from self._db.execute("SELECT key, error FROM items WHERE state = 'failed' ORDER BY seq")

    def _close_items(self, rows: Sequence[tuple[str, str | None, str | None, str, str]]) -> int:
        with self._transaction():
            before = self._db.total_changes
            self._db.executemany(
                "UPDATE items SET state = ?, result = ?, error = ? WHERE key = ? AND claimer = ? AND state = 'todo'",
                rows,
            )
            return self._db.total_changes - before

    def _open(self, fingerprint: str, restart: bool, alone: bool) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                for statement in SCHEMA:
                    self._db.execute(statement)
                if restart:
                    self._db.execute("DELETE FROM items")
                    self._db.execute("DELETE FROM meta")
                if alone:
                    self._db.execute("UPDATE items SET claimer = NULL, lease_until = 0 WHERE state = 'todo'")
                self._db.execute("INSERT OR IGNORE INTO meta VALUES ('fingerprint', ?)", (fingerprint,))
                found = self._db.execute("SELECT value FROM meta WHERE name = 'fingerprint'").fetchone()[0]
                if found != fingerprint:
                    raise Stop(
                        f"{self.path} holds work on other inputs (fingerprint {found[:12]!r}, want "
                        f"{fingerprint[:12]!r}). Start afresh with --restart, or remove {self.path}.",
                        DATA,
                    )
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise Stop(f"{self.path} is no SQLite file ({error}). Remove it and run this again.", DATA) from None
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            # IMMEDIATE: the write lock is taken before anything is read, so no two claimers see the same free item
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, "No space left on device", str(self.path)) from error
            raise
