"""BatFit's question policy as files: policy/question/global.yaml of the data dir, and a tenant's changes on top.

A tenant's tenants/<tenant>/policy.yaml is a JSON Merge Patch (RFC 7396) on the global file: mappings are merged key by
key, null removes a key, and anything else, a list too, replaces what was there. So a rule is changed by its name,
`<rule>: null` removes it, and a name that the global file lacks is a new rule, after the others.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from potstill import config
from potstill.config import Config
from potstill.stop import USAGE, Stop

GLOBAL = Path("policy/question/global.yaml")
# the slots a follow-up can ask for: quick-fit fields are settled before it
Slot = Literal["profile_pref", "playing_style", "pickup_goal"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
# one line, to be shown as it is
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")]


class QuickFitTexts(Config):
    """The question of each quick-fit field."""

    pitch_type: Text
    preferred_pickup: Text
    target_weight_lb: Text


class When(Config):
    """What KERN's result must show: all that is named, and at least one."""

    # best score minus second best
    top2_gap_below: Share | None = None
    # any of them
    risk_flags: Annotated[list[Word], Field(min_length=1)] | None = None
    # heavier or lighter
    pickup_delta_above: Share | None = None
    catalogue_fit_below: Share | None = None

    @model_validator(mode="after")
    def _any(self) -> "When":
        if all(value is None for value in self.model_dump().values()):
            raise ValueError(f"want at least one of {', '.join(When.model_fields)}")
        return self


class Rule(Config):
    """A follow-up: when it fires, the context slot it asks for, and how it ranks among others that fire."""

    when: When
    slot: Slot
    question: Text
    priority: Annotated[int, Field(ge=0, le=100)]


class Policy(Config):
    quick_fit: QuickFitTexts
    follow_ups: dict[Word, Rule]


def load(samples: Path, tenant: str | None = None) -> Policy:
    """The global policy, with the changes of `tenant` when it has a file of its own.

    Raises Stop 2 that names the file, the key and the rule; for a tenant without a folder, the nearest that has one.
    """
    path = samples / GLOBAL
    shared = config.read_yaml(path)
    policy = config.validate(shared, Policy, str(path))
    if tenant is None:
        return policy
    folder = samples / "tenants"
    known = sorted(item.name for item in folder.iterdir() if item.is_dir()) if folder.is_dir() else []
    if tenant not in known:
        listed = ", ".join(known) or "none"
        raise Stop(f"{folder}: no tenant {tenant!r}.{config.nearest(tenant, known)} Known: {listed}.", USAGE)
    own = folder / tenant / "policy.yaml"
    if not own.is_file():
        return policy
    changes = config.read_yaml(own)
    _check_new_rules(changes, policy, own)
    return config.validate(merge(shared, changes), Policy, str(own))


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, on values as YAML gives them. Neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, change in patch.items():
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), change)
    return merged


def _check_new_rules(changes: dict[str, Any], policy: Policy, own: Path) -> None:
    """A misspelt name would make a new rule, or remove none: it is told from a new rule by what it lacks."""
    rules = changes.get("follow_ups")
    for name, rule in rules.items() if isinstance(rules, dict) else ():
        if name in policy.follow_ups:
            continue
        hint = config.nearest(str(name), policy.follow_ups)
        if rule is None:
            raise Stop(f"{own}: follow_ups.{name} is null, and the global policy has no such rule.{hint}", USAGE)
        lacking = [key for key in Rule.model_fields if isinstance(rule, dict) and rule.get(key) is None]
        if lacking:
            raise Stop(f"{own}: follow_ups.{name} is a new rule and lacks {', '.join(lacking)}.{hint}", USAGE)
