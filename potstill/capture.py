"""Captures a program's own strong-model calls as exemplars: two lines in a program that uses LiteLLM.

    from potstill import capture
    litellm.callbacks.append(capture.callback("parse", database="data/raw/dataset.duckdb"))

A call is first written to a spool beside the database, which any number of processes and threads may do at once, and
moved into the table by `flush`: every `merge_every` calls, at exit, or when somebody calls it. See docs/capture.md.
"""

import atexit
import logging
import os
import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from potstill import capture_calls, capture_merge, capture_spool, project
from potstill.capture_calls import REASONS, SILENT, Call, Skipped
from potstill.capture_merge import Flushed
from potstill.files import canonical_json, sha256_text
from potstill.records import Exemplar, explain
from potstill.stop import Stop

MERGE_EVERY = 500
# what makes a call another one, beside its own id
TEXTS = ("task", "system_prompt", "prompt_text", "response_strong")
log = logging.getLogger(__name__)


class _State:
    """Of this process; a forked child begins with its own."""

    def __init__(self) -> None:
        # re-entrant: a signal may come, and call a model, in the middle of a count
        self.lock = threading.RLock()
        self.counts: Counter[str] = Counter()
        self.since_merge: Counter[Path] = Counter()
        self.merging: set[Path] = set()
        self.at_exit: set[Path] = set()


_state = _State()


def _renew() -> None:
    # a lock that another thread of the parent held would stay locked for ever
    global _state
    _state = _State()


os.register_at_fork(after_in_child=_renew)


def record(
    task: str,
    prompt: str | Sequence[Any],
    response: str,
    *,
    system: str | None = None,
    database: Path | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    slot_specs: Mapping[str, Any] | None = None,
    call_id: str = "",
    fsync: bool = False,
    merge_every: int = MERGE_EVERY,
) -> str | None:
    """Captures one call; returns its id, or None when it is no exemplar. Never raises: `counts` and the log say why.

    `prompt` is text, or chat messages of one turn. When this returns an id, the call outlives this process; with
    `fsync`, the machine. `call_id` names the call where it could be reported twice. `merge_every` is the number of
    calls after which a thread of this process moves the spool into the table; 0 leaves that to others.
    """
    try:
        path = _database(database)
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if not isinstance(response, str) or not response.strip():
            raise Skipped("empty_answer")
        call = Call(call_id, task, messages, response, system, slot_specs, dict(metadata or {}))
        return _keep(call, path, True, fsync, merge_every)
    except Exception as error:
        _skip(error)
        return None


def callback(
    task: str | None = None,
    *,
    database: Path | str | None = None,
    system: bool = True,
    fsync: bool = False,
    merge_every: int = MERGE_EVERY,
) -> Any:
    """A callback for `litellm.callbacks`: captures every finished chat completion, sync or async, streamed or not.

    A call's own `metadata={"potstill": {"task": ..., "group": ..., ...}}` goes before `task`; without either, the call
    is left alone. `system=False` leaves the system text out, so that the workload's own is trained on. `fsync` and
    `merge_every` are those of `record`. Raises Stop 2 when no database is named outside a Potstill project.
    """
    path = _database(database)

    def keep(event: Mapping[str, Any], response: Any) -> None:
        try:
            _keep(capture_calls.of_event(event, response, task), path, system, fsync, merge_every)
        except Exception as error:
            _skip(error)

    def failed(event: Mapping[str, Any]) -> None:
        try:
            capture_calls.marks_of(event, task)
            raise Skipped("failed_call")
        except Exception as error:
            _skip(error)

    return capture_calls.logger(keep, failed, in_thread=fsync)


def counts() -> dict[str, int]:
    """What this process saw: `captured`, the calls that are no exemplars by reason (REASONS), `not_merged` attempts."""
    with _state.lock:
        return dict(_state.counts)


def flush(database: Path | str | None = None, *, wait: bool = True) -> Flushed:
    """Moves the spool into the table, in one transaction. Killed at any instant: nothing is lost, nothing there twice.

    Raises Stop, and leaves the spool as it is, when the table cannot be written: 75 while another program has the
    database open (or, without `wait`, while another process merges), 65 or 74 when the database is at fault.
    """
    return capture_merge.merge(_database(database), wait)


def _keep(call: Call, path: Path, keep_system: bool, fsync: bool, merge_every: int) -> str:
    system, prompt = capture_calls.turn(call.messages)
    specs = call.slot_specs
    row = capture_calls.plain(
        {
            "task": call.task,
            "prompt_text": prompt,
            "response_strong": capture_calls.column(call.response),
            "metadata": {"captured_at": _now(), **call.metadata},
            "slot_specs": specs and {name: getattr(spec, "__dict__", spec) for name, spec in specs.items()},
            "system_prompt": call.system if call.system is not None else system if keep_system else None,
        }
    )
    # an event that is told twice is one row; two calls are two rows, however alike: dataset.clean sees duplicates
    texts = [call.id or uuid.uuid4().hex, *(row[name] for name in TEXTS)]
    exemplar = Exemplar.model_validate({"id": f"call-{sha256_text(canonical_json(texts))[:32]}", **row})
    try:
        capture_spool.append(capture_spool.folder_of(path), exemplar, fsync=fsync)
    except OSError:
        raise Skipped("not_written") from None
    _count("captured")
    if merge_every > 0:
        _merge_sometimes(path, merge_every)
    return exemplar.id


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _database(given: Path | str | None) -> Path:
    if given is None and not (project.CONFIGS / "project.yaml").is_file():
        raise Stop(f"{REASONS['no_database']}: name one, as in database='data/raw/dataset.duckdb'")
    # a program may change its working folder later
    return Path(project.database() if given is None else given).absolute()


def _count(reason: str) -> bool:
    """Counts, and says whether this is the first of its kind."""
    with _state.lock:
        _state.counts[reason] += 1
        first = _state.counts[reason] == 1
    return first


def _skip(error: Exception) -> None:
    """Counts a call that is not captured, and tells of the first of each kind; never of what is in it."""
    reason, told = "malformed", f"{REASONS['malformed']} ({type(error).__name__})"
    if isinstance(error, Skipped):
        reason, told = error.reason, REASONS[error.reason]
    elif isinstance(error, Stop):
        reason, told = "no_database", str(error)
    elif isinstance(error, ValidationError):
        told = explain(error)
    if _count(reason) and reason not in SILENT:
        log.warning("not captured: %s (%s). Further ones are only counted: potstill.capture.counts()", told, reason)


def _merge_sometimes(path: Path, every: int) -> None:
    """Has a thread move the spool into the table when it is time; the caller waits for nothing."""
    with _state.lock:
        new = path not in _state.at_exit
        _state.at_exit.add(path)
        _state.since_merge[path] += 1
        due = _state.since_merge[path] >= every and path not in _state.merging
        if due:
            _state.since_merge[path] = 0
            _state.merging.add(path)
    if new:
        atexit.register(_merge_quietly, path)
    if due:
        try:
            threading.Thread(target=_merge_quietly, args=(path,), name="potstill-capture").start()
        except RuntimeError:  # at its end an interpreter starts no threads; the exit handler merges
            _state.merging.discard(path)


def _merge_quietly(path: Path) -> None:
    """Moves the spool into the table, if that can be done now; else somebody else will."""
    try:
        capture_merge.merge(path, wait=False)
    except Exception as error:
        told = str(error) if isinstance(error, Stop) else type(error).__name__
        # another process that merges at this moment is as good
        if not isinstance(error, capture_merge.Merging) and _count("not_merged"):
            log.warning("captured calls wait in %s: %s", capture_spool.folder_of(path), told)
    finally:
        _state.merging.discard(path)
