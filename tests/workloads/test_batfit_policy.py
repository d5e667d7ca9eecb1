"""Which question comes next: quick-fit first, then at most one follow-up on each of KERN's results."""

import itertools

import pytest
from batfit_rows import NOTHING, SAMPLES, answer, samples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from potstill.workloads import batfit_policy as policy
from potstill.workloads.batfit_policy import Decision, Kern, Session, decide, next_question, record, start
from potstill.workloads.batfit_rules import Policy, Slot
from potstill.workloads.batfit_samples import CHOICES
from potstill.workloads.batfit_schema import WHY, Answer, Context, Interaction, interaction

GLOBAL = policy.load(SAMPLES)
VALUES = {**CHOICES, "target_weight_lb": (2.8,)}
LATER = ("profile_pref", "playing_style", "pickup_goal")
FLAGS = ["toe_heavy", "slow_swing", "middle_too_low", "mishit_square", "unheard_of"]
QUICK = {"pitch_type": "low", "preferred_pickup": "light", "target_weight_lb": 2.8}
NOTHING_WRONG = {"risk_flags": [], "pickup_delta": 0.0, "catalogue_fit": 1.0}

shares = st.floats(0, 1)
gaps = st.one_of(
    st.just({}),
    shares.map(lambda gap: {"top2_gap": gap}),
    st.tuples(shares, shares).map(lambda two: {"top2_scores": tuple(sorted(two, reverse=True))}),
)
kerns = st.builds(
    lambda gap, flags, delta, fit: Kern(**gap, risk_flags=flags, pickup_delta=delta, catalogue_fit=fit),
    gaps,
    st.lists(st.sampled_from(FLAGS), max_size=3),
    st.none() | st.floats(-1, 1),
    st.none() | shares,
)
contexts = st.fixed_dictionaries({slot: st.sampled_from([None, *values]) for slot, values in VALUES.items()}).map(
    Context.model_validate
)
# not the rule's: a model may get it wrong
interactions = st.permutations(list(WHY)).flatmap(
    lambda fields: st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda ends: Interaction(asked=fields[: min(ends)], skipped=fields[max(ends) :], why_next_question=None)
    )
)
rules = st.fixed_dictionaries(
    {
        "when": st.dictionaries(
            st.sampled_from(["top2_gap_below", "pickup_delta_above", "catalogue_fit_below"]), shares
        )
        .filter(bool)
        .flatmap(lambda when: st.sampled_from([when, {**when, "risk_flags": ["toe_heavy"]}])),
        "slot": st.sampled_from(LATER),
        "question": st.just("Which?"),
        "priority": st.integers(0, 3),
    }
)
policies = st.dictionaries(st.sampled_from("abcdef"), rules).map(
    lambda named: Policy(quick_fit=GLOBAL.quick_fit, follow_ups=named)
)


def context(**values) -> Context:
    return Context.model_validate({**NOTHING["context"], **QUICK, **values})


def kern(**values) -> Kern:
    return Kern(**{**NOTHING_WRONG, **values})


def settled(found: Context) -> Session:
    return start(Answer(context=found, interaction=interaction(found, [])))


def asked(found: Context, result: Kern) -> str | None:
    """The rule whose question is asked."""
    question = next_question(GLOBAL, found, settled(found), result)
    return question.rule if question else None


# --- quick fit, and the rule the model was trained on


def test_the_question_is_the_models_own_next_for_every_context():
    for states in itertools.product(("said", "waved", "open"), repeat=3):
        by_field = dict(zip(WHY, states, strict=True))
        values = {field: QUICK[field] if state == "said" else None for field, state in by_field.items()}
        for later in (None, "power"):
            found = context(**values, pickup_goal=later)
            said = interaction(found, [field for field, state in by_field.items() if state == "waved"])
            session = start(Answer(context=found, interaction=said))
            question = next_question(GLOBAL, found, session)
            assert session.interaction == said
            assert (question.why if question else None) == said.why_next_question
            if question:
                assert question.slot == next(field for field, state in by_field.items() if state == "open")


def test_every_committed_answer_agrees_with_the_policy():
    for text in {row.response_strong for row in samples()}:
        known = Answer.model_validate_json(text)
        question = next_question(GLOBAL, known.context, start(known))
        assert (question.why if question else None) == known.interaction.why_next_question


def test_quick_fit_comes_before_any_follow_up():
    found = context(target_weight_lb=None)
    alarming = kern(risk_flags=["toe_heavy"], catalogue_fit=0.0)
    assert next_question(GLOBAL, found, settled(found), alarming).slot == "target_weight_lb"
    assert decide(GLOBAL, found, settled(found), alarming).reason == "quick_fit"


def test_a_field_the_model_says_was_asked_is_not_asked_again_and_one_with_a_value_counts_as_asked():
    wrong = {"asked": ["pitch_type"], "skipped": ["preferred_pickup"], "why_next_question": None}
    known = Answer.model_validate(answer(target_weight_lb=2.8, preferred_pickup="light", **wrong))
    session = start(known)
    assert session.interaction.asked == list(WHY)
    assert session.interaction.skipped == []
    assert decide(GLOBAL, known.context, session) == Decision(question=None, reason="no_kern_result")


# --- follow-ups on KERN's result


@pytest.mark.parametrize(
    ("result", "rule"),
    [
        ({}, None),
        ({"top2_gap": 0.049}, "close_call"),
        ({"top2_gap": 0.05}, None),
        ({"top2_scores": (0.81, 0.77)}, "close_call"),
        # 0.3 - 0.25 is 0.04999... in binary
        ({"top2_scores": (0.3, 0.25)}, None),
        ({"pickup_delta": 0.16}, "pickup_off"),
        ({"pickup_delta": -0.16}, "pickup_off"),
        ({"pickup_delta": 0.15}, None),
        ({"catalogue_fit": 0.59}, "thin_catalogue"),
        ({"catalogue_fit": 0.6}, None),
        ({"pickup_delta": None, "catalogue_fit": None}, None),
        ({"risk_flags": ["unheard_of"]}, None),
        ({"risk_flags": ["unheard_of", "slow_swing"]}, "hard_to_lift"),
        ({"risk_flags": ["middle_too_high"], "catalogue_fit": 0.1, "top2_gap": 0.0}, "middle_off_pitch"),
        ({"catalogue_fit": 0.1, "top2_gap": 0.0, "pickup_delta": 1.0}, "pickup_off"),
    ],
)
def test_which_rule_asks(result, rule):
    assert asked(context(), kern(**result)) == rule


def test_a_rule_whose_slot_is_known_gives_way_to_the_next():
    everything = kern(risk_flags=["toe_heavy", "middle_too_low"], pickup_delta=1.0, catalogue_fit=0.0, top2_gap=0.0)
    order = []
    found = context()
    while rule := asked(found, everything):
        order.append(rule)
        slot = GLOBAL.follow_ups[rule].slot
        found = found.model_copy(update={slot: CHOICES[slot][0]})
    assert order == ["hard_to_lift", "middle_off_pitch", "close_call"]
    assert decide(GLOBAL, found, settled(found), everything).reason == "slots_settled"
    assert decide(GLOBAL, context(), settled(context()), kern()).reason == "no_rule_fires"


def test_of_equal_priorities_the_first_rule_asks():
    follow_ups = {
        name: {"when": {"catalogue_fit_below": 1.0}, "slot": slot, "question": "Which?", "priority": 5}
        for name, slot in zip(("zulu", "alpha", "mike"), LATER, strict=True)
    }
    tied = Policy(quick_fit=GLOBAL.quick_fit, follow_ups=follow_ups)
    found = context()
    assert next_question(tied, found, settled(found), kern(catalogue_fit=0.5)).rule == "zulu"


def test_one_follow_up_for_a_result_and_another_for_the_next_one():
    found, result = context(), kern(risk_flags=["toe_heavy"], catalogue_fit=0.1)
    question = next_question(GLOBAL, found, settled(found), result)
    session = record(settled(found), question, answered=False)
    assert decide(GLOBAL, found, session, result).reason == "already_asked"
    # the same result, with its flags named twice
    again = kern(risk_flags=["toe_heavy", "toe_heavy"], catalogue_fit=0.1)
    assert decide(GLOBAL, found, session, again).reason == "already_asked"
    # the waved-off slot stays settled
    assert (
        next_question(GLOBAL, found, session, kern(risk_flags=["toe_heavy"], catalogue_fit=0.2)).slot == "profile_pref"
    )
    assert session.follow_ups[0].model_dump(include={"rule", "slot", "answered"}) == {
        "rule": "hard_to_lift",
        "slot": "pickup_goal",
        "answered": False,
    }


@given(policies, contexts, interactions, st.none() | kerns)
def test_a_question_is_never_about_what_is_known_or_was_asked_and_always_the_same(rules, found, said, result):
    session = Session(interaction=said, follow_ups=[])
    decision = decide(rules, found, session, result)
    assert decide(
        *(type(x).model_validate(x.model_dump()) if x else None for x in (rules, found, session, result))
    ) == (decision)
    if question := decision.question:
        assert getattr(found, question.slot) is None
        assert question.slot not in (*said.asked, *said.skipped)
        assert (question.why is None) == (question.slot not in WHY)
        if question.rule:
            assert result is not None
            assert all(getattr(found, field) is not None or field in (*said.asked, *said.skipped) for field in WHY)
            firing = [rule for rule in rules.follow_ups.values() if policy.fires(rule.when, result)]
            open_rules = [rule for rule in firing if getattr(found, rule.slot) is None]
            assert rules.follow_ups[question.rule].priority == max(rule.priority for rule in open_rules)


@given(policies, contexts, interactions, st.lists(kerns, max_size=6), st.randoms())
def test_a_conversation_asks_nothing_twice_and_ends(rules, found, said, results, rng):
    session, slots = Session(interaction=said, follow_ups=[]), []
    for result in [None, *results]:
        follow_ups = 0
        while question := next_question(rules, found, session, result):
            slots.append(question.slot)
            follow_ups += question.rule is not None
            answered = rng.random() < 0.5
            session = record(session, question, answered)
            if answered and rng.random() < 0.8:
                found = found.model_copy(update={question.slot: VALUES[question.slot][0]})
        assert follow_ups <= 1
    assert len(slots) == len(set(slots))
    assert Session.model_validate_json(session.model_dump_json()) == session
    assert set(session.interaction.asked) | set(session.interaction.skipped) >= {slot for slot in slots if slot in WHY}
    # what went to follow_ups is no quick-fit field, so the model's schema still holds
    assert Answer(context=found, interaction=session.interaction)


@given(policies, contexts, interactions, st.none() | kerns, st.booleans())
def test_answering_or_skipping_removes_the_question_and_brings_no_earlier_one(rules, found, said, result, answered):
    session = Session(interaction=said, follow_ups=[])
    question = next_question(rules, found, session, result)
    if question is None:
        return
    if question.slot in WHY:
        after = record(session, question, answered)
        done = after.interaction
        assert question.slot in (done.asked if answered else done.skipped)
        following = next_question(rules, found, after, result)
        order = [*WHY]
        assert following is None or following.rule or order.index(following.slot) > order.index(question.slot)
    else:
        assert next_question(rules, found, record(session, question, answered), result) is None
    known = found.model_copy(update={question.slot: VALUES[question.slot][0]})
    following = next_question(rules, known, session, result)
    assert following is None or following.slot != question.slot


def test_a_change_of_mind_moves_a_field_and_names_it_once():
    found = Context.model_validate(NOTHING["context"])
    session = settled(found)
    question = next_question(GLOBAL, found, session)
    for answered in (False, True, True):
        session = record(session, question, answered)
    assert session.interaction.asked == ["pitch_type"]
    assert session.interaction.skipped == []
    assert session.interaction.why_next_question == WHY["preferred_pickup"]


# --- KERN's result


@pytest.mark.parametrize(
    "broken",
    [
        {"top2_gap": float("nan")},
        {"pickup_delta": float("nan")},
        {"catalogue_fit": float("inf")},
        {"top2_gap": -0.1},
        {"top2_gap": 1.1},
        {"top2_scores": (0.5, 0.6)},
        {"top2_scores": (0.5,)},
        {"top2_scores": (0.6, 0.5), "top2_gap": 0.1},
        {"pickup_delta": -1.5},
        {"catalogue_fit": "0.5"},
        {"catalogue_fit": True},
        {"risk_flags": ["Toe heavy"]},
        {"risk_flags": "toe_heavy"},
        {"risk_flags": None},
        {"spine_mm": 65},
    ],
)
def test_a_wrong_result_is_refused(broken):
    with pytest.raises(ValidationError):
        kern(**broken)


def test_the_slots_a_follow_up_may_ask_for_are_the_contexts_others():
    assert set(Slot.__args__) == set(LATER) == set(Context.model_fields) - set(WHY)
    assert tuple(type(GLOBAL.quick_fit).model_fields) == tuple(WHY)
