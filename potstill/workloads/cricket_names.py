"""Who a name in a line of commentary is, and what the words beside it say the player did: "from Rao", "Rao drives"."""

import functools
import re
from collections import Counter
from typing import NamedTuple


class Mention(NamedTuple):
    """A name in a line and the roles that the words beside it give it; `player` is None for a name of nobody there."""

    player: str | None
    roles: frozenset[str]


# the words beside a name, the most telling role first
BEFORE = {
    "fielder": r"(?:(?:caught|taken|held|stumped|run out|thrown|catch|throw) by|throw from|hands of|\bc|\bst) $",
    "out": r"\b(?:removes|dismisses|traps|castles|catches|runs out|stumps|goodbye to|wicket of|accounts for) $",
    "bowler": r"\b(?:from|off|against|facing|comes|(?:bowled|trapped|beaten|undone) by|b) $",
    "batter": r"\b(?:to|past|beats|pins|for) $",
}
AFTER = {
    "fielder": r" (?:holds|pouches|clings|swoops|catches|stumps|throws|whips off|takes (?:the|it|a))\b"
    r"|['’]s (?:hands|throw|catch|gloves|arm)\b",
    "out": r" (?:departs|goes|walks|falls|perishes|retires|trudges|has to go|is (?:gone|out|bowled|caught|lbw|stumped"
    r"|run out)|lbw|c|st|run out)\b",
    "bowler": r" (?:to|removes|dismisses|traps|castles|strikes|oversteps|strays|sprays|drifts|loses|lands|bowls|beats"
    r"|pins|charges|keeps it (?!down)|misses the)\b|['’]s (?:over|line|length|delivery|spell|pace|radar)\b",
    "batter": r" (?:defends|blocks|keeps it down|pushes|offers|lets|leaves|works|nudges|clips|turns|steers|guides|tucks"
    r"|drives|cuts|pulls|punches|flicks|sweeps|whips it|slaps|glances|lofts|launches|heaves|swings|hoists|clears|hits"
    r"|plays|misses|sets off|runs|gets away|edges|taps|dabs|smashes|swipes)\b"
    r"|['’]s (?:bat|stroke|shot|timing|wrists|pads)\b",
}
_BEFORE = {role: re.compile(cue, re.IGNORECASE) for role, cue in BEFORE.items()}
_AFTER = {role: re.compile(cue) for role, cue in AFTER.items()}
# a capitalised word that does not begin a sentence
_NAME = re.compile(r"(?<=[\w,;] )[A-Z][a-z’'-]+[\w’'-]*")


@functools.lru_cache(4096)
def called(name: str) -> str:
    """The surname a commentator uses: "AB Tarvane" -> "Tarvane", "C van der Mure" -> "van der Mure"."""
    words = re.sub(r"\s*\(\d+\)$", "", name).split()
    while len(words) > 1 and words[0].replace(".", "").isupper() and len(words[0]) <= 5:
        words = words[1:]
    start = len(words) - 1
    while start > 0 and words[start - 1].islower():
        start -= 1
    return " ".join(words[start:])


@functools.lru_cache(1024)
def written(players: frozenset[str]) -> tuple[dict[str, str], re.Pattern[str]]:
    """How players may be written -> the player: by the whole name, and by the surname where only one has it."""
    surnames = Counter(map(called, players))
    found = {}
    for player in sorted(players):
        forms = [player] + ([called(player)] if surnames[called(player)] == 1 else [])
        # "van der Mure" begins a sentence as "Van der Mure"
        found.update({form: player for base in forms for form in (base, base[0].upper() + base[1:])})
    longest = sorted(found, key=lambda form: (-len(form), form))
    return found, re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])")


@functools.lru_cache(256)
def mentions(line: str, players: frozenset[str]) -> tuple[Mention, ...]:
    """Every name in the line: those of the ball's players, and capitalised words that are nobody's name."""
    names, pattern = written(players)
    spans = [(match.start(), match.end(), names[match[0]]) for match in pattern.finditer(line)]
    for match in _NAME.finditer(line):
        if not any(start <= match.start() < end for start, end, _ in spans):
            spans.append((match.start(), match.end(), ""))
    found = []
    for start, end, player in spans:
        before = next((role for role, cue in _BEFORE.items() if cue.search(line, max(0, start - 20), start)), None)
        after = next((role for role, cue in _AFTER.items() if cue.match(line, end)), None)
        found.append(Mention(player or None, frozenset(role for role in (before, after) if role)))
    return tuple(found)
