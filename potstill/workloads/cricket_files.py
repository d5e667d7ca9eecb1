"""Opens Cricsheet's files: JSON 1.0.0 and 1.1.0, YAML 0.3 to 0.92, as the same innings and numbered balls."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from potstill.stop import DATA, Stop

MAX_BYTES = 16 * 2**20
# a match needs ten
MAX_DEPTH = 20
_BALL = re.compile(r"(\d{1,4})\.(\d{1,3})")


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(info, the innings as JSON has them). Raises Stop 65 for what is no match."""
    return _match(_read(path), str(path))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise Stop(f"{path} is not there", DATA)
    if path.stat().st_size > MAX_BYTES:
        raise Stop(f"{path} has {path.stat().st_size} bytes; a match has at most {MAX_BYTES}. Leave it out.", DATA)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            # over numbers such as 13.10 are no decimals
            return json.loads(text, parse_float=str)
        return _load_yaml(text)
    except UnicodeDecodeError as error:
        raise Stop(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.", DATA) from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Stop(f"{path}: no readable match: {reason}. Fetch the file again or leave it out.", DATA) from None


def _load_yaml(text: str) -> Any:
    """YAML with every scalar as text: as a number, ball 0.10 would be ball 0.1, and a player N would be false.

    Built from the parser's events, because the C loader of PyYAML crashes the process on deep nesting.
    """
    import yaml

    root: list[Any] = []
    # containers that are open, and for each mapping the key that waits for its value
    open_: list[Any] = [root]
    keys: list[Any] = [None]
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
            if isinstance(event, yaml.ScalarEvent):
                _put(open_, keys, event.value)
            elif isinstance(event, yaml.CollectionStartEvent):
                found: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                _put(open_, keys, found)
                open_.append(found)
                keys.append(None)
                if len(open_) > MAX_DEPTH:
                    raise ValueError(f"nested deeper than {MAX_DEPTH}")
            elif isinstance(event, yaml.CollectionEndEvent):
                open_.pop()
                keys.pop()
            elif isinstance(event, yaml.AliasEvent):
                raise ValueError("an alias, which no match has")
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    return root[0] if root else None


def _put(open_: list[Any], keys: list[Any], value: Any) -> None:
    """Adds a value to the innermost container; in a mapping a key comes first, then its value."""
    if isinstance(open_[-1], list):
        open_[-1].append(value)
    elif keys[-1] is None:
        if not isinstance(value, str):
            raise ValueError("a key that is no text")
        keys[-1] = value
    else:
        open_[-1][keys[-1]] = value
        keys[-1] = None


def _match(data: Any, where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(info, the innings as JSON has them). In YAML an innings is {"1st innings": {...}}."""
    if not isinstance(data, dict) or not isinstance(data.get("info"), dict):
        raise Stop(f"{where}: no Cricsheet match: want an object with meta, info and innings", DATA)
    innings = data.get("innings")
    if not isinstance(innings, list):
        raise Stop(f"{where}: innings is not a list. Fetch the file again or leave it out.", DATA)
    found = []
    for number, item in enumerate(innings, 1):
        titled = isinstance(item, dict) and len(item) == 1 and "team" not in item
        title, body = next(iter(item.items())) if titled else ("", item)
        if not isinstance(body, dict) or not isinstance(body.get("team"), str):
            raise Stop(f"{where} innings {number}: want an object with a team and its overs", DATA)
        found.append({**body, "super_over": True} if "super over" in str(title).lower() else body)
    return data["info"], found


def numbered(body: dict[str, Any], where: str) -> Iterator[tuple[int, int, Any]]:
    """(over, ball, the ball) from JSON's overs or YAML's {"0.1": ball}; overs go up, balls go up by one."""
    if "overs" not in body:
        yield from _keyed(body.get("deliveries") or [], where)
        return
    last = -1
    for item in body["overs"] if isinstance(body["overs"], list) else [None]:
        item = item if isinstance(item, dict) else {}
        number = item.get("over")
        if type(number) is not int or number <= last or not isinstance(item.get("deliveries"), list):
            raise Stop(f"{where} over {last + 1}: want this over or a later one, with a list of deliveries", DATA)
        last = number
        for ball, raw in enumerate(item["deliveries"], 1):
            yield number, ball, raw


def _keyed(items: Any, where: str) -> Iterator[tuple[int, int, Any]]:
    over, ball = 0, 0
    for item in items if isinstance(items, list) else [None]:
        key, raw = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else ("", None)
        number = _BALL.fullmatch(key)
        if number is None:
            stop_at(where, over, ball + 1, "want one ball under an over.ball key here or in the next over")
        next_over, next_ball = int(number[1]), int(number[2])
        if (next_over, next_ball) != (over, ball + 1) and not (next_over > over and next_ball == 1):
            stop_at(where, next_over, next_ball, f"does not follow over {over} ball {ball}")
        over, ball = next_over, next_ball
        yield over, ball, raw


def stop_at(where: str, over: int, ball: int, what: str) -> NoReturn:
    """Raises Stop 65 for a ball."""
    raise Stop(f"{where} over {over} ball {ball}: {what}. Fetch the file again, mend the ball or leave it out.", DATA)
