import json
import random
import re
import shutil
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from potstill import corpus, grammar, workload
from potstill.files import canonical_json
from potstill.records import Exemplar
from potstill.stop import Stop
from potstill.workloads import batfit
from potstill.workloads.batfit import WHY, Answer, Context, interaction
from scripts.dataset import samples as script

SAMPLES = Path(__file__).resolve().parents[2] / "data/samples/batfit"
BOOK = grammar.load(SAMPLES / "grammar.yaml")
SEED = 17
NOTHING = {
    "context": dict.fromkeys(Context.model_fields),
    "interaction": {"asked": [], "skipped": [], "why_next_question": None},
}


@cache
def samples() -> list[Exemplar]:
    return list(batfit.convert(SAMPLES))


def talks(**wanted: str) -> list[Exemplar]:
    rows = [row for row in samples() if row.task == "t1_parse"]
    return [row for row in rows if all(row.metadata.get(key) == value for key, value in wanted.items())]


def says(text: str, phrase: str) -> bool:
    """Whether `phrase` stands in `text` as whole words."""
    return re.search(rf"(?<![\w-]){re.escape(phrase.casefold())}(?![\w-])", text.casefold()) is not None


# --- the schema and the rule


def answer(**changes) -> dict:
    return {part: {**NOTHING[part], **{k: v for k, v in changes.items() if k in NOTHING[part]}} for part in NOTHING}


def test_a_whole_answer_is_accepted_and_an_int_weight_becomes_a_float():
    parsed = Answer.model_validate_json(canonical_json(answer(target_weight_lb=3, asked=["target_weight_lb"])))
    assert canonical_json(parsed.model_dump()["context"]["target_weight_lb"]) == "3.0"


@pytest.mark.parametrize(
    "broken",
    [
        {"context": NOTHING["context"]},
        {**NOTHING, "edges_mm": 40},
        {**NOTHING, "context": {**NOTHING["context"], "handle": "oval"}},
        {**NOTHING, "context": {k: None for k in Context.model_fields if k != "pitch_type"}},
        answer(pitch_type="slow"),
        answer(pitch_type=True),
        answer(target_weight_lb="2.8"),
        answer(target_weight_lb=2.2),
        answer(target_weight_lb=3.5),
        answer(target_weight_lb=True),
        answer(asked=["pitch_type", "pitch_type"]),
        answer(asked=["pitch_type"], skipped=["pitch_type"]),
        answer(asked=["playing_style"]),
        answer(asked=None),
    ],
)
def test_a_wrong_answer_is_refused(broken):
    with pytest.raises(ValidationError):
        Answer.model_validate_json(canonical_json(broken))


def test_no_number_is_nan():
    with pytest.raises(ValidationError):
        Context.model_validate({**NOTHING["context"], "target_weight_lb": float("nan")})


@given(st.fixed_dictionaries({field: st.sampled_from(["said", "waved", "open"]) for field in WHY}))
def test_interaction_follows_the_talk(states):
    stated = {"pitch_type": "low", "preferred_pickup": "light", "target_weight_lb": 2.8}
    values = {field: value for field, value in stated.items() if states[field] == "said"}
    result = interaction(
        Context.model_validate({**NOTHING["context"], **values}), [f for f in reversed(WHY) if states[f] == "waved"]
    )
    by_state = {state: [f for f in WHY if states[f] == state] for state in ("said", "waved", "open")}
    assert result.asked == by_state["said"]
    assert result.skipped == by_state["waved"]
    assert result.why_next_question == (WHY[by_state["open"][0]] if by_state["open"] else None)
    assert all(len(why.split()) <= 8 for why in WHY.values())


# --- the committed samples


def test_committed_samples_are_what_the_seed_gives(tmp_path):
    (tmp_path / "grammar.yaml").write_bytes((SAMPLES / "grammar.yaml").read_bytes())
    written = batfit.make_samples(tmp_path, SEED)
    committed = {path.relative_to(SAMPLES) for path in SAMPLES.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path) for path in written} == committed - {Path("grammar.yaml")}
    for path in written:
        assert path.read_bytes() == (SAMPLES / path.relative_to(tmp_path)).read_bytes(), path.name
    assert sum((SAMPLES / path).stat().st_size for path in committed) < 3_000_000


def test_another_seed_gives_other_rows(tmp_path):
    (tmp_path / "grammar.yaml").write_bytes((SAMPLES / "grammar.yaml").read_bytes())
    batfit.make_samples(tmp_path, SEED + 1)
    mine, theirs = ((folder / "t1_parse/train.jsonl").read_bytes() for folder in (tmp_path, SAMPLES))
    assert mine != theirs


def test_sizes_and_ids():
    assert len({row.id for row in samples()}) == len(samples())
    assert len({row.prompt_text for row in samples()}) == len(samples())
    counts = Counter((row.task, row.metadata.get("split", "train")) for row in talks() if "tenant" not in row.metadata)
    assert counts == {("t1_parse", "train"): 3060, ("t1_parse", "val"): 120}
    assert len(talks(slice="unseen_synonyms")) == 60
    assert Counter(row.metadata.get("split") for row in samples() if row.task == "t2_repair") == {None: 882, "val": 40}
    assert len(talks(tenant="timberwolf")) == len(talks(tenant="harbourside")) == 80
    assert {row.metadata.get("weight") for row in talks(tenant="timberwolf")} == {0.5}
    assert len({row.metadata["group"] for row in talks()}) >= 28


def test_both_row_layouts_are_committed():
    lines = [json.loads(line) for line in (SAMPLES / "t1_parse/train.jsonl").open(encoding="utf-8")]
    kinds = Counter("chat" if "messages" in row else type(row["output"]).__name__ for row in lines)
    assert min(kinds[kind] for kind in ("chat", "dict", "str")) > 100


def test_every_answer_is_valid_canonical_and_follows_the_rule():
    for row in samples():
        parsed = Answer.model_validate_json(row.response_strong)
        assert canonical_json(parsed.model_dump()) == row.response_strong
        assert parsed.interaction == interaction(parsed.context, parsed.interaction.skipped)
        assert all(getattr(parsed.context, field) is None for field in parsed.interaction.skipped)
        assert row.system_prompt == batfit.SYSTEM


def test_the_workload_file_and_the_samples_agree(monkeypatch):
    monkeypatch.chdir(SAMPLES.parents[2])
    workload.load.cache_clear()
    job = workload.load("batfit")
    assert job.settings.schema_version == batfit.SCHEMA_VERSION
    assert (SAMPLES / job.settings.system_prompt).read_text(encoding="utf-8").strip() == batfit.SYSTEM
    manifest = (SAMPLES / "manifest.yaml").read_text(encoding="utf-8")
    assert f"system_prompt: {job.settings.system_prompt}\n" in manifest
    known, problem = job.check("t1_parse", json.loads(samples()[0].response_strong))
    assert known, problem


def test_words_of_answers_vary_and_always_null_does_not_pay():
    slots, null_right = Counter(), Counter()
    for row in talks():
        parsed = json.loads(row.response_strong)
        for part, members in NOTHING.items():
            for slot, nothing in members.items():
                slots[part, slot] += 1
                null_right[part, slot] += parsed[part][slot] == nothing
    share = sum(null_right.values()) / sum(slots.values())
    assert 0.35 < share < 0.5
    lengths = sorted(len(row.prompt_text.split()) for row in talks())
    assert 15 <= lengths[len(lengths) // 2] <= 45


# --- the grammar: families are strangers to each other, and what is said can be read back


def frames_of(family: grammar.Family) -> set[str]:
    by_slot = [*family.frames.values(), *family.waves.values(), *family.corrections.values()]
    phrases = [phrase for group in by_slot for phrase in group]
    return {*phrases, *family.openers, *family.closers, *family.asides}


def fixed_words(frame: str) -> str:
    """The frame's own words, placeholders as one mark each."""
    return " ".join(re.sub(r"\{\w+\}", "_", frame.casefold()).split())


def test_no_frame_of_one_family_is_in_another():
    own = {name: {fixed_words(frame) for frame in frames_of(family)} for name, family in BOOK.families.items()}
    shared = defaultdict(set)
    for name, frames in own.items():
        for frame in frames:
            shared[frame].add(name)
    assert {frame: names for frame, names in shared.items() if len(names) > 1} == {}
    long = [(name, frame) for name, frames in own.items() for frame in frames if len(re.findall(r"[a-z]+", frame)) > 2]
    held = [(a, b, f) for a, f in long for b, frames in own.items() if a != b for other in frames if says(other, f)]
    assert held == []


def test_every_family_has_frames_enough_for_every_slot():
    for name, family in BOOK.families.items():
        assert set(family.frames) == set(Context.model_fields), name
        assert set(family.waves) == set(WHY), name
        assert all(len(set(frames)) >= 3 for frames in family.frames.values()), name
        assert all(len(set(frames)) >= 2 for frames in family.waves.values()), name
        for slot, frames in family.frames.items():
            assert all(frame.count("{v}") == 1 for frame in frames), (name, slot)
        for slot in ("pitch_type", "preferred_pickup", "profile_pref", "playing_style"):
            assert all("{n}" in frame for frame in family.frames[slot]), (name, slot)
        for wave in (wave for waves in family.waves.values() for wave in waves):
            assert wave.count("{n}") == wave.count("{w}") == 1, (name, wave)


def test_synonyms_are_enough_and_name_one_value_each():
    for slot, entry in BOOK.slots.items():
        assert len(entry.nouns) >= 4
        if slot == "target_weight_lb":
            continue
        assert set(entry.values) == set(batfit.CHOICES[slot])
        assert all(len(set(words.seen)) >= 6 and len(set(words.unseen)) >= 2 for words in entry.values.values())
        every = [word for words in entry.values.values() for word in (*words.seen, *words.unseen)]
        assert len(every) == len(set(every))
    nouns = [noun for entry in BOOK.slots.values() for noun in entry.nouns]
    assert len(nouns) == len(set(nouns))
    assert len(set(BOOK.waved.seen)) >= 12
    assert len(set(BOOK.waved.unseen)) >= 3


def content_words(phrases: list[str]) -> set[str]:
    small = {"no", "not", "is", "me", "you", "your", "don't", "can't", "couldn't", "haven't"}
    return {word for phrase in phrases for word in phrase.split()} - small


def test_waving_phrases_name_no_value_and_share_no_word_with_the_frames_or_each_other():
    seen, unseen = content_words(BOOK.waved.seen), content_words(BOOK.waved.unseen)
    assert all(content_words([phrase]) for phrase in (*BOOK.waved.seen, *BOOK.waved.unseen))
    assert not seen & unseen
    synonyms = [w for slot in BOOK.slots.values() for v in slot.values.values() for w in (*v.seen, *v.unseen)]
    names = [*synonyms, *(noun for slot in BOOK.slots.values() for noun in slot.nouns)]
    waving = (*BOOK.waved.seen, *BOOK.waved.unseen)
    assert [(w, name) for w in waving for name in names if says(w, name) or says(name, w)] == []
    for name, family in BOOK.families.items():
        for wave in (wave for waves in family.waves.values() for wave in waves):
            assert not [word for word in seen | unseen if says(wave, word)], (name, wave)


def test_frames_speak_of_their_own_slot_only():
    entries = BOOK.slots.values()
    tables = [BOOK.waved, *(words for entry in entries for words in entry.values.values())]
    synonyms = [word for words in tables for word in (*words.seen, *words.unseen)]
    nouns = [noun for entry in entries for noun in entry.nouns]
    for name, family in BOOK.families.items():
        for kind in (family.frames, family.waves, family.corrections):
            for slot, frames in kind.items():
                strangers = [noun for other, entry in BOOK.slots.items() if other != slot for noun in entry.nouns]
                for frame in frames:
                    assert not [word for word in (*strangers, *synonyms) if says(frame, word)], (name, frame)
        for frame in (*family.asides, *family.openers, *family.closers):
            assert not [word for word in (*nouns, *synonyms) if says(frame, word)], (name, frame)
    for word in (word for words in BOOK.fillers.values() for word in words):
        assert not [phrase for phrase in (*nouns, *synonyms) if says(word, phrase)], word


def values_in(text: str, slot: str, unseen: bool) -> set:
    """The values (None: waved off) whose phrases stand in `text`, longest first: an independent reading of a clause."""
    table = dict.fromkeys(BOOK.waved.unseen if unseen else BOOK.waved.seen)
    if slot == "target_weight_lb":
        hundredths = [n / 100 for n in range(230, 341)]
        table |= {phrase: value for value in hundredths for phrase in batfit.weight_phrases(value, unseen)}
    else:
        values = BOOK.slots[slot].values
        table |= {
            phrase: value for value, words in values.items() for phrase in (words.unseen if unseen else words.seen)
        }
    found, rest = set(), text.casefold()
    for phrase in sorted(table, key=len, reverse=True):
        if says(rest, phrase):
            found.add(table[phrase])
            rest = rest.replace(phrase.casefold(), "#")
    return found


@pytest.mark.parametrize("family", sorted(BOOK.families))
def test_the_talk_says_what_the_answer_says(family):
    rng = random.Random(f"faithful {family}")
    unseen = BOOK.families[family].use == "unseen"
    for _ in range(25):
        talk, known = batfit.talk_about(BOOK, family, rng)
        spoken = {clause.slot: clause for clause in talk.clauses if clause.slot}
        waved = {slot for slot, clause in spoken.items() if clause.value is None}
        context = known.context.model_dump()
        assert {slot: clause.value for slot, clause in spoken.items() if slot not in waved} == {
            k: v for k, v in context.items() if v is not None
        }
        assert waved == set(known.interaction.skipped)
        for slot, clause in spoken.items():
            assert clause.phrase in clause.text
            assert clause.text.casefold() in talk.text.casefold()
            found = values_in(clause.text, slot, unseen)
            assert clause.value in found, clause
            # a correction names the value it takes back, before the one that holds
            corrected = slot not in waved and BOOK.families[family].corrections.get(slot)
            assert len(found) <= 1 + bool(corrected), clause


@given(st.integers(230, 340))
def test_a_weight_is_the_same_in_every_wording(hundredths):
    value = hundredths / 100
    for phrase in batfit.weight_phrases(value) + batfit.weight_phrases(value, unseen=True):
        words = phrase.replace("pound", "lb").split() if "point" not in phrase else []
        numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", phrase)]
        if "ounces" in phrase:
            assert numbers[0] / 16 == pytest.approx(value, abs=0.0051)
        elif "/" in phrase:
            assert numbers[0] + numbers[1] / numbers[2] == value
        elif numbers and (len(numbers) == 2 or "oz" in phrase):
            assert numbers[0] + numbers[1] / 16 == pytest.approx(value, abs=0.0051)
        elif numbers:
            assert numbers == [value]
        else:
            spoken = [batfit.UNITS.index(word) for word in re.findall(r"[a-z]+", phrase) if word in batfit.UNITS]
            decimal = float(f"{spoken[0]}.{''.join(map(str, spoken[1:]))}")
            assert value == pytest.approx(decimal if not words else spoken[0] + spoken[1] / 16, abs=0.0051)


def test_held_out_synonyms_are_in_their_slice_only_and_seen_ones_are_in_many_families():
    held = [word for entry in BOOK.slots.values() for v in entry.values.values() for word in v.unseen]
    held += BOOK.waved.unseen
    text_of = defaultdict(list)
    for row in samples():
        text_of[row.metadata.get("slice")].append(row.prompt_text)
    elsewhere, inside = "\n".join(text_of[None]), "\n".join(text_of["unseen_synonyms"])
    assert [word for word in held if says(elsewhere, word)] == []
    assert re.findall(r"\d ounces|\d/\d", elsewhere) == []
    assert sum(says(inside, word) for word in held) >= 0.9 * len(held)
    families = defaultdict(str)
    for row in talks():
        families[row.metadata["group"]] += row.prompt_text + "\n"
    for slot, entry in BOOK.slots.items():
        for value, words in entry.values.items():
            for word in words.seen:
                assert sum(says(text, word) for text in families.values()) >= 5, (slot, value, word)
    training = {name for name, family in BOOK.families.items() if family.use == "train"}
    for word in BOOK.waved.seen:
        assert sum(says(families[name], word) for name in training) >= 12, word
    assert all(says(inside, word) for word in BOOK.waved.unseen)
    assert {row.metadata["group"] for row in talks(slice="unseen_synonyms")} == {"podcast_guest", "groundsman_tip"}


def test_families_of_val_tenants_and_the_slice_are_their_own():
    homes = defaultdict(set)
    for row in samples():
        home = tuple(row.metadata.get(key) for key in ("split", "tenant", "slice"))
        homes[row.metadata["group"]].add(home)
    assert all(len(places) == 1 for places in homes.values())


# --- t2_repair


def test_a_repair_is_needed_and_can_be_read_off_the_prompt():
    for row in (row for row in samples() if row.task == "t2_repair"):
        assert row.prompt_text.startswith("Repair: ")
        broken = row.prompt_text.removeprefix("Repair: ")
        with pytest.raises(ValidationError):
            Answer.model_validate_json(broken)
        letters = re.sub(r"[^a-z0-9.]", "", broken.lower())
        target = json.loads(row.response_strong)
        for value in target["context"].values():
            if isinstance(value, float):
                assert str(value) in letters, row.id
            elif value is not None:
                assert value.replace("_", "")[:5].rstrip("yi") in letters, (row.id, value)
        why = target["interaction"]["why_next_question"]
        assert why is None or why.lower().replace(" ", "") in letters or "cut_end" in row.metadata["group"]


def test_faults_are_combined_and_val_combinations_are_new():
    groups = defaultdict(set)
    for row in samples():
        if row.task == "t2_repair":
            groups[row.metadata.get("split", "train")].add(row.metadata["group"])
    assert len(groups["train"]) >= 16
    assert not groups["train"] & groups["val"]
    parts = {use: Counter(part for g in names for part in g.split(":")[1].split("+")) for use, names in groups.items()}
    assert all(parts["train"][part] >= 2 for part in (*parts["train"], *parts["val"]))


def test_the_manifest_keeps_the_layout_corpus_reads():
    rows = list(corpus.read(SAMPLES, batfit.SCHEMAS, "x"))
    assert {row.metadata["schema_version"] for row in rows} == {"x"}


# --- scripts/dataset/samples.py


def test_the_script_writes_the_samples_anew(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "data/samples/batfit"
    folder.mkdir(parents=True)
    (folder / "grammar.yaml").write_bytes((SAMPLES / "grammar.yaml").read_bytes())
    shutil.copytree(SAMPLES.parents[2] / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    workload.load.cache_clear()
    script.main(["-w", "batfit", "--dry-run"])
    assert [path.name for path in folder.iterdir()] == ["grammar.yaml"]
    script.main(["-w", "batfit"])
    assert (folder / "t1_parse/train.jsonl").read_bytes() == (SAMPLES / "t1_parse/train.jsonl").read_bytes()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: fab dataset.convert -w batfit"
    monkeypatch.delattr(batfit, "make_samples")
    with pytest.raises(Stop, match="no make_samples"):
        script.main(["-w", "batfit"])
    workload.load.cache_clear()
