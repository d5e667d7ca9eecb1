"""fab -H test ops.push train.run ops.fetch: a real training on the other side of a real sshd."""

import json
import shutil
from pathlib import Path

from projects import REPO, Distilled, run_script


def test_a_run_is_trained_there_and_comes_back(remote_host, checkout: Path, distilled: Distilled) -> None:
    shutil.copytree(distilled.folder / "data/processed", checkout / "data/processed")
    shutil.copy(distilled.folder / "configs/datasets.yaml", checkout / "configs")
    shutil.copytree(REPO / "models/nano", checkout / "models/nano")
    run_script(checkout, "train.prepare", "-r", "far", "-o", "sft.max_steps=3")
    done = remote_host.fab(checkout, "ops.push", "train.run", "ops.fetch")
    assert done.returncode == 0, done.stdout + done.stderr
    here, there = Path("models/far"), remote_host.directory / "models/far"
    assert json.loads((here / "metrics.json").read_text())["steps"] == 3
    for name in ("model.safetensors", "tokenizer.model", "config.json"):
        assert (here / "model" / name).read_bytes() == (there / "model" / name).read_bytes()
    assert not (remote_host.directory / ".env").exists()
    # what came back is a run like any other
    run_script(checkout, "eval.generate", "-r", "far", "--limit", "2")
