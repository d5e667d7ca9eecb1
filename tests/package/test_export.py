import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_gemma
import torch
import yaml
from safetensors.torch import load_file

from potstill import headers, manifest, modelfile, models, prompt
from potstill.stop import Stop
from scripts.package import export

RUN = "batfit-tiny"
REPO = Path(__file__).resolve().parents[2]


def hashes(package: Path) -> dict[str, str]:
    files = sorted(p for p in package.rglob("*") if p.is_file())
    return {p.relative_to(package).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_package_holds_what_the_config_lists(exported: Path) -> None:
    package = exported / "models" / RUN / "package"
    assert manifest.verify(package) == []
    tokenizer = {f"bf16/{n}" for n in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")}
    model = {"bf16/config.json", "bf16/generation_config.json", "bf16/model.safetensors", "bf16/chat_template.jinja"}
    served = ("README.md", "request.json")
    model |= {f"bf16/{name}" for name in (*served, "vllm.json")}
    names = ("Modelfile", "llama-server.json", *served)
    ggufs = {f"gguf-{t.lower()}/{n}" for t in ("F16", "Q8_0") for n in (f"{RUN}.{t}.gguf", *names)}
    whole = {"README.md", "LICENSE", "manifest.json", "bom.cdx.json"}
    whole |= {f"schemas/{task}.{end}" for task in ("t1_parse", "t2_repair") for end in ("json", "gbnf.txt")}
    assert set(hashes(package)) == tokenizer | model | ggufs | whole
    assert not list((exported / "models" / RUN).glob(".package.[po]*"))
    made = json.loads((package / "manifest.json").read_text())
    assert made["run"]["run"] == RUN
    assert made["run"]["snapshots"]["test"]["rows"] == 12
    resolved = yaml.safe_load((exported / "models" / RUN / "config.yaml").read_text())
    assert made["train_config"]["sft"]["learning_rate"] == resolved["sft"]["learning_rate"]
    assert made["licence"] == "apache-2.0"
    assert made["scores"] is None
    assert set(made["runtimes"]) == {"bf16", "gguf-f16", "gguf-q8_0"}


def test_weights_are_the_runs_rounded_once(exported: Path) -> None:
    package, run = exported / "models" / RUN / "package", exported / "models" / RUN / "model"
    wanted, found = load_file(run / "model.safetensors"), load_file(package / "bf16/model.safetensors")
    assert all(torch.equal(found[name], wanted[name].bfloat16()) for name in wanted)
    path = package / "gguf-f16" / f"{RUN}.F16.gguf"
    tensor = next(t for t in headers.read_gguf(path)[1] if t.name == "blk.0.attn_q.weight")
    half = wanted["model.layers.0.self_attn.q_proj.weight"].half().numpy().tobytes()
    assert tensor.nbytes == len(half)
    assert half in path.read_bytes()
    _, tokenizer = models.load_folder(package / "bf16", torch.bfloat16)
    assert tokenizer.get_vocab() == models.load_tokenizer(run).get_vocab()
    assert json.loads((package / "bf16/generation_config.json").read_text())["do_sample"] is False


def test_exporting_twice_gives_the_same_bytes(copied: Path) -> None:
    package = copied / "models" / RUN / "package"
    before = hashes(package)
    export.main(["-r", RUN])
    assert hashes(package) == before


def test_scores_of_a_judged_run_are_carried(copied: Path) -> None:
    report = copied / "reports" / RUN / "report.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps({"n": 12, "slot_accuracy": 0.93, "gate": {"verdict": "promote", "reasons": []}}))
    export.main(["-r", RUN, "-o", "artifacts={bf16: {}}"])
    scores = json.loads((copied / "models" / RUN / "package/manifest.json").read_text())["scores"]
    assert (scores["n"], scores["slot_accuracy"], scores["verdict"]) == (12, 0.93, "promote")
    assert scores["json_validity"] is None
    assert not (copied / "models" / RUN / "package/gguf-f16").exists()


def test_the_modelfile_renders_the_training_prompt(exported: Path) -> None:
    text = (exported / "models" / RUN / "package/gguf-q8_0/Modelfile").read_text()
    assert text.startswith(f"FROM ./{RUN}.Q8_0.gguf\n")
    for line in ('PARAMETER stop "<end_of_turn>"', "PARAMETER temperature 0", "PARAMETER num_ctx 1024"):
        assert line in text.splitlines()
    system = text.split('SYSTEM """')[1].split('"""')[0]
    assert system == tiny_gemma.SYSTEM
    go_template = text.split('TEMPLATE """')[1].split('"""')[0]
    tokenizer = models.load_tokenizer(exported / "models" / RUN / "model")
    for said in (system, ""):
        rendered = tokenizer.bos_token + modelfile.render(go_template, said, "bat and ball")
        wanted = prompt.prompt_ids(said, "bat and ball", tokenizer)
        assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == wanted


def test_a_template_that_a_modelfile_cannot_hold_is_refused(exported: Path) -> None:
    tokenizer = models.load_tokenizer(exported / "models" / RUN / "model")
    tokenizer.chat_template = "{{ bos_token }}{{ messages[-1]['content'] | upper }}"
    with pytest.raises(Stop, match="fixed text"):
        modelfile.template(tokenizer)


def test_a_gemma_base_brings_its_notice(copied: Path) -> None:
    path = copied / "models" / RUN / "run.json"
    record = json.loads(path.read_text())
    record["base"]["name"] = "google/gemma-3-270m-it"
    path.write_text(json.dumps(record))
    export.main(["-r", RUN, "-o", "artifacts={gguf-q8_0: {}}"])
    package = copied / "models" / RUN / "package"
    assert "ai.google.dev/gemma/terms" in (package / "NOTICE").read_text()
    assert headers.read_gguf(package / "gguf-q8_0" / f"{RUN}.Q8_0.gguf")[0]["general.license"] == "gemma"
    assert manifest.verify(package) == []


@pytest.mark.parametrize(
    ("override", "code", "said"),
    [
        ("num_ctx=64", 65, "tokens, num_ctx is 64"),
        ("num_ctx=4096", 65, "the model reads 1024"),
        ("artifacts={gguf-q8: {}}", 2, "gguf-q8_0"),
        ("slot=2", 2, "slots"),
    ],
)
def test_a_wrong_config_leaves_the_old_package(copied: Path, override: str, code: int, said: str) -> None:
    before = hashes(copied / "models" / RUN / "package")
    with pytest.raises(Stop, match=said) as stopped:
        export.main(["-r", RUN, "-o", override])
    assert stopped.value.code == code
    assert hashes(copied / "models" / RUN / "package") == before


def test_a_pi_bundle_on_request(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export.main(["-r", RUN, "-c", "pi"])
    assert "gguf-q4_0 for llama.cpp on aarch64: untested" in capsys.readouterr().err
    package = copied / "models" / RUN / "package"
    assert manifest.verify(package) == []
    name = f"{RUN}.Q4_0.gguf"
    assert (package / "pi" / name).samefile(package / "gguf-q4_0" / name)
    before = hashes(package)
    export.main(["-r", RUN, "-c", "pi"])
    assert hashes(package) == before


def test_what_a_runtime_refuses_is_written_as_it_takes_it(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export.main(["-r", RUN, "-o", "artifacts={fp16: {}}", "-o", "runtimes={vllm-rocm: gfx942}"])
    assert "bf16 will be written instead" in capsys.readouterr().err
    package = copied / "models" / RUN / "package"
    assert (package / "bf16" / "vllm.json").is_file()
    assert not (package / "fp16").exists()


def test_dry_run_writes_nothing(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copied / "models" / RUN / "package")
    export.main(["-r", RUN, "--dry-run"])
    assert "gguf-q8_0" in capsys.readouterr().out
    assert not (copied / "models" / RUN / "package").exists()


def test_killed_at_any_stage_the_old_package_stays_whole(copied: Path) -> None:
    """Kills a real export as soon as each of its files appears, then lets one finish."""
    target = copied / "models" / RUN
    before = hashes(target / "package")
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "scripts.package.export", "-r", RUN]
    for stage in (".float32/config.json", "gguf-q8_0/README.md"):
        process = subprocess.Popen(
            command, cwd=copied, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while process.poll() is None and not (target / ".package.partial" / stage).exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert manifest.verify(target / "package") == []
        assert hashes(target / "package") == before
    export.main(["-r", RUN])
    assert hashes(target / "package") == before
    assert not list(target.glob(".package.p*"))


def test_a_kill_between_the_two_renames_is_mended(copied: Path) -> None:
    target = copied / "models" / RUN
    before = hashes(target / "package")
    (target / "package").rename(target / ".package.old")
    with pytest.raises(Stop):
        export.main(["-r", RUN, "-o", "num_ctx=64"])
    assert hashes(target / "package") == before
