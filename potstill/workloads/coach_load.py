"""Training load: what a workout weighs, fitness (CTL), fatigue (ATL), form (TSB), and the safety limits of rules.yaml.

CTL and ATL are exponentially weighted means of the daily load with time constants of 42 and 7 days (the model of
Banister et al. 1975, as Coggan's performance manager uses it):
    CTL(day) = CTL(day - 1) + (load(day) - CTL(day - 1)) * (1 - exp(-1 / 42))
Form is what the athlete wakes up with: TSB(today) = CTL(yesterday) - ATL(yesterday).
"""

import functools
import math
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from potstill import config, project
from potstill.config import Config

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Band = Literal["fresh", "ok", "tired", "spent"]
LoadBand = Literal["under", "near", "over"]


class Factors(Config):
    easy: Positive
    moderate: Positive
    hard: Positive


class Load(Config):
    ctl_days: Positive
    atl_days: Positive
    intensity_factor: Factors
    week_over_chronic: Positive
    week_floor: Positive
    near: Annotated[float, Field(gt=0, le=1)]


class Form(Config):
    """The least TSB of each band; below `tired` an athlete is spent."""

    fresh: float
    ok: float
    tired: float

    @model_validator(mode="after")
    def _falls(self) -> "Form":
        if not self.fresh > self.ok > self.tired:
            raise ValueError("want fresh > ok > tired")
        return self


class Minutes(Config):
    least: Annotated[int, Field(gt=0)]
    most: Annotated[int, Field(gt=0, le=1440)]


class Rules(Config):
    """data/samples/coach/rules.yaml"""

    load: Load
    form: Form
    rest_days: Annotated[int, Field(ge=0, le=7)]
    hard_in_a_row: Annotated[int, Field(ge=1, le=7)]
    minutes: Minutes
    lengthen_most: Annotated[int, Field(gt=0)]


class Fitness(NamedTuple):
    """Loads per day. `tsb` is the form with which the day begins."""

    ctl: float
    atl: float

    @property
    def tsb(self) -> float:
        return self.ctl - self.atl


def rules_path() -> Path:
    return project.SAMPLES / "coach" / "rules.yaml"


@functools.lru_cache(8)
def load_rules(path: Path) -> Rules:
    """Raises Stop 2 that names the file, the key and the rule."""
    return config.load(path, Rules)


def load_of(minutes: int, level: str, rules: Rules) -> float:
    """The load of a workout: hours x intensity factor squared x 100 (Coggan's training stress score)."""
    factor = getattr(rules.load.intensity_factor, level) if level != "none" else 0.0
    return minutes / 60 * factor**2 * 100


def fitness(loads: Mapping[date, float], since: date, start: Fitness, today: date, rules: Rules) -> Fitness:
    """Fitness on the morning of `today`: `start` on the morning of `since`, then every day's load; a gap is a 0."""
    gain = [1 - math.exp(-1 / days) for days in (rules.load.ctl_days, rules.load.atl_days)]
    ctl, atl = start
    for offset in range((today - since).days):
        load = loads.get(since + timedelta(offset), 0.0)
        ctl += (load - ctl) * gain[0]
        atl += (load - atl) * gain[1]
    return Fitness(ctl, atl)


def band(tsb: float, rules: Rules) -> Band:
    if tsb >= rules.form.fresh:
        return "fresh"
    if tsb >= rules.form.ok:
        return "ok"
    return "tired" if tsb >= rules.form.tired else "spent"


def week_limit(ctl: float, rules: Rules) -> float:
    """The most load that seven days in a row may hold."""
    return max(rules.load.week_floor, rules.load.week_over_chronic * 7 * ctl)


def load_band(week: float, limit: float, rules: Rules) -> LoadBand:
    if week > limit:
        return "over"
    return "near" if week >= rules.load.near * limit else "under"
