"""Writes a match as Cricsheet's YAML 0.7 did: over.ball keys, `batsman`, no players, targets or powerplays."""

import json
import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z][A-Za-z '()./-]*[A-Za-z)]")
NOT_IN_YAML = ("players", "event", "season", "team_type")
_RESERVED = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def as_yaml(match: dict[str, Any]) -> str:
    """The YAML of a match given as Cricsheet's JSON has it; what YAML 0.7 has no place for is left out."""
    info = {
        key: value for key, value in match["info"].items() if key not in ("players", "event", "season", "team_type")
    }
    data = {"meta": {**match["meta"], "data_version": "0.7"}, "info": info, "innings": _innings(match["innings"])}
    return "---\n" + "".join(_lines(data, 0))


def _innings(innings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    titles = iter(("1st innings", "2nd innings", "3rd innings", "4th innings"))
    found: list[dict[str, Any]] = []
    overs = 0
    for body in innings:
        overs += "super_over" in body
        title = f"Super Over {overs}" if "super_over" in body else next(titles)
        kept = {key: body[key] for key in ("team", "absent_hurt", "declared", "penalty_runs") if key in body}
        balls = [
            {f"{over['over']}.{number}": _ball(ball)}
            for over in body["overs"]
            for number, ball in enumerate(over["deliveries"], 1)
        ]
        found.append({title: {**kept, "deliveries": balls}})
    return found


def _ball(ball: dict[str, Any]) -> dict[str, Any]:
    runs = {"batsman" if key == "batter" else key: value for key, value in ball["runs"].items()}
    found = {"batsman" if key == "batter" else key: value for key, value in ball.items() if key != "wickets"}
    found["runs"] = {key: int(value) for key, value in runs.items()}
    wickets = [_wicket(wicket) for wicket in ball.get("wickets", [])]
    return found | ({"wicket": wickets[0] if len(wickets) == 1 else wickets} if wickets else {})


def _wicket(wicket: dict[str, Any]) -> dict[str, Any]:
    names = [
        f"{fielder.get('name', '')}{' (sub)' if fielder.get('substitute') else ''}".strip()
        for fielder in wicket.get("fielders", [])
    ]
    return {**({"fielders": names} if names else {}), "kind": wicket["kind"], "player_out": wicket["player_out"]}


def _lines(value: Any, depth: int) -> list[str]:
    """Block YAML of nested dicts and lists, two spaces a level."""
    pad, found = "  " * depth, []
    entries = value.items() if isinstance(value, dict) else (("-", item) for item in value)
    for key, item in entries:
        head = f"{pad}{key}" if key == "-" else f"{pad}{key}:"
        if isinstance(item, dict | list) and item:
            nested = _lines(item, depth + 1)
            if key == "-" and isinstance(item, dict):
                # a mapping begins on the line of its dash
                nested[0] = f"{pad}- {nested[0].lstrip()}"
                found += nested
            else:
                found += [head + "\n", *nested]
        else:
            found.append(f"{head} {_scalar(item)}\n")
    return found


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)
