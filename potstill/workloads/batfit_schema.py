"""BatFit's answer: what the customer said as KERN's context, and which quick-fit fields are dealt with.

KERN, the bat engine, decides the bat. So no answer says anything of edges, spine, handle, grade or sweet spot: keys are
closed at every depth, values are numbers in range or words of a list, and `why_next_question`, the one free text, is
searched for geometry.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from potstill.records import Record

SCHEMA_VERSION = "1"
QuickFit = Literal["pitch_type", "preferred_pickup", "target_weight_lb"]
# quick-fit field -> why it is asked next, in the order in which they are asked
WHY: dict[QuickFit, str] = {
    "pitch_type": "The pitch decides where the middle sits.",
    "preferred_pickup": "Pickup decides how the weight is spread.",
    "target_weight_lb": "A target weight narrows the search.",
}
# a part of the bat, a willow grade, a length; matched against `_plain` text
GEOMETRY = re.compile(
    r"(?<![a-z])(?:edge|spine|handle|grade|willow|sweet ?spot)s? ?(?:[mc]m)?(?![a-z])"
    r"|(?<![a-z0-9])g ?[1-5](?![a-z0-9])"
    r"|(?<![a-z])[mc]m(?![a-z])|(?:milli|centi)met(?:re|er)|(?<![a-z])inch(?:es)?(?![a-z])"
)


class Context(Record):
    pitch_type: Literal["low", "true", "bouncy", "turning", "seaming"] | None
    preferred_pickup: Literal["light", "balanced", "heavy"] | None
    target_weight_lb: Annotated[float, Field(ge=2.3, le=3.4, allow_inf_nan=False)] | None
    profile_pref: Literal["low", "mid_low", "mid", "mid_high", "high"] | None
    playing_style: Literal["control", "aggressive", "anchor", "all_round"] | None
    pickup_goal: Literal["bat_speed", "balanced", "power"] | None


class Interaction(Record):
    """`asked`: quick-fit fields the player answered. `skipped`: those the player waved off."""

    asked: list[QuickFit]
    skipped: list[QuickFit]
    why_next_question: str | None

    @field_validator("why_next_question")
    @classmethod
    def _no_geometry(cls, text: str | None) -> str | None:
        if text is not None and speaks_of_geometry(text):
            raise ValueError("speaks of bat geometry, which KERN decides")
        return text

    @model_validator(mode="after")
    def _each_once(self) -> "Interaction":
        fields = [*self.asked, *self.skipped]
        if len(fields) != len(set(fields)):
            raise ValueError("a field is named twice in asked and skipped")
        return self


class Answer(Record):
    context: Context
    interaction: Interaction


SCHEMAS = {"t1_parse": Answer, "t2_repair": Answer}


def interaction(context: Context, waved: Iterable[str]) -> Interaction:
    """The rule: stated is asked, waved off is skipped, the first field that is neither is the next question."""
    skipped = set(waved)
    asked: list[QuickFit] = [field for field in WHY if getattr(context, field) is not None]
    return Interaction(
        asked=asked,
        skipped=[field for field in WHY if field in skipped],
        why_next_question=why_next({*asked, *skipped}),
    )


def why_next(settled: Collection[str]) -> str | None:
    """The sentence of the first quick-fit field that is not in `settled`."""
    return next((why for field, why in WHY.items() if field not in settled), None)


def speaks_of_geometry(text: str) -> bool:
    """Whether a text names a part of the bat, a grade of willow or a length, in any case, spacing or Unicode form."""
    return GEOMETRY.search(_plain(text)) is not None


def _plain(text: str) -> str:
    # camelCase would hide a word's start, soft hyphens and zero-width characters its middle
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", unicodedata.normalize("NFKC", text))
    shown = "".join(c for c in apart if unicodedata.category(c) != "Cf")
    return re.sub(r"[\W_]+", " ", shown.casefold())
