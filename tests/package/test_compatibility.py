from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import compatibility, config, runtime_table
from potstill.runtime_table import ARTIFACTS, RUNTIMES
from potstill.stop import USAGE, Stop

REPO = Path(__file__).resolve().parents[2]
TABLE = runtime_table.load(REPO / "configs" / "runtimes.yaml")
FAMILY = "gemma3_text"
ROW = {
    "families": [FAMILY],
    "dtype": "bfloat16",
    "quantisations": ["none"],
    "runtimes": ["vllm-rocm"],
    "architectures": ["gfx942"],
    "verdict": "works",
    "words": "it was seen to load",
    "source": "https://example.org/",
}


def check(artifacts: list[str], targets: dict[str, str | None]) -> compatibility.Checked:
    return compatibility.check(FAMILY, artifacts, targets, TABLE)


def table(folder: Path, *rows: dict) -> Path:
    path = folder / "runtimes.yaml"
    # a date without quotes, as people write it
    path.write_text(yaml.safe_dump({"rows": [ROW | row for row in rows]}).replace("'2026-11-21'", "2026-11-21"))
    return path


def test_fp16_for_vllm_is_written_as_bf16() -> None:
    checked = check(["fp16", "gguf-q8_0"], {"vllm-rocm": "gfx942", "llama.cpp": "x86_64"})
    assert checked.artifacts == ["gguf-q8_0", "bf16"]
    said = [str(finding) for finding in checked.findings]
    assert len(said) == 1
    assert said[0].startswith("fp16 for vllm-rocm on gfx942: vLLM will not load fp16 Gemma 3")
    assert "bf16 will be written instead" in said[0]
    assert "https://github.com/vllm-project/vllm/" in said[0]


def test_fp16_stays_where_another_runtime_takes_it() -> None:
    checked = check(["fp16"], {"vllm-cuda": "sm90", "transformers": "sm90"})
    assert checked.artifacts == ["fp16", "bf16"]
    assert {finding.verdict for finding in checked.findings} == {"refused", "warns"}


def test_what_works_is_not_talked_about() -> None:
    checked = check(["bf16", "gguf-q8_0"], {"vllm-rocm": "gfx942", "llama.cpp": "x86_64"})
    assert checked == compatibility.Checked(["bf16", "gguf-q8_0"], [])


def test_a_refused_artifact_beside_one_that_loads_is_a_finding() -> None:
    checked = check(["bf16", "rtn-w8a16"], {"vllm-cpu": "x86_64"})
    assert checked.artifacts == ["bf16", "rtn-w8a16"]
    assert [(f.artifact, f.verdict, f.instead) for f in checked.findings] == [("rtn-w8a16", "refused", None)]
    assert "it loads bf16" in str(checked.findings[0])


@pytest.mark.parametrize(
    ("artifacts", "targets", "said"),
    [
        (["rtn-w8a16"], {"vllm-cpu": "x86_64"}, "leave runtimes.vllm-cpu out"),
        (["fp16"], {"vllm-cuda": "sm75"}, "leave runtimes.vllm-cuda out"),
        (["bf16"], {"vllm-rcm": None}, "Did you mean 'vllm-rocm'"),
        (["bf16"], {"vllm-rocm": "mi300"}, "want an architecture such as gfx1100"),
        (["bf17"], {"vllm-rocm": "gfx942"}, "Did you mean 'bf16'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(artifacts, targets, said) -> None:
    with pytest.raises(Stop, match=said) as stopped:
        check(artifacts, targets)
    assert stopped.value.code == USAGE


@pytest.mark.parametrize(
    ("artifact", "runtime", "said"),
    [
        ("bf16", "ollama", "nothing for ollama: warns: artifacts has no GGUF file, such as gguf-q8_0"),
        ("gguf-q8_0", "vllm-rocm", "nothing for vllm-rocm: warns: artifacts has no Hugging Face folder, such as bf16"),
    ],
)
def test_a_runtime_that_reads_none_of_the_formats_is_told(artifact: str, runtime: str, said: str) -> None:
    checked = check([artifact], {runtime: None})
    assert checked.artifacts == [artifact]
    assert [str(finding) for finding in checked.findings] == [said]


def test_an_unknown_gpu_is_untested_and_an_unknown_family_too() -> None:
    assert [f.verdict for f in check(["bf16"], {"vllm-rocm": "gfx906"}).findings] == ["untested"]
    found = compatibility.check("gemma4_text", ["bf16"], {"vllm-rocm": "gfx942"}, TABLE).findings
    assert [f.verdict for f in found] == ["untested"]


def test_without_a_gpu_the_rows_that_differ_are_named() -> None:
    (finding,) = check(["bf16"], {"vllm-cuda": None}).findings
    assert finding.verdict == "untested"
    assert "refused on sm70, sm75" in finding.words
    assert "runtimes.vllm-cuda" in finding.words


targets = st.dictionaries(
    st.sampled_from(RUNTIMES), st.sampled_from([None, "gfx942", "gfx906", "sm75", "sm90", "x86_64", "aarch64"])
)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(sorted(ARTIFACTS)), min_size=1, unique=True), targets)
def test_every_target_gets_something_it_does_not_refuse(artifacts: list[str], wanted: dict) -> None:
    try:
        checked = check(artifacts, wanted)
    except Stop:
        return
    for runtime, architecture in wanted.items():
        if not any(runtime_table.reads(runtime, kind) for kind in artifacts):
            continue
        own = [kind for kind in checked.artifacts if runtime_table.reads(runtime, kind)]
        verdicts = [compatibility.look_up(TABLE, FAMILY, kind, runtime, architecture).verdict for kind in own]
        assert set(verdicts) - {"refused"}, f"{runtime} can load none of {own}"
    # only what was replaced is gone, and only a replacement is new
    replaced = {finding.artifact for finding in checked.findings if finding.instead}
    assert set(artifacts) - set(checked.artifacts) <= replaced
    assert set(checked.artifacts) - set(artifacts) <= {f.instead for f in checked.findings}
    assert checked == check(artifacts, wanted)


def test_a_manifest_has_every_runtime_that_reads_the_artifact() -> None:
    said = compatibility.runtimes(FAMILY, ["bf16", "gguf-q4_0"], TABLE)
    assert set(said["bf16"]) == {"transformers", "vllm-cuda", "vllm-rocm", "vllm-cpu"}
    assert set(said["gguf-q4_0"]) == {"llama.cpp", "ollama"}
    assert "refused on sm70, sm75" in said["bf16"]["vllm-cuda"]
    assert said["bf16"]["transformers"].startswith("works on x86_64: ")
    assert "https://" in said["bf16"]["vllm-rocm"]
    assert compatibility.runtimes("gemma4_text", ["bf16"], TABLE)["bf16"]["vllm-rocm"] == "untested"


def test_every_artifact_of_the_shipped_configs_is_in_the_table() -> None:
    for path in (REPO / "configs" / "package").glob("*.yaml"):
        for kind in config.read_yaml(path)["artifacts"]:
            runtime = "llama.cpp" if kind.startswith("gguf") else "transformers"
            assert check([kind], {runtime: "x86_64"}).artifacts == [kind]


def test_the_table_in_the_documentation_is_the_table() -> None:
    text = (REPO / "docs" / "compatibility.md").read_text()
    assert runtime_table.markdown(TABLE) in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "maybe"}, "rows.0.verdict is 'maybe'"),
        ({"sources": "https://example.org/"}, "unknown key 'rows.0.sources'"),
        ({"source": "somebody said so"}, "rows.0.source"),
        ({"architectures": ["MI300X"]}, "rows.0.architectures"),
        ({"runtimes": ["vllm"]}, "rows.0.runtimes.0"),
        ({"instead": "bf17"}, "rows.0.instead"),
        ({"checked": "yesterday"}, "rows.0.checked"),
    ],
)
def test_a_wrong_row_names_file_row_and_key(tmp_path: Path, change: dict, said: str) -> None:
    path = table(tmp_path, {"checked": "2026-11-21", **change})
    with pytest.raises(Stop) as stopped:
        runtime_table.load(path)
    assert stopped.value.code == USAGE
    assert str(path) in str(stopped.value)
    assert said in str(stopped.value)


def test_two_rows_of_the_same_are_refused(tmp_path: Path) -> None:
    one = {"checked": "2026-11-21", "architectures": ["gfx942", "gfx90a"]}
    with pytest.raises(
        Stop, match=r"rows\.0 and rows\.1 both speak of gemma3_text x bfloat16 x none x vllm-rocm x gfx90a"
    ):
        runtime_table.load(table(tmp_path, one, one | {"architectures": ["gfx1100", "gfx90a"], "verdict": "refused"}))


def test_a_named_architecture_comes_before_any(tmp_path: Path) -> None:
    any_other = {"checked": "2026-11-21", "architectures": ["any"], "verdict": "refused"}
    rows = runtime_table.load(table(tmp_path, {"checked": "2026-11-21"}, any_other))
    assert compatibility.check(FAMILY, ["bf16"], {"vllm-rocm": "gfx942"}, rows).findings == []
    with pytest.raises(Stop):
        compatibility.check(FAMILY, ["bf16"], {"vllm-rocm": "gfx906"}, rows)


@pytest.mark.parametrize(
    ("said", "architecture"),
    [
        ("gfx942:sramecc+:xnack-", "gfx942"),
        ("gfx90a", "gfx90a"),
        ("9.0", "sm90"),
        ("12.0", "sm120"),
        ("x86_64", "x86_64"),
        ("AMD64", "x86_64"),
        ("arm64", "aarch64"),
    ],
)
def test_what_drivers_and_kernels_call_an_architecture(said: str, architecture: str) -> None:
    assert compatibility.architecture_of(said) == architecture
    assert runtime_table.ARCHITECTURE.match(architecture)


@pytest.mark.parametrize("said", ["", "riscv64", "gfx942; rm -rf", "90"])
def test_another_architecture_is_refused(said: str) -> None:
    with pytest.raises(Stop):
        compatibility.architecture_of(said)


def test_this_machine_has_one() -> None:
    assert runtime_table.ARCHITECTURE.match(compatibility.this_machine())
