"""The policy's files: the global one, a tenant's JSON Merge Patch on it, and what is said of a wrong one."""

import copy

import pytest
import yaml
from batfit_rows import SAMPLES
from hypothesis import given
from hypothesis import strategies as st

from potstill.stop import USAGE, Stop
from potstill.workloads.batfit_rules import GLOBAL, Policy, load, merge
from potstill.workloads.batfit_schema import speaks_of_geometry

SHARED = yaml.safe_load((SAMPLES / GLOBAL).read_text(encoding="utf-8"))
NEW = {"when": {"risk_flags": ["late"]}, "slot": "playing_style", "question": "Which?", "priority": 1}


@pytest.fixture
def folder(tmp_path):
    """A data dir with the shipped global policy; `with_changes` writes a tenant's and loads both."""
    (tmp_path / GLOBAL).parent.mkdir(parents=True)
    (tmp_path / GLOBAL).write_bytes((SAMPLES / GLOBAL).read_bytes())
    for tenant in ("wolf", "plain"):
        (tmp_path / "tenants" / tenant).mkdir(parents=True)
    return tmp_path


def with_changes(folder, changes) -> Policy:
    text = changes if isinstance(changes, str) else yaml.safe_dump(changes, sort_keys=False)
    (folder / "tenants/wolf/policy.yaml").write_text(text, encoding="utf-8")
    return load(folder, "wolf")


# --- the shipped files


def test_the_shipped_policies_load_and_every_tenant_of_the_samples_has_one():
    manifest = yaml.safe_load((SAMPLES / "manifest.yaml").read_text(encoding="utf-8"))
    shared = load(SAMPLES)
    for tenant in manifest["tenants"]:
        assert (SAMPLES / "tenants" / tenant / "policy.yaml").is_file()
        assert load(SAMPLES, tenant) != shared


def test_timberwolf_shows_every_kind_of_change():
    shared, wolf = load(SAMPLES), load(SAMPLES, "timberwolf")
    assert wolf.quick_fit.preferred_pickup != shared.quick_fit.preferred_pickup
    assert wolf.quick_fit.pitch_type == shared.quick_fit.pitch_type
    assert list(wolf.follow_ups) == [n for n in shared.follow_ups if n != "thin_catalogue"] + ["late_cut"]
    changed, before = wolf.follow_ups["close_call"], shared.follow_ups["close_call"]
    assert (changed.when.top2_gap_below, changed.priority) == (0.08, 75)
    assert (changed.slot, changed.question) == (before.slot, before.question)


def test_no_shipped_question_speaks_of_geometry():
    for policy in (load(SAMPLES), load(SAMPLES, "timberwolf"), load(SAMPLES, "harbourside")):
        texts = [*policy.quick_fit.model_dump().values(), *(rule.question for rule in policy.follow_ups.values())]
        assert not [text for text in texts if speaks_of_geometry(text)]


# --- merging


def test_a_tenant_without_a_file_or_with_an_empty_change_asks_as_the_global_policy(folder):
    assert load(folder, "plain") == load(folder) == load(SAMPLES)
    assert with_changes(folder, {}) == load(folder)
    assert with_changes(folder, {"follow_ups": {}}) == load(folder)


def test_lists_are_replaced_conditions_merged_and_null_removes(folder):
    changes = {
        "hard_to_lift": {"when": {"risk_flags": ["slow_swing"], "pickup_delta_above": 0.3}},
        "thin_catalogue": {"when": {"catalogue_fit_below": None, "top2_gap_below": 0.2}},
        "close_call": None,
        "brand_new": NEW,
    }
    rules = with_changes(folder, {"follow_ups": changes}).follow_ups
    assert rules["hard_to_lift"].when.model_dump(exclude_none=True) == {
        "risk_flags": ["slow_swing"],
        "pickup_delta_above": 0.3,
    }
    assert rules["thin_catalogue"].when.model_dump(exclude_none=True) == {"top2_gap_below": 0.2}
    assert list(rules) == ["hard_to_lift", "middle_off_pitch", "pickup_off", "thin_catalogue", "brand_new"]


# the examples of RFC 7396, appendix A, that are about mappings at the top
@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_is_the_rfcs(target, patch, merged):
    before = copy.deepcopy((target, patch))
    assert merge(target, patch) == merged
    assert (target, patch) == before


plain = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.none() | st.integers(0, 3) | st.lists(st.integers(0, 1), max_size=2),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


@given(plain, plain)
def test_merging_twice_is_merging_once_and_an_empty_change_changes_nothing(target, patch):
    once = merge(target, patch)
    assert merge(once, patch) == once
    assert merge(target, {}) == target


changes_of_rules = st.dictionaries(
    st.sampled_from([*SHARED["follow_ups"]]),
    st.none()
    | st.fixed_dictionaries(
        {}, optional={"priority": st.integers(0, 100), "question": st.just("Which?"), "slot": st.just("playing_style")}
    ),
)


@given(changes_of_rules)
def test_a_change_touches_what_it_names_and_nothing_else(changes):
    shared = Policy.model_validate(SHARED)
    merged = Policy.model_validate(merge(SHARED, {"follow_ups": changes}))
    assert merged.quick_fit == shared.quick_fit
    assert list(merged.follow_ups) == [name for name in shared.follow_ups if changes.get(name, {}) is not None]
    for name, rule in merged.follow_ups.items():
        wanted = shared.follow_ups[name].model_dump() | changes.get(name, {})
        assert rule.model_dump() == wanted


# --- wrong files


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"follow_ups": {"close_cal": {"priority": 9}}},
            r"follow_ups\.close_cal is a new rule and lacks when, slot, question\. Did you mean 'close_call'\?",
        ),
        (
            {"follow_ups": {"close_cal": None}},
            r"follow_ups\.close_cal is null, and the global policy has no such rule\. Did you mean 'close_call'\?",
        ),
        (
            {"follow_ups": {"close_call": {"priorty": 9}}},
            r"'follow_ups\.close_call\.priorty'\. Did you mean 'priority'",
        ),
        (
            {"follow_ups": {"close_call": {"when": {"top2_gap": 1}}}},
            r"\.when\.top2_gap'\. Did you mean 'top2_gap_below'",
        ),
        (
            {"follow_ups": {"close_call": {"when": {"top2_gap_below": None}}}},
            r"close_call\.when .*want at least one of",
        ),
        (
            {"follow_ups": {"close_call": {"when": {"top2_gap_below": 1.5}}}},
            r"close_call\.when\.top2_gap_below is 1\.5",
        ),
        ("follow_ups: {close_call: {when: {top2_gap_below: .nan}}}", r"close_call\.when\.top2_gap_below is nan"),
        ({"follow_ups": {"close_call": {"slot": "pitch_type"}}}, r"close_call\.slot is 'pitch_type'"),
        ({"follow_ups": {"close_call": {"priority": 101}}}, r"close_call\.priority is 101"),
        ({"follow_ups": {"close_call": {"priority": True}}}, r"close_call\.priority is True"),
        ({"follow_ups": {"close_call": {"question": ""}}}, r"close_call\.question is ''"),
        ({"follow_ups": {"close_call": {"question": "a\x1b[2Jb"}}}, r"close_call\.question is "),
        ({"follow_ups": {"hard_to_lift": {"when": {"risk_flags": []}}}}, r"hard_to_lift\.when\.risk_flags is \[\]"),
        ({"follow_ups": {"New Rule": NEW}}, r"follow_ups\.New Rule"),
        ({"follow_ups": {"close_call": "never"}}, r"follow_ups\.close_call is 'never'"),
        ({"follow_ups": None}, "key 'follow_ups' is missing"),
        ({"follow_ups": []}, r"follow_ups is \[\]"),
        ({"quick_fit": {"pitch_type": None}}, r"key 'quick_fit\.pitch_type' is missing"),
        ({"quick_fit": {"picth_type": "Which?"}}, r"'quick_fit\.picth_type'\. Did you mean 'pitch_type'"),
        ({"folow_ups": {}}, r"unknown key 'folow_ups'\. Did you mean 'follow_ups'"),
        ("[1]", "want a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_change_names_the_tenants_file_and_the_key(folder, changes, named):
    with pytest.raises(Stop, match=rf"wolf/policy\.yaml: .*{named}") as caught:
        with_changes(folder, changes)
    assert caught.value.code == USAGE
    assert "\n" not in str(caught.value)


def test_a_wrong_global_file_is_named_itself_for_every_tenant(folder):
    text = (folder / GLOBAL).read_text(encoding="utf-8").replace("priority: 50", "priority: high")
    (folder / GLOBAL).write_text(text, encoding="utf-8")
    for tenant in (None, "wolf", "plain"):
        with pytest.raises(Stop, match=r"global\.yaml: follow_ups\.close_call\.priority is 'high'"):
            load(folder, tenant)
    (folder / GLOBAL).unlink()
    with pytest.raises(Stop, match=r"global\.yaml is not there"):
        load(folder)


@pytest.mark.parametrize("tenant", ["wulf", "", "..", "../tenants/wolf", "wolf/", "/"])
def test_a_tenant_is_a_folder_of_the_data_dir_and_nothing_else(folder, tenant):
    with pytest.raises(Stop, match=r"no tenant .*Known: plain, wolf\."):
        load(folder, tenant)
