"""BatFit's questions: which one to ask a customer next, by rule. No model decides it.

Run: python -m potstill.workloads.batfit_policy --context answer.json [--kern kern.json] [--tenant timberwolf]
It prints one JSON object, a `Decision`.

Quick-fit fields come first, in the order the model was trained on. Then KERN makes a draft, and at most one follow-up
is asked for each of its results: of the rules that fire, the one of the highest priority whose slot is still open.

    policy = load(Path("data/samples/batfit"), "timberwolf")
    session = start(answer)                        # the model's answer to the talk
    question = next_question(policy, answer.context, session, kern)
    session = record(session, question, answered=True)
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from potstill import answers, cli, project, workload
from potstill.files import canonical_json, sha256_text
from potstill.records import R, Record, explain
from potstill.stop import DATA, Stop
from potstill.workloads.batfit_rules import Policy, Share, Slot, When, Word
from potstill.workloads.batfit_rules import load as load
from potstill.workloads.batfit_schema import WHY, Answer, Context, Interaction, QuickFit, interaction, why_next


class Kern(Record):
    """What KERN says of its draft. Scores and shares are 0 to 1; null is what it could not compute.

    `top2_scores` (best, second) or `top2_gap`, not both; neither when there is one bat. `pickup_delta`: how much
    heavier (minus: lighter) the best bat picks up than was wanted, -1 to 1. `catalogue_fit`: 1 is a bat on the shelf.
    """

    top2_scores: tuple[Share, Share] | None = None
    top2_gap: Share | None = None
    risk_flags: list[Word]
    pickup_delta: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None
    catalogue_fit: Share | None

    @model_validator(mode="after")
    def _one_gap(self) -> "Kern":
        if self.top2_scores and self.top2_gap is not None:
            raise ValueError("want top2_scores or top2_gap, not both")
        if self.top2_scores and self.top2_scores[0] < self.top2_scores[1]:
            raise ValueError("top2_scores: want the best one first")
        return self

    def gap(self) -> float | None:
        """Best score minus second best."""
        if self.top2_scores is None:
            return self.top2_gap
        # 0.3 and 0.25 are 0.05 apart, which binary floats miss
        best, second = (Decimal(repr(score)) for score in self.top2_scores)
        return float(best - second)

    def fingerprint(self) -> str:
        """What tells this result from another; the order of its flags does not."""
        shown = [self.gap(), sorted(set(self.risk_flags)), self.pickup_delta, self.catalogue_fit]
        return sha256_text(canonical_json(shown))[:16]


class Question(Record):
    """`why`: the model's own sentence, of a quick-fit question. `rule` and `result` (KERN's): of a follow-up."""

    slot: QuickFit | Slot
    question: str
    why: str | None = None
    rule: str | None = None
    result: str | None = None


class FollowUp(Record):
    """A follow-up that was asked: its rule and slot, the KERN result it was about, and whether it was answered."""

    rule: str
    slot: Slot
    result: str
    answered: bool


class Session(Record):
    """What was asked so far. `interaction` is in the model's form; follow-ups have no place in that and stand apart."""

    interaction: Interaction
    follow_ups: Annotated[list[FollowUp], Field(default_factory=list)]


class Decision(Record):
    """`reason`: quick_fit, follow_up; or, without a question, one of no_kern_result, already_asked (about this result),
    no_rule_fires, slots_settled (rules fire, but all they could ask for is known or was asked)."""

    question: Question | None
    reason: Literal["quick_fit", "follow_up", "no_kern_result", "already_asked", "no_rule_fires", "slots_settled"]


def start(answer: Answer) -> Session:
    """The session after the model has read the customer's first words. A field that has a value counts as asked."""
    said = answer.interaction
    asked = [f for f in WHY if f in said.asked or getattr(answer.context, f) is not None]
    return _session(asked, [f for f in WHY if f in said.skipped and f not in asked], [])


def next_question(policy: Policy, context: Context, session: Session, kern: Kern | None = None) -> Question | None:
    """The one question to ask now, or None."""
    return decide(policy, context, session, kern).question


def decide(policy: Policy, context: Context, session: Session, kern: Kern | None = None) -> Decision:
    """The one question to ask now, or None with the reason. It depends on nothing but its arguments."""
    done = session.interaction
    for field, why in WHY.items():
        if getattr(context, field) is None and field not in (*done.asked, *done.skipped):
            text = getattr(policy.quick_fit, field)
            return Decision(question=Question(slot=field, question=text, why=why), reason="quick_fit")
    if kern is None:
        return Decision(question=None, reason="no_kern_result")
    if any(asked.result == kern.fingerprint() for asked in session.follow_ups):
        return Decision(question=None, reason="already_asked")
    firing = [(name, rule) for name, rule in policy.follow_ups.items() if fires(rule.when, kern)]
    settled = {asked.slot for asked in session.follow_ups}
    usable = [(n, rule) for n, rule in firing if getattr(context, rule.slot) is None and rule.slot not in settled]
    if not usable:
        return Decision(question=None, reason="slots_settled" if firing else "no_rule_fires")
    # max takes the first of equals
    name, rule = max(usable, key=lambda item: item[1].priority)
    question = Question(slot=rule.slot, question=rule.question, rule=name, result=kern.fingerprint())
    return Decision(question=question, reason="follow_up")


def fires(when: When, kern: Kern) -> bool:
    """Whether everything that `when` names holds. What KERN could not compute holds nowhere; a limit is outside."""
    gap, delta, fit = kern.gap(), kern.pickup_delta, kern.catalogue_fit
    checks = [
        when.top2_gap_below is None or (gap is not None and gap < when.top2_gap_below),
        when.risk_flags is None or not set(when.risk_flags).isdisjoint(kern.risk_flags),
        when.pickup_delta_above is None or (delta is not None and abs(delta) > when.pickup_delta_above),
        when.catalogue_fit_below is None or (fit is not None and fit < when.catalogue_fit_below),
    ]
    return all(checks)


def record(session: Session, question: Question, answered: bool) -> Session:
    """The session after `question`: a quick-fit field goes to asked or skipped, a follow-up to follow_ups."""
    done = session.interaction
    if question.rule is not None:
        again = FollowUp.model_validate(
            {**question.model_dump(include={"rule", "slot", "result"}), "answered": answered}
        )
        others = [asked for asked in session.follow_ups if asked.slot != question.slot]
        return session.model_copy(update={"follow_ups": [*others, again]})
    asked = [f for f in WHY if (answered if f == question.slot else f in done.asked)]
    skipped = [f for f in WHY if (not answered if f == question.slot else f in done.skipped)]
    return _session(asked, skipped, session.follow_ups)


def _session(asked: list[QuickFit], skipped: list[QuickFit], follow_ups: list[FollowUp]) -> Session:
    why = why_next({*asked, *skipped})
    return Session(interaction=Interaction(asked=asked, skipped=skipped, why_next_question=why), follow_ups=follow_ups)


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, workload=False)
    parser.add_argument("--context", type=Path, required=True, help="JSON: the model's answer, or its context alone")
    parser.add_argument("--kern", type=Path, help="JSON: KERN's result for that context")
    parser.add_argument("--tenant", help="ask as this tenant does (default: as policy/question/global.yaml says)")
    parser.add_argument("--data-dir", type=Path, help="default: BATFIT_DATA_DIR, else data/samples/batfit")
    arguments = parser.parse_args(argv)
    folder = workload.override("batfit", "data_dir", arguments.data_dir, folder=True)
    policy = load(folder or project.SAMPLES / "batfit", arguments.tenant)
    answer = read_answer(arguments.context)
    kern = checked(arguments.kern, read_json(arguments.kern), Kern) if arguments.kern else None
    print(decide(policy, answer.context, start(answer), kern).model_dump_json())


def read_answer(path: Path) -> Answer:
    """The model's answer in a file; of a context alone, nothing was waved off."""
    value = read_json(path)
    if isinstance(value, dict) and "context" in value:
        return checked(path, value, Answer)
    context = checked(path, value, Context)
    return Answer(context=context, interaction=interaction(context, []))


def read_json(path: Path) -> object:
    """One JSON value. Raises Stop 65, naming the file: it may be a model's output, so it is read as strictly."""
    try:
        answer = answers.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Stop(f"{path} is not there; want a JSON file.", DATA) from None
    except UnicodeDecodeError as error:
        raise Stop(f"{path}: byte {error.start} is not UTF-8.", DATA) from None
    if not answer.valid_json:
        raise Stop(f"{path}: not JSON; want one object and nothing around it.", DATA)
    return answer.parsed


def checked(path: Path, value: object, model: type[R]) -> R:
    try:
        return model.model_validate_json(canonical_json(value))
    except ValidationError as error:
        raise Stop(f"{path}: {explain(error)}. Correct it and ask again.", DATA) from None


if __name__ == "__main__":
    cli.run(main)
