"""Tokens of an answer count by what they write; the loss is the weighted mean over the whole step."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from potstill import loss_weights, models, prompt, rows
from potstill.batches import collator
from potstill.records import Example
from potstill.runs import LossWeights
from projects import REPO
from train_runs import prepare, run_step, small_project, steps_of

SHORT = {"structure": "s", "keys": "k", "values": "v"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(REPO / "models/nano")


def letters(answer: str) -> str:
    return "".join(SHORT[kind] for kind in loss_weights.kinds(answer))


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ('{"a":1}', "skkksvs"),
        ('{"a":"b","c":[null,-2.5e3]}', "skkksvvvskkkssvvvvsvvvvvvss"),
        ('{"a:":"x:\\"y\\""}', "skkkksvvvvvvvvvs"),
        ('["a" , {"k" : {}}]', "svvvssss" + "kkk" + "ssssss" + "s"),
        ("true", "vvvv"),
        ("no JSON: {", "vvvvvvvvvv"),
        ("", ""),
    ],
)
def test_every_character_is_structure_key_or_value(answer, wanted):
    assert letters(answer) == wanted


@given(JSON)
def test_what_is_no_structure_reads_back_as_the_keys_and_values_in_order(value):
    answer = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    found = loss_weights.kinds(answer)
    assert len(found) == len(answer)
    keys, leaves = [], []

    def walk(item):
        if isinstance(item, dict):
            for key, inner in item.items():
                keys.append(json.dumps(key, ensure_ascii=False))
                walk(inner)
        elif isinstance(item, list):
            for inner in item:
                walk(inner)
        else:
            leaves.append(json.dumps(item, ensure_ascii=False))

    walk(value)
    for kind, texts in (("keys", keys), ("values", leaves)):
        assert "".join(c for c, k in zip(answer, found, strict=True) if k == kind) == "".join(texts)


def test_a_token_that_covers_several_kinds_has_the_largest_weight():
    weights = LossWeights(structure=0.5, keys=1.0, values=3.0)
    spans = [(0, 1), (0, 4), (4, 6), (5, 7), (7, 7)]
    assert loss_weights.token_weights('{"a":1}', spans, weights) == [0.5, 1.0, 3.0, 3.0, 0.5]


def example(response: str, words: str = "slow deck") -> Example:
    return Example(
        id="1", task="t", system="Be brief.", prompt=words, response=response, slots={}, metadata={},
        schema_version="1", source_sha256="",
    )  # fmt: skip


def test_weights_stand_beside_the_ids_they_are_of(tokenizer):
    weights = LossWeights(structure=0.25, keys=0.5, values=2.0)
    ((row,), _) = rows.training_rows([example('{"name":"péché","n":12}')], tokenizer, 512, weights)
    assert len(row["weights"]) == len(row["input_ids"])
    pairs = list(zip(row["labels"], row["weights"], strict=True))
    assert all(weight == 0 for label, weight in pairs if label == rows.IGNORED)
    by_text = [(tokenizer.decode([label]), weight) for label, weight in pairs if label != rows.IGNORED]
    assert by_text[-1] == (prompt.END_OF_TURN, 0.25)
    assert {weight for text, weight in by_text if text.strip() and set(text) <= set("12")} == {2.0}


def test_an_answer_of_which_nothing_counts_is_refused(tokenizer):
    kept, refused = rows.training_rows([example("{}")], tokenizer, 512, LossWeights(structure=0.0))
    assert kept == []
    assert [reject.reason for reject in refused] == ["nothing_trained"]
    assert rows.training_rows([example("{}")], tokenizer, 512)[1] == []


class Plain:
    """The part of a trainer that `weighting` builds on: TRL's loss, of a model that foretells with `log_probs`."""

    class args:
        world_size = 1

    def get_batch_samples(self, batches):
        return batches, None

    def compute_loss(self, model, inputs, num_items_in_batch=None):
        return -model(**inputs).log_probs.sum() / num_items_in_batch


def test_the_loss_is_the_weighted_mean_over_the_whole_step_as_computed_by_hand(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(REPO / "models/nano", dtype=torch.float32)
    weights = LossWeights(structure=0.25, keys=0.5, values=2.0)
    examples = [
        example('{"name":"slow","n":12}'),
        example('{"x":[1,2,null]}', "a longer prompt of words"),
        example("[]"),
    ]
    kept, _ = rows.training_rows(examples, tokenizer, 512, weights)
    collate = collator(tokenizer.pad_token_id)
    batches = [collate(kept[:2]), collate(kept[2:])]

    class Outputs:
        log_probs: torch.Tensor

    def forward(input_ids, labels, attention_mask):
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1].log_softmax(-1)
        wanted = labels[:, 1:]
        outputs = Outputs()
        outputs.log_probs = logits.gather(-1, wanted.clamp(min=0)[..., None])[..., 0] * (wanted != rows.IGNORED)
        return outputs

    trainer = loss_weights.weighting(Plain)()
    batches, total = trainer.get_batch_samples(batches)
    with torch.no_grad():
        loss = sum(trainer.compute_loss(forward, batch, num_items_in_batch=total) for batch in batches)
        # by hand: row by row, alone, token by token
        over = under = 0.0
        for row in kept:
            ids = torch.tensor([row["input_ids"]])
            each = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            for at, (label, weight) in enumerate(zip(row["labels"][1:], row["weights"][1:], strict=True)):
                if label != rows.IGNORED:
                    over -= weight * float(each[at, label])
                    under += weight
    assert float(total) == pytest.approx(under)
    assert float(loss) == pytest.approx(over / under, rel=1e-5)


def test_a_rows_loss_does_not_depend_on_its_neighbours(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(REPO / "models/nano", dtype=torch.float32)
    examples = [example(f'{{"n":{n}}}', "word " * n) for n in (1, 40, 9, 80)]
    kept, _ = rows.training_rows(examples, tokenizer, 512)
    collate = collator(tokenizer.pad_token_id)

    def own(batch, row):
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return torch.nn.functional.cross_entropy(logits[row, :-1], batch["labels"][row, 1:], ignore_index=rows.IGNORED)

    together = collate(kept)
    for number, row in enumerate(kept):
        assert float(own(together, number)) == pytest.approx(float(own(collate([row]), 0)), rel=1e-4)


def test_the_plain_loss_has_no_weights_to_compute(tokenizer):
    ((row,), _) = rows.training_rows([example("[]")], tokenizer, 512)
    assert "weights" not in row
    assert "weights" not in collator(tokenizer.pad_token_id)([row])


def test_in_training_equal_weights_are_none_and_others_change_the_loss(tmp_path):
    folder = small_project(tmp_path / "project")
    given = {"plain": None, "equal": "{}", "own": "{structure: 0.1, keys: 0.1, values: 2.0}"}
    for run, weights in given.items():
        options = {"sft.max_steps": 3, "sft.bf16": "false"} | ({"loss_weights": weights} if weights else {})
        prepare(folder, run, **options, **{"sft.gradient_accumulation_steps": 2, "sft.per_device_train_batch_size": 4})
        run_step(folder, "train.run", "-r", run)
    plain, equal, own = (steps_of(folder, run) for run in given)
    assert [row["lines"] for row in own] == [row["lines"] for row in plain]
    for row, other in zip(equal, plain, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert all(abs(row["loss"] - other["loss"]) > 1e-3 for row, other in zip(own, plain, strict=True))
    # the loss on val rows is never weighted
    found = [json.loads((folder / f"models/{run}/metrics.json").read_text())["eval_loss"] for run in given]
    assert found[1] == pytest.approx(found[0], abs=1e-5)
