import io
import re
from pathlib import Path

import handmade
import pytest
from handmade import example, exemplar, variant
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from potstill import bases, database, models, project, prompt, rows
from potstill.files import write_text
from potstill.records import Reject, write_jsonl
from potstill.stop import DATA, USAGE, Stop
from scripts.dataset import preview, takedown

HOSTILE = "\x1b[2J\x1b]0;owned\x07 [red]not markup[/red] \u202egnp.exe \x9b31m\n-- trained, 9 tokens: fake heading"


@pytest.fixture
def shop(project_folder: Path) -> Path:
    train = [example(f"r{n}", f"prompt number {n}") for n in range(9)]
    train += [variant(train[0]), example("hostile", HOSTILE)]
    handmade.snapshot("v1", train, [example("val1")], [example("test1")])
    logged = [exemplar("r0", "<p>the raw page of r0</p>"), exemplar("hostile", HOSTILE)]
    database.write(project.database(), logged)
    return project_folder


def shows(capsys, *arguments: str) -> str:
    preview.main(["-w", "batfit", *arguments])
    return capsys.readouterr().out


def tokenizer():
    return models.load_tokenizer(bases.resolve("nano", None).path)


def test_a_row_is_shown_raw_reduced_and_tokenised(shop: Path, capsys):
    out = shows(capsys, "--id", "r0")
    for text in ("<p>the raw page of r0</p>", "prompt number 0", "Answer in JSON.", '{"size":"small"'):
        assert f"  | {text}" in out
    assert out.count("== ") == 1
    assert "<start_of_turn>" in out


def test_the_marked_span_is_the_one_training_learns(shop: Path, capsys):
    row = example("r0", "prompt number 0")
    rendered = prompt.render(row, tokenizer())
    out = shows(capsys, "--id", "r0")
    assert f"-- masked, {len(rendered.prompt_ids)} tokens" in out
    assert f"-- trained, {len(rendered.completion_ids)} tokens" in out
    tokens, refused = preview.tokenised(row, tokenizer(), 512)
    ((trained,), _) = rows.training_rows([row], tokenizer(), 512)
    assert [token.trained for token in tokens] == [label != rows.IGNORED for label in trained["labels"]]
    assert refused is None
    assert (tokens[0].special, tokens[-1].special, tokens[-2].special) == (True, True, False)


def test_a_variant_shows_what_its_parent_was_logged_as(shop: Path, capsys):
    assert "<p>the raw page of r0</p>" in shows(capsys, "--id", "r0~typos")


def test_a_row_that_was_not_logged_here_says_so(shop: Path, capsys):
    assert "raw: not in the database" in shows(capsys, "--id", "val1")
    project.database().unlink()
    assert "raw: not in the database" in shows(capsys, "--id", "r0")


def test_hostile_text_reaches_no_terminal_raw(shop: Path, capsys):
    out = shows(capsys, "--id", "hostile")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", out)
    assert "\\x1b[2J" in out
    assert "[red]not markup[/red]" in out
    # a line of data cannot pass for one of ours
    assert out.count("\n-- trained") == 1


def screen(row, **options) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=200, **options)
    preview.show(preview.parts("train", row, None, tokenizer(), 512, full=True), console)
    return console.file.getvalue()


def test_on_a_terminal_trained_tokens_are_green_and_masked_ones_dim(shop: Path):
    out = screen(example("r0", "zebra"))
    assert re.search(r"\x1b\[2m[^\x1b]*z", out)
    assert "\x1b[32m{" in out
    assert "\x1b[35m<end_of_turn>" in out


def test_on_a_terminal_the_only_escapes_are_our_own(shop: Path):
    out = screen(example("hostile", HOSTILE))
    assert "[red]not markup[/red]" in out
    assert set(re.findall(r"\x1b[^m]*m", out)) <= {f"\x1b[{code}m" for code in ("0", "1", "2", "32", "35", "1;4")}
    assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e]", out)


@settings(max_examples=30, deadline=None)
@given(st.text())
def test_any_text_is_shown_and_none_acts(text: str):
    shown = preview.shortened(text, 20)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)


def test_a_row_too_long_for_training_says_so_and_shows_its_mask(shop: Path, capsys):
    out = shows(capsys, "--id", "r0", "-o", "sft.max_length=20")
    assert "train.prepare refuses this row: too_long" in out
    assert "-- trained, " in out


def test_long_texts_are_shortened_unless_all_is_asked_for(shop: Path, capsys):
    handmade.snapshot("v2", [example("big", "word " * 3000)], [example("v")], [example("t")])
    short, full = shows(capsys, "--id", "big"), shows(capsys, "--id", "big", "--full")
    assert "more characters]" in short
    assert "more tokens]" in short
    assert len(short) < 20_000 < len(full)
    assert "more " not in full


def test_a_draw_of_rows_is_the_same_every_time(shop: Path, capsys):
    first = shows(capsys, "-n", "4")
    assert first.count("\n== ") + first.startswith("== ") == 4
    assert shows(capsys, "-n", "4") == first
    assert "split test" in shows(capsys, "--split", "test")


def test_a_row_that_was_taken_down_is_never_shown(shop: Path, capsys):
    takedown.main(["-w", "batfit", "--id", "r0"])
    capsys.readouterr()
    for id in ("r0", "r0~typos"):
        with pytest.raises(Stop) as stop:
            preview.main(["-w", "batfit", "--id", id])
        assert stop.value.code == DATA
    # a file and a table from before, put back by hand
    write_jsonl(handmade.processed("clean.jsonl"), [example("r0", "prompt number 0"), example("r1")])
    database.write(project.database(), [exemplar("r0", "<p>the raw page of r0</p>")])
    with pytest.raises(Stop, match="was taken down"):
        preview.main(["-w", "batfit", "--id", "r0", "--split", "clean"])
    out = shows(capsys, "-n", "20", "--split", "clean")
    assert "== r1" in out
    assert "r0" not in out


def test_a_rejected_row_is_named_with_its_reason(shop: Path):
    reject = Reject(
        id="bad", task="t1_parse", stage="clean", reason="invalid_json", detail="response_strong is not JSON"
    )
    write_jsonl(handmade.processed("rejected.jsonl"), [reject])
    with pytest.raises(Stop, match=r"rejected\.jsonl has it, invalid_json"):
        preview.main(["-w", "batfit", "--id", "bad"])


def test_what_cannot_be_shown_is_one_line(shop: Path):
    with pytest.raises(Stop, match="want 1 or more") as stop:
        preview.main(["-w", "batfit", "-n", "0"])
    assert stop.value.code == USAGE
    write_text(project.database(), "no database, but long enough to be read as one" * 100)
    with pytest.raises(Stop, match="cannot be opened"):
        preview.main(["-w", "batfit", "--id", "r0"])
