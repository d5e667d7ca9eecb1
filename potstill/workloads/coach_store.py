"""The athletes' DuckDB: build_context turns an athlete's records into a prompt, and apply changes the plan.

    coach_store.create(db)
    prompt = coach_store.build_context(db, "a1", date.today(), "My knee hurts.")
    outcome = coach_store.apply(db, "a1", date.today(), answer)      # Applied, or Refused with every reason

The model's answer is hostile input: it is checked against the schema and the safety rules, and all of it is written in
one transaction, or none of it.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from potstill import answers, database
from potstill.files import canonical_json
from potstill.records import explain
from potstill.stop import BUSY, DATA, Stop
from potstill.workloads import coach_rules
from potstill.workloads.coach_load import Rules, load_of, load_rules, rules_path
from potstill.workloads.coach_prompt import modify_prompt, talk_prompt, week_prompt
from potstill.workloads.coach_rules import Reason
from potstill.workloads.coach_state import (
    HORIZON,
    Athlete,
    DayPlan,
    Modification,
    Planned,
    State,
    Week,
    Workout,
)

Task = Literal["plan_modification", "weekly_plan", "conversation"]
PROMPTS = {"plan_modification": modify_prompt, "weekly_plan": week_prompt, "conversation": talk_prompt}
TABLES = (
    # days are written as in "Mon Fri"; version counts the changes of the plan
    """CREATE TABLE IF NOT EXISTS athletes(
        id TEXT PRIMARY KEY, goal TEXT NOT NULL, off_days TEXT NOT NULL, hard_days TEXT NOT NULL,
        long_day TEXT NOT NULL, rest_days INTEGER NOT NULL, max_min INTEGER NOT NULL, ctl DOUBLE NOT NULL,
        atl DOUBLE NOT NULL, since DATE NOT NULL, version BIGINT NOT NULL DEFAULT 0)""",
    # a load that was not measured is NULL: it is then worked out of minutes and level
    """CREATE TABLE IF NOT EXISTS workouts(
        athlete TEXT NOT NULL, day DATE NOT NULL, type TEXT NOT NULL, min INTEGER NOT NULL, level TEXT NOT NULL,
        load DOUBLE)""",
    """CREATE TABLE IF NOT EXISTS plan(
        athlete TEXT NOT NULL, id INTEGER NOT NULL, day DATE NOT NULL, type TEXT NOT NULL, min INTEGER NOT NULL,
        level TEXT NOT NULL, done BOOLEAN NOT NULL DEFAULT FALSE, PRIMARY KEY (athlete, id))""",
)
# more than this at once is no coaching decision
MAX_CHANGES = 7
MAX_ANSWER = 20_000
# recorded days that the prompt and the rules look back on; fitness reads all
BACK = HORIZON


class Changed(NamedTuple):
    """A row of the plan before and after; None where it was not, or is no longer."""

    before: Planned | None
    after: Planned | None


class Applied(NamedTuple):
    """The plan is changed; by nothing when the coach said to keep it."""

    changes: tuple[Changed, ...]


class Refused(NamedTuple):
    """The plan is as it was. Every rule that was broken is among the reasons."""

    reasons: tuple[Reason, ...]


def create(db: Path) -> None:
    """Makes the tables where they are not there yet."""
    connection = database.connect(db, read_only=False)
    try:
        for table in TABLES:
            connection.execute(table)
    finally:
        connection.close()


def put(db: Path, state: State) -> None:
    """Writes an athlete with records and plan, all or nothing; an athlete of that id is replaced."""
    athlete = state.athlete
    connection = database.connect(db, read_only=False)
    try:
        connection.execute("BEGIN")
        for table, key in (("plan", "athlete"), ("workouts", "athlete")):
            connection.execute(f"DELETE FROM {table} WHERE {key} = ?", [athlete.id])  # noqa: S608 - our own names
        habits = [" ".join(days) for days in (athlete.off, athlete.hard)]
        numbers = [athlete.rest_days, athlete.max_min, athlete.ctl, athlete.atl, athlete.since]
        connection.execute(
            "INSERT OR REPLACE INTO athletes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            [athlete.id, athlete.goal, *habits, athlete.long, *numbers],
        )
        for workout in state.past:
            values = [athlete.id, workout.day, *workout.session, workout.load]
            connection.execute("INSERT INTO workouts VALUES (?, ?, ?, ?, ?, ?)", values)
        for item in state.plan:
            _insert(connection, athlete.id, item)
        connection.execute("COMMIT")
    finally:
        connection.close()


def build_context(
    db: Path, athlete: str, today: date, message: str = "", task: Task = "plan_modification", rules: Rules | None = None
) -> str:
    """The prompt for an athlete's message. Raises Stop 65 when there is no such athlete or a record makes no sense."""
    rules = rules or load_rules(rules_path())
    connection = database.connect(db, read_only=True)
    try:
        state = _read(connection, db, athlete, today, rules)
    finally:
        connection.close()
    if state is None:
        raise Stop(f"{db} has no athlete {athlete!r}. Add a row to the table athletes.", DATA)
    return PROMPTS[task](state, rules, message)


def apply(db: Path, athlete: str, today: date, modification: Any, rules: Rules | None = None) -> Applied | Refused:
    """Changes the plan as the answer of plan_modification says, or not at all.

    `modification` is the answer as JSON text, an object of it, or a list of up to seven, which count as one change.
    Raises Stop 65 when the database makes no sense and Stop 75 when another program changes it just now.
    """
    rules = rules or load_rules(rules_path())
    changes = _parsed(modification)
    if isinstance(changes, Refused):
        return changes
    return _transact(db, athlete, today, rules, lambda state: coach_rules.propose(state, changes, rules))


def apply_week(db: Path, athlete: str, today: date, week: Any, rules: Rules | None = None) -> Applied | Refused:
    """Replaces the plan of the week from the Monday after `today` by the answer of weekly_plan, or not at all."""
    rules = rules or load_rules(rules_path())
    try:
        wanted = week if isinstance(week, Week) else Week.model_validate_json(_text(week))
    except ValueError as error:
        return Refused((_schema_reason(error),))
    return _transact(db, athlete, today, rules, lambda state: coach_rules.propose_week(state, wanted, rules))


def _transact(db: Path, athlete: str, today: date, rules: Rules, proposal: Any) -> Applied | Refused:
    """Reads, checks and writes in one transaction; what is not committed when the connection closes is undone."""
    import duckdb

    if not Path(db).is_file():
        raise Stop(f"{db} is not there. Make it with coach_store.create.", DATA)
    connection = database.connect(db, read_only=False)
    try:
        connection.execute("BEGIN")
        # two writers of one athlete collide here, so that neither checks a plan that the other is changing
        connection.execute("UPDATE athletes SET version = version + 1 WHERE id = ?", [athlete])
        state = _read(connection, db, athlete, today, rules)
        if state is None:
            return Refused((Reason("no_such_athlete", "the table athletes has no such id"),))
        after, reasons = proposal(state)
        if reasons:
            return Refused(reasons)
        changes = _changes(state, after)
        for change in changes:
            write_change(connection, athlete, change)
        connection.execute("COMMIT")
        return Applied(changes)
    except duckdb.TransactionException:
        raise Stop(f"{db}: the plan is being changed by another program. Run this again.", BUSY) from None
    finally:
        connection.close()


def write_change(connection: Any, athlete: str, change: Changed) -> None:
    """One row of the plan, inside the caller's transaction."""
    if change.after is None:
        assert change.before is not None
        connection.execute("DELETE FROM plan WHERE athlete = ? AND id = ?", [athlete, change.before.id])
    elif change.before is None:
        _insert(connection, athlete, change.after)
    else:
        values = [change.after.day, *change.after.session, athlete, change.after.id]
        connection.execute("UPDATE plan SET day = ?, type = ?, min = ?, level = ? WHERE athlete = ? AND id = ?", values)


def _insert(connection: Any, athlete: str, item: Planned) -> None:
    connection.execute(
        "INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?, ?)", [athlete, item.id, item.day, *item.session, item.done]
    )


def _changes(before: State, after: State) -> tuple[Changed, ...]:
    old, new = ({item.id: item for item in state.plan} for state in (before, after))
    changed = [Changed(old.get(key), new.get(key)) for key in [*old, *(key for key in new if key not in old)]]
    number = max(old, default=0)
    found = []
    for change in changed:
        if change.before is None and change.after is not None:
            number += 1
            change = change._replace(after=change.after._replace(id=number))
        found += [change] if change.before != change.after else []
    return tuple(found)


def _parsed(modification: Any) -> tuple[Modification, ...] | Refused:
    if isinstance(modification, str):
        if len(modification) > MAX_ANSWER or not (answer := answers.parse(modification)).valid_json:
            return Refused((Reason("schema", "the answer is not one JSON value"),))
        modification = answer.parsed
    items = modification if isinstance(modification, list | tuple) else [modification]
    if not 0 < len(items) <= MAX_CHANGES:
        return Refused((Reason("schema", f"{len(items)} changes, want 1 to {MAX_CHANGES}"),))
    changes, reasons = [], []
    for item in items:
        try:
            changes.append(Modification.model_validate_json(_text(item)))
        except ValueError as error:
            reasons.append(_schema_reason(error))
    return Refused(tuple(reasons)) if reasons else tuple(changes)


def _text(item: Any) -> str:
    """An answer as JSON text. Raises ValueError for what is no JSON."""
    if isinstance(item, Modification | Week):
        return item.model_dump_json()
    try:
        text = item if isinstance(item, str) else canonical_json(item)
    except (TypeError, RecursionError):
        raise ValueError("no JSON value") from None
    if len(text) > MAX_ANSWER:
        raise ValueError("too long for an answer")
    return text


def _schema_reason(error: ValueError) -> Reason:
    return Reason("schema", explain(error) if isinstance(error, ValidationError) else str(error).splitlines()[0])


def _read(connection: Any, db: Path, athlete: str, today: date, rules: Rules) -> State | None:
    found = connection.execute(
        "SELECT goal, off_days, hard_days, long_day, rest_days, max_min, ctl, atl, since FROM athletes WHERE id = ?",
        [athlete],
    ).fetchone()
    if found is None:
        return None
    goal, off, hard, *rest = found
    keys = ("long", "rest_days", "max_min", "ctl", "atl", "since")
    habits = {"id": athlete, "goal": goal, "off": off.split(), "hard": hard.split()}
    try:
        person = Athlete.model_validate({**habits, **dict(zip(keys, rest, strict=True))})
    except ValidationError as error:
        raise Stop(f"{db}: table athletes, id {athlete!r}: {explain(error)}. Mend the row.", DATA) from None
    past = connection.execute(
        "SELECT day, type, min, level, load FROM workouts WHERE athlete = ? AND day >= ? AND day <= ? ORDER BY day",
        [athlete, person.since, today],
    ).fetchall()
    plan = connection.execute(
        "SELECT id, day, type, min, level, done FROM plan WHERE athlete = ? AND day >= ? ORDER BY day, id",
        [athlete, today - timedelta(BACK)],
    ).fetchall()
    workouts = [_workout(row, rules) for row in past]
    return State(person, today, tuple(workouts), tuple(_planned(row) for row in plan))


def _workout(row: Sequence[Any], rules: Rules) -> Workout:
    day, type, minutes, level, load = row
    return Workout(day, DayPlan(type, minutes, level), load_of(minutes, level, rules) if load is None else load)


def _planned(row: Sequence[Any]) -> Planned:
    id, day, type, minutes, level, done = row
    return Planned(id, day, DayPlan(type, minutes, level), done)
