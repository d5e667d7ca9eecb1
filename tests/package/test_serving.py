import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import served
import tiny_gemma
from gbnf import pattern
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import contents, llama, llama_grammar, models, prompt, prompt_lookup, serving, workload
from potstill.stop import USAGE, Stop

REPO = Path(__file__).resolve().parents[2]
WORKLOADS = sorted(path.stem for path in (REPO / "configs" / "workloads").glob("*.yaml"))


@pytest.fixture(scope="module")
def package(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.make(tmp_path_factory.mktemp("served") / "package", tiny)


@pytest.fixture(scope="module")
def server(package: Path) -> Iterator[llama.Server]:
    with llama.serve(package / "gguf-q8_0" / served.GGUF, served.NUM_CTX, parallel=1) as server:
        yield server


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_every_artifact_says_how_it_is_served(package: Path) -> None:
    wanted = {f"{kind}/{name}" for kind in ("bf16", "rtn-w4a16") for name in ("vllm.json", "request.json", "README.md")}
    wanted |= {f"gguf-q8_0/{name}" for name in ("llama-server.json", "request.json", "README.md", "Modelfile")}
    wanted |= {"fp16/README.md"} | {
        f"schemas/{t}.{end}" for t in ("t1_parse", "t2_repair") for end in ("json", "gbnf.txt")
    }
    assert all((package / name).is_file() for name in wanted)
    assert not (package / "fp16" / "vllm.json").exists()


def test_everything_that_was_written_may_be_in_a_package(package: Path) -> None:
    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        assert contents.check(path.name, path)[0] == [], path


def test_the_vllm_command_serves_what_was_trained(package: Path) -> None:
    spec = read(package / "bf16" / "vllm.json")
    words = spec["argv"]
    assert words[:3] == ["vllm", "serve", "."]
    assert words[words.index("--dtype") + 1] == "bfloat16"
    assert words[words.index("--max-model-len") + 1] == "1024"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "--enable-prefix-caching" in words
    assert "--trust-remote-code" not in words
    # vLLM reads no do_sample: without this it would sample
    assert json.loads(words[words.index("--override-generation-config") + 1]) == {"temperature": 0.0}
    structured = json.loads(words[words.index("--structured-outputs-config") + 1])
    assert structured == {"backend": "guidance", "disable_any_whitespace": True}
    speculative = json.loads(words[words.index("--speculative-config") + 1])
    assert (speculative["method"], speculative["num_speculative_tokens"]) == ("ngram", prompt_lookup.TRIED)
    assert spec["environment"]["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(("kind", "file"), [("bf16", "vllm.json"), ("gguf-q8_0", "llama-server.json")])
def test_the_readme_shows_the_command_of_the_json(package: Path, kind: str, file: str) -> None:
    text = (package / kind / "README.md").read_text()
    spec = read(package / kind / file)
    blocks = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    # a shell joins lines at a backslash, shlex does not
    words = shlex.split(next(block for block in blocks if "\\\n" in block).replace("\\\n", " "))
    environment = [word for word in words if re.match(r"^[A-Z_]+=", word)]
    assert words[len(environment) :] == spec["argv"]
    assert environment == [f"{key}={value}" for key, value in spec.get("environment", {}).items()]


def test_a_job_that_copies_little_gets_no_speculation(tiny: Path, tmp_path: Path) -> None:
    package = served.make(tmp_path / "package", tiny, copied=0.1, system=None)
    assert "--speculative-config" not in read(package / "bf16" / "vllm.json")["argv"]
    assert "--spec-type" not in read(package / "gguf-q8_0" / "llama-server.json")["argv"]
    readme = (package / "bf16" / "README.md").read_text()
    assert "would save 10% of the steps" in readme
    assert "different system texts" in readme
    assert [m["role"] for m in read(package / "bf16" / "request.json")["messages"]] == ["user"]


def test_llama_server_knows_every_option() -> None:
    import xllamacpp

    program = b"".join(path.read_bytes() for path in Path(xllamacpp.__file__).parent.glob("*.so"))
    words = serving.llama_command("run", "x.gguf", 1024, 4, ngram=True)
    options = [word for word in words if word.startswith("-")]
    assert len(options) > 12
    assert [option for option in options if option.encode() + b"\0" not in program] == []
    assert b"ngram-simple\0" in program
    assert words[words.index("-c") + 1] == "4096", "the context is shared by the slots"


def test_llama_cpp_answers_the_request_with_compact_json(package: Path, server: llama.Server) -> None:
    body = read(package / "gguf-q8_0" / "request.json") | {"max_tokens": 700}
    answer = llama.request(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
    value = json.loads(answer)
    assert list(value) == ["context", "interaction"]
    assert not re.search(r"\s", re.sub(r'"(?:[^"\\]|\\.)*"', "", answer)), "blanks between values"
    assert pattern((package / "schemas" / "t1_parse.gbnf.txt").read_text()).fullmatch(answer)


@pytest.mark.parametrize("name", WORKLOADS)
def test_llama_cpp_takes_every_workloads_grammar(name: str, server: llama.Server, tiny: Path) -> None:
    job, tokenizer = workload.load(name), models.load_tokenizer(tiny)
    ids = prompt.prompt_ids("", "bat and ball", tokenizer)
    for task in job.schemas:
        grammar = llama_grammar.grammar(serving.answer_schema(job, task))
        body = {"prompt": ids, "n_predict": 120, "grammar": grammar, **llama.GREEDY}
        found = llama.request(server, "/completion", body)
        first = next(iter(job.schemas[task].model_fields))
        assert found["content"].startswith(f'{{"{first}":')
        if found["stop_type"] == "eos":
            assert list(json.loads(found["content"])) == list(job.schemas[task].model_fields)
            assert pattern(grammar).fullmatch(found["content"])


@pytest.mark.parametrize("name", ["batfit", "coach", "sibyl"])
def test_the_grammar_takes_the_answers_of_the_samples(name: str) -> None:
    """And none of them with a blank put in, a key left out, or more behind it."""
    job = workload.load(name)
    compiled: dict[str, re.Pattern[str]] = {}
    seen = 0
    for exemplar in job.module.convert(job.samples):
        answer, why = job.check(exemplar.task, json.loads(exemplar.response_strong))
        if answer is None:
            continue
        grammar = compiled.setdefault(
            exemplar.task, pattern(llama_grammar.grammar(serving.answer_schema(job, exemplar.task)))
        )
        text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
        assert grammar.fullmatch(text), (why, text)
        assert not grammar.fullmatch(json.dumps(answer, ensure_ascii=False))
        assert not grammar.fullmatch(text + "\n")
        first = next(iter(answer))
        rest = json.dumps({k: v for k, v in answer.items() if k != first}, separators=(",", ":"), ensure_ascii=False)
        assert not grammar.fullmatch(rest)
        seen += 1
        if seen == 60:
            break
    assert seen == 60


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": {"oneOf": []}}}, "oneOf"),
        ({"type": "object", "properties": {"a": {}}}, "without a type"),
        ({"type": "object"}, "without a type"),
    ],
)
def test_a_schema_without_words_is_refused(schema: dict, said: str) -> None:
    with pytest.raises(Stop, match=said) as stopped:
        llama_grammar.grammar(schema)
    assert stopped.value.code == USAGE


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_the_grammar_takes_any_string_as_json_writes_it(text: str) -> None:
    schema = {"type": "object", "properties": {"say": {"type": "string"}}}
    assert pattern(llama_grammar.grammar(schema)).fullmatch(json.dumps({"say": text}, separators=(",", ":")))


def test_lengths_of_strings_and_lists_are_in_the_grammar() -> None:
    properties = {
        "say": {"type": "string", "minLength": 1, "maxLength": 3},
        "of": {"type": "array", "items": {"enum": ["a", "b"], "type": "string"}, "minItems": 1, "maxItems": 2},
    }
    grammar = pattern(llama_grammar.grammar({"type": "object", "properties": properties}))
    assert grammar.fullmatch('{"say":"abc","of":["a","b"]}')
    for wrong in (
        '{"say":"","of":["a"]}',
        '{"say":"abcd","of":["a"]}',
        '{"say":"a","of":[]}',
        '{"say":"a","of":["a","a","a"]}',
    ):
        assert not grammar.fullmatch(wrong)


def test_copied_answers_save_steps_and_new_ones_do_not() -> None:
    page, other = list(range(100, 200)), list(range(500, 580))
    assert prompt_lookup.steps_saved([(page, page[:80])]) > 0.8
    assert prompt_lookup.steps_saved([(page, other)]) == 0
    assert prompt_lookup.steps_saved([]) == 0
    # a run of one token follows itself
    assert prompt_lookup.steps_saved([(page, [7] * 80)]) > 0.4


tokens = st.lists(st.integers(0, 3), max_size=60)


@settings(max_examples=200)
@given(tokens, tokens)
def test_a_step_says_between_one_and_all_tried_tokens(asked: list[int], answer: list[int]) -> None:
    steps = prompt_lookup._steps(asked, answer)
    assert -(-len(answer) // (prompt_lookup.TRIED + 1)) <= steps <= len(answer)


def test_speculation_changes_no_answer(package: Path, tiny: Path) -> None:
    """The served options in llama.cpp itself: the same answers, by fewer steps."""
    import xllamacpp

    folder = tempfile.mkdtemp(prefix="potstill-")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(package / "gguf-q8_0" / served.GGUF)
    parameters.hostnames = [f"{folder}/llama.sock"]
    parameters.n_parallel, parameters.n_ctx, parameters.n_threads_http = 1, served.NUM_CTX, 3
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity, parameters.offline, parameters.cache_ram_mib = 0, True, 0
    parameters.ui = parameters.warmup = parameters.fit_params = False
    speculative = parameters.speculative
    speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
    speculative.ngram_simple.size_n, speculative.ngram_simple.size_m = prompt_lookup.MATCHED, prompt_lookup.TRIED
    tokenizer = models.load_tokenizer(tiny)
    prompts = [prompt.prompt_ids("", text, tokenizer) for text in tiny_gemma.sentences(6, seed=3)]
    answers = []
    try:
        with llama.serve(package / "gguf-q8_0" / served.GGUF, served.NUM_CTX, parallel=1) as plain:
            answers.append([g.ids for g in llama.generate(plain, prompts, 60)])
        running = xllamacpp.Server(parameters)
        llama._take_signals_back()
        guessing = llama.Server(f"{folder}/llama.sock", served.NUM_CTX, 1, 0)
        found = [
            llama.request(guessing, "/completion", {"prompt": p, "n_predict": 60, **llama.GREEDY}) for p in prompts
        ]
        del running
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    answers.append([f["tokens"] for f in found])
    assert [ids[: len(other)] for ids, other in zip(answers[1], answers[0], strict=True)] == answers[0]
    assert sum(f["timings"].get("draft_n", 0) for f in found) > 0


def test_the_request_asks_as_in_training(package: Path) -> None:
    body = read(package / "bf16" / "request.json")
    message = workload.load("batfit").settings.demo_message
    assert body["messages"] == prompt.messages(tiny_gemma.SYSTEM, message)
    assert body["response_format"]["json_schema"]["schema"] == read(package / "schemas" / "t1_parse.json")
    assert body["temperature"] == 0
