from pathlib import Path

import pytest

from potstill import config, runs
from potstill.stop import USAGE, Stop
from potstill.workload import WorkloadConfig


def write(folder: Path, name: str, text: str) -> None:
    (folder / "configs/train" / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize("name", ["nano", "gemma3-270m"])
def test_the_shipped_train_configs_load(project_folder: Path, name: str):
    assert runs.train_config(name).sft.learning_rate > 0


def test_an_unknown_key_names_the_nearest(project_folder: Path):
    with pytest.raises(Stop, match=r"unknown key 'sft\.learning_rat'.*Did you mean 'learning_rate'") as stop:
        runs.train_config("nano", ["sft.learning_rat=1.0e-3"])
    assert stop.value.code == USAGE


def test_yaml_that_reads_a_number_as_text_is_explained(project_folder: Path):
    with pytest.raises(Stop, match=r"sft\.learning_rate is '1e-5'.*write 1\.0e-5"):
        runs.train_config("nano", ["sft.learning_rate=1e-5"])


def test_an_unknown_config_names_the_nearest(project_folder: Path):
    with pytest.raises(Stop, match=r"nanno\.yaml is not there\. Did you mean 'nano'"):
        runs.train_config("nanno")


@pytest.mark.parametrize(("text", "message"), [("- a", "want a mapping"), ("a: [", "not YAML")])
def test_what_is_no_mapping_is_refused(project_folder: Path, text: str, message: str):
    write(project_folder, "broken", text)
    with pytest.raises(Stop, match=message):
        runs.train_config("broken")


@pytest.mark.parametrize("override", ["no-equals", "=1", "base.deeper=1", "sft.seed=[1"])
def test_a_malformed_override_is_refused(project_folder: Path, override: str):
    with pytest.raises(Stop, match="-o "):
        config.load(Path("configs/train/nano.yaml"), runs.TrainConfig, [override])


def test_lora_mode_needs_its_section(project_folder: Path):
    with pytest.raises(Stop, match="mode 'lora' needs section 'lora'"):
        runs.train_config("nano", ["mode=lora"])


def test_a_key_under_a_name_of_the_users_own_is_checked_too(project_folder: Path):
    path = project_folder / "configs/workloads/batfit.yaml"
    path.write_text(path.read_text().replace("calls_per_day: 20000", "calls_a_day: 20000"))
    with pytest.raises(Stop, match=r"unknown key 'tasks\.t1_parse\.calls_a_day'\. Did you mean 'calls_per_day'"):
        config.load(path, WorkloadConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nano\nbase: other\n", r"the key 'base' is there twice.*line 2"),
        ("sft: {seed: 1, seed: 2}\n", "the key 'seed' is there twice"),
        ("on: nano\n", "the key on is a boolean; quote it"),
    ],
)
def test_what_yaml_takes_in_silence_is_refused(project_folder: Path, text: str, message: str):
    write(project_folder, "odd", text)
    with pytest.raises(Stop, match=message) as stop:
        runs.train_config("odd")
    assert stop.value.code == USAGE


def test_merged_keys_may_be_overridden(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("base: &base {x: 1, y: 2}\nown: {<<: *base, x: 3}\n")
    assert config.read_yaml(tmp_path / "a.yaml")["own"] == {"x": 3, "y": 2}
