"""The seeded writer of exemplars: athletes with a history and a plan, what they say, and the policy's answer.

A row is drawn from its own seed, so that the first rows of a longer list are those of a shorter one. An answer that the
safety rules would refuse is drawn again: every exemplar is a change that may be applied.
"""

import random
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field

from potstill import config
from potstill.config import Config
from potstill.workloads import coach_policy, coach_rules
from potstill.workloads.coach_athletes import draw_state
from potstill.workloads.coach_load import Rules
from potstill.workloads.coach_policy import Said, Topic, WeekWish, Wish
from potstill.workloads.coach_prompt import FULL, modify_prompt, talk_prompt, week_prompt
from potstill.workloads.coach_state import DAYS, Day, State, name

# how often each is wished, in parts
WISHES: dict[Wish, int] = {"fatigue": 6, "injury": 3, "illness": 3, "more": 5, "fine": 4}
WISHES |= {"away": 5, "short": 4, "move": 4, "swap": 3, "past": 1}


class Family(Config):
    """How one kind of athlete writes. Every frame is the family's own."""

    case: Literal["plain", "lower"]
    join: str
    open: list[str]
    close: list[str]
    aside: list[str]
    state: list[str]
    about: list[str]
    away: list[str]
    short: list[str]
    move: list[str]
    swap: list[str]
    past: list[str]
    long: list[str]
    ask: list[str]


class Phrases(Config):
    """data/samples/coach/phrases.yaml"""

    lexicon: dict[str, list[str]]
    families: dict[str, Family] = Field(min_length=1)


class Row(NamedTuple):
    """One exemplar before it is written: `meant` is what the message means."""

    task: str
    prompt: str
    answer: Any
    family: str
    state: State
    message: str
    meant: Any


def load(path: Path) -> Phrases:
    """Raises Stop 2 that names the file, the key and the rule."""
    return config.load(path, Phrases)


def write(book: Phrases, task: str, family: str, rules: Rules, rng: random.Random) -> Row:
    """One row of a task in the words of a family."""
    writers = {"plan_modification": _modification, "weekly_plan": _week, "conversation": _talk}
    while True:
        state = draw_state(rules, rng)
        row = writers[task](book, family, state, rules, rng)
        if row is not None:
            return row


def _modification(book: Phrases, family: str, state: State, rules: Rules, rng: random.Random) -> Row | None:
    said = _said(state, rules, rng)
    if said is None:
        return None
    answer = coach_policy.modify(state, said, rules)
    if coach_rules.propose(state, [answer], rules).reasons:
        return None
    message = say(book, family, state, said, rng)
    return Row("plan_modification", modify_prompt(state, rules, message), answer, family, state, message, said)


def _week(book: Phrases, family: str, state: State, rules: Rules, rng: random.Random) -> Row | None:
    athlete = state.athlete
    free = [day for day in DAYS if day not in athlete.off]
    off = tuple(rng.sample(free, 1)) if rng.random() < 0.5 else ()
    rest = [day for day in free if day not in off]
    long = rng.choice(rest) if rng.random() < 0.4 else None
    plain = [day for day in rest if day not in (long, athlete.long)]
    short = (rng.choice(plain), 5 * rng.randint(3, 5)) if rng.random() < 0.3 and plain else None
    how = rng.choice(["fatigue", "injury", "illness"]) if rng.random() < 0.25 else None
    wish = WeekWish(off, long, short, how is not None)
    voice = _Voice(book, family, None, rng)
    clauses = [voice.clause("away", day) for day in off]
    clauses += [voice.clause("long", long)] if long else []
    clauses += [voice.clause("short", short[0], minutes=short[1])] if short else []
    clauses += [voice.feeling(how)] if how else []
    rng.shuffle(clauses)
    if not clauses or rng.random() < 0.4:
        clauses.insert(0, voice.question("week"))
    message = voice.message(clauses)
    answer = coach_policy.week(state, wish, rules)
    if coach_rules.propose_week(state, answer, rules).reasons:
        return None
    return Row("weekly_plan", week_prompt(state, rules, message), answer, family, state, message, wish)


def _talk(book: Phrases, family: str, state: State, rules: Rules, rng: random.Random) -> Row:
    topic: Topic = rng.choice(get_args(Topic))
    voice = _Voice(book, family, state, rng)
    told = topic in ("fatigue", "injury", "illness", "thanks")
    message = voice.message([voice.feeling(topic) if told else voice.question(topic)])
    answer = coach_policy.talk(state, topic, rules)
    return Row("conversation", talk_prompt(state, rules, message), answer, family, state, message, topic)


# --- what they say


def _said(state: State, rules: Rules, rng: random.Random) -> Said | None:
    """A wish and the days it names; None where the state has no room for it."""
    wish: Wish = rng.choices(list(WISHES), list(WISHES.values()))[0]
    busy = [name(day) for day in state.ahead() if state.on(day)]
    empty = [name(day) for day in state.ahead() if not state.on(day)]
    if wish in ("fine", "past", "more"):
        return Said(wish)
    if wish in ("fatigue", "injury", "illness"):
        days = [name(i.day) for i in state.plan if i.session.level == "hard" and i.day in state.ahead()]
        days = days if wish == "fatigue" else busy
        return Said(wish, rng.choice(days) if days and rng.random() < 0.4 else None)
    if not busy:
        return None
    day = rng.choice(busy if rng.random() < 0.95 or not empty else empty)
    if wish == "short":
        return Said(wish, day, minutes=5 * rng.randint(3, 8))
    others = [other for other in (busy if wish == "swap" else empty) if other != day]
    if wish == "move" and rng.random() < 0.75:
        item = next(iter(state.on(state.date_of(day))), None)
        others = [name(free) for free in coach_rules.free_days(state, item, rules)] if item else others
    if wish in ("swap", "move"):
        return Said(wish, day, rng.choice(others)) if others else None
    return Said(wish, day)


def say(book: Phrases, family: str, state: State, said: Said, rng: random.Random) -> str:
    """A message of the family that means `said`."""
    voice = _Voice(book, family, state, rng)
    if said.wish in ("fatigue", "injury", "illness", "more", "fine"):
        clauses = [voice.feeling(said.wish)]
        clauses += [voice.clause("about", said.day)] if said.day else []
        return voice.message(clauses)
    return voice.message([voice.clause(said.wish, said.day, said.to, said.minutes)])


class _Voice:
    """A family's way to say things. With a `state`, days may be called today and tomorrow."""

    def __init__(self, book: Phrases, family: str, state: State | None, rng: random.Random):
        self.book, self.family, self.state, self.rng = book, book.families[family], state, rng

    def feeling(self, kind: str) -> str:
        return self._fill(self.rng.choice(self.family.state), p=self._phrase(kind))

    def question(self, kind: str) -> str:
        return self._fill(self.rng.choice(self.family.ask), p=self._phrase(kind)) + "?"

    def clause(self, kind: str, day: Day | None = None, to: Day | None = None, minutes: int | None = None) -> str:
        frame = self.rng.choice(getattr(self.family, kind))
        phrase = self._phrase(kind) if "{p}" in frame else ""
        return self._fill(frame, phrase, day, to, minutes)

    def message(self, clauses: list[str]) -> str:
        parts = list(clauses)
        if self.rng.random() < 0.4:
            parts.insert(self.rng.randint(0, len(parts)), self.rng.choice(self.family.aside))
        if self.rng.random() < 0.5:
            parts.insert(0, self.rng.choice(self.family.open))
        if self.rng.random() < 0.4:
            parts.append(self.rng.choice(self.family.close))
        if self.family.case == "plain":
            # after a full stop a part begins anew
            again = self.family.join[:1] in ".!"
            parts = [part[:1].upper() + part[1:] if again or not n else part for n, part in enumerate(parts)]
        # a question mark ends its part
        text = self.family.join.join(parts).replace("?.", "?").replace("?!", "?")
        return text.lower() if self.family.case == "lower" else text

    def _phrase(self, kind: str) -> str:
        return self.rng.choice(self.book.lexicon[kind])

    def _fill(
        self, frame: str, p: str = "", day: Day | None = None, to: Day | None = None, minutes: int | None = None
    ) -> str:
        words = {"p": p, "n": str(minutes)}
        if day:
            near = self._near(day)
            bare = self.rng.choice([FULL[day], FULL[day], day])
            bare = near if near and self.rng.random() < 0.6 else bare
            words |= {"d": bare, "on": bare if bare == near else f"on {bare}"}
        if to:
            words["e"] = self.rng.choice([FULL[to], FULL[to], to])
        for key, word in words.items():
            frame = frame.replace(f"{{{key}}}", word)
        return frame

    def _near(self, day: Day) -> str | None:
        if self.state is None:
            return None
        offset = (DAYS.index(day) - self.state.today.weekday()) % 7
        return {0: "today", 1: "tomorrow"}.get(offset)
