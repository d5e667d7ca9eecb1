"""What the coach works with: the three answers of the model, and an athlete on a day - records, plan, form."""

from datetime import date, timedelta
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, StringConstraints, model_validator

from potstill.records import Record
from potstill.workloads.coach_load import Fitness, Rules, fitness, load_of

Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAYS: tuple[Day, ...] = get_args(Day)
Type = Literal["rest", "recovery", "endurance", "long", "tempo", "threshold", "intervals"]
Level = Literal["none", "easy", "moderate", "hard"]
Action = Literal["none", "rest", "replace", "shorten", "lengthen", "move", "swap"]
Why = Literal[
    "on_track",
    "fatigue",
    "injury",
    "illness",
    "away",
    "time",
    "request",
    "progress",
    "ramp",
    "fresh",
    "fits",
    "unsafe",
    "empty",
    "past",
]
Goal = Literal["base", "build", "taper", "recover"]
FollowUp = Literal["modify_plan", "plan_week", "see_doctor"]
MAX_ID = 999_999_999
HORIZON = 7


class Modification(Record):
    """One change to the plan. `at` and `id` are the workout's; `day` where it goes; the rest is what it becomes.

    What was understood comes first, then which workout it is about, then what to do: each step follows from the last.
    """

    why: Why
    at: Day | None
    id: Annotated[int, Field(ge=1, le=MAX_ID)] | None
    action: Action
    day: Day | None
    type: Type | None
    min: Annotated[int, Field(ge=0, le=1440)] | None
    level: Level | None

    @model_validator(mode="after")
    def _fits_the_action(self) -> "Modification":
        session = (self.type, self.min, self.level)
        if self.action == "none":
            if (self.at, self.id, self.day, *session) != (None,) * 6:
                raise ValueError("action none changes nothing: want at, id, day, type, min and level null")
            return self
        if None in (self.at, self.id, *session):
            raise ValueError("want at, id, type, min and level for every action but none")
        if (self.day is not None) != (self.action in ("move", "swap")):
            raise ValueError("want a day for move and swap, and for no other action")
        is_rest = (self.type == "rest", self.min == 0, self.level == "none")
        if len(set(is_rest)) != 1 or is_rest[0] != (self.action == "rest"):
            raise ValueError("type rest, min 0 and level none belong together, and to the action rest")
        return self


class DayPlan(NamedTuple):
    """What a workout is. A rest day is ("rest", 0, "none")."""

    type: Type
    min: Annotated[int, Field(ge=0, le=1440)]
    level: Level


REST = DayPlan("rest", 0, "none")
# in an answer, as a list: ["endurance", 60, "easy"]
Triple = tuple[Type, Annotated[int, Field(ge=0, le=1440)], Level]


class Week(Record):
    """A weekly plan: what each day holds."""

    Mon: Triple
    Tue: Triple
    Wed: Triple
    Thu: Triple
    Fri: Triple
    Sat: Triple
    Sun: Triple

    @model_validator(mode="after")
    def _rest_is_rest(self) -> "Week":
        for day, (type, minutes, level) in self.days().items():
            if len({type == "rest", minutes == 0, level == "none"}) != 1:
                raise ValueError(f'{day}: a rest day is ["rest", 0, "none"], and no other day has any of these')
        return self

    def days(self) -> dict[Day, DayPlan]:
        return {day: DayPlan(*getattr(self, day)) for day in DAYS}


class Talk(Record):
    """A short answer, and what the app should offer next."""

    say: Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
    do: FollowUp | None


class Athlete(Record):
    """`ctl` and `atl` on the morning of `since`, before the first workout that is recorded."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    goal: Goal
    off: list[Day]
    hard: list[Day]
    long: Day
    rest_days: Annotated[int, Field(ge=0, le=7)]
    max_min: Annotated[int, Field(ge=15, le=1440)]
    ctl: Annotated[float, Field(ge=0, le=500, allow_inf_nan=False)]
    atl: Annotated[float, Field(ge=0, le=500, allow_inf_nan=False)]
    since: date


class Workout(NamedTuple):
    """A recorded workout."""

    day: date
    session: DayPlan
    load: float


class Planned(NamedTuple):
    id: int
    day: date
    session: DayPlan
    done: bool = False


class State(NamedTuple):
    """An athlete on the morning of `today`. `plan` is sorted by day and id, and may reach back before today."""

    athlete: Athlete
    today: date
    past: tuple[Workout, ...]
    plan: tuple[Planned, ...]

    def on(self, day: date) -> list[Planned]:
        """The workouts of a day; a rest that is planned is no workout."""
        return [item for item in self.ahead_of_today() if item.day == day and item.session.type != "rest"]

    def ahead_of_today(self) -> list[Planned]:
        """What is still to be done."""
        return [item for item in self.plan if item.day >= self.today and not item.done]

    def ahead(self) -> list[date]:
        """Today and the six days after it: what the model sees and may change."""
        return [self.today + timedelta(offset) for offset in range(HORIZON)]

    def date_of(self, day: Day) -> date:
        """The next such day of the week, today included."""
        return self.today + timedelta((DAYS.index(day) - self.today.weekday()) % 7)

    def fitness(self, rules: Rules) -> Fitness:
        loads: dict[date, float] = {}
        for workout in self.past:
            loads[workout.day] = loads.get(workout.day, 0.0) + workout.load
        return fitness(loads, self.athlete.since, Fitness(self.athlete.ctl, self.athlete.atl), self.today, rules)

    def week_load(self, rules: Rules) -> float:
        """The load planned for today and the six days after it."""
        return sum(
            load_of(item.session.min, item.session.level, rules) for day in self.ahead() for item in self.on(day)
        )

    def first(self, *levels: Level) -> Planned | None:
        """The next workout of one of the levels; of any level when none is named."""
        items = [item for day in self.ahead() for item in self.on(day)]
        return next((item for item in items if not levels or item.session.level in levels), None)


def next_monday(today: date) -> date:
    """The first day of the week that weekly_plan plans; on a Monday that is a week ahead."""
    return today + timedelta(HORIZON - today.weekday())


def name(day: date) -> Day:
    return DAYS[day.weekday()]
