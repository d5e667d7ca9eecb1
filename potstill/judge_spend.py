"""What judging has cost, per day and run, in one SQLite file (reports/judge_spend.sqlite): the daily cap reads it.

Days are UTC. Money is written before the answer it paid for is recorded, so a kill can only make it look like more.
"""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

SCHEMA = """CREATE TABLE IF NOT EXISTS spend(day TEXT, run TEXT, model TEXT, calls INTEGER NOT NULL, usd REAL NOT NULL,
    PRIMARY KEY (day, run, model))"""


class Day(NamedTuple):
    day: str
    model: str
    calls: int
    usd: float


class Spend:
    """For one thread; several processes may hold the same file. `run` is the fingerprint of a run's inputs."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(SCHEMA)

    def add(self, run: str, model: str, calls: int, usd: float, day: str | None = None) -> None:
        self._db.execute(
            "INSERT INTO spend VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, usd = usd + excluded.usd",
            (day or today(), run, model, calls, usd),
        )

    def of_run(self, run: str) -> float:
        """USD that the run has cost, over all the times it was started."""
        return float(self._db.execute("SELECT TOTAL(usd) FROM spend WHERE run = ?", (run,)).fetchone()[0])

    def of_day(self, day: str | None = None) -> float:
        """USD that all runs have cost on a day, by default today."""
        return float(self._db.execute("SELECT TOTAL(usd) FROM spend WHERE day = ?", (day or today(),)).fetchone()[0])

    def days(self) -> list[Day]:
        """Every day and model, the newest day first."""
        query = "SELECT day, model, SUM(calls), SUM(usd) FROM spend GROUP BY day, model ORDER BY day DESC, model"
        return [Day(*row) for row in self._db.execute(query)]

    def close(self) -> None:
        self._db.close()


def today() -> str:
    return datetime.now(UTC).date().isoformat()
