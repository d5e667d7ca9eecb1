"""A tiny random Gemma 3 with a real SentencePiece tokenizer, and a run around it that looks trained."""

import io
import random
import shutil
from pathlib import Path

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{% set lead = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set lead = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "{{ '<start_of_turn>' + ('model' if turn['role'] == 'assistant' else turn['role']) + '\n' }}"
    "{{ (lead if loop.first else '') + turn['content'] | trim }}{{ '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
WORDS = ["bat", "ball", "pitch", "slow", "low", "light", "pickup", "heavy", "sweet", "spot", "nets", "home", "turf"]
SYSTEM = 'Turn cricket talk into JSON. Answer with {"bat": ..., "kg": ...} only.'


def sentences(count: int = 400, seed: int = 5) -> list[str]:
    generator = random.Random(seed)
    rows = []
    for i in range(count):
        words = generator.choices(WORDS, k=generator.randint(3, 12))
        rows.append(f'{" ".join(words)}, {i / 7:.2f} lb; {{"bat":"{words[0]}","kg":{i % 10}}}')
    return rows


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """tokenizer.model by SentencePiece, and the same tokens and merges as a Hugging Face tokenizer."""
    import sentencepiece
    from transformers import GemmaTokenizer

    model = io.BytesIO()
    own = ["<mask>", "<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sentences(), SYSTEM, "user model"]),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=own,
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>"},
        **{"eos_piece": "<eos>", "bos_piece": "<bos>", "unk_piece": "<unk>"},
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.vocab_size())}
    merges = []
    for piece, i in vocab.items():
        halves = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        merges += [(-pieces.get_score(i), vocab[a], vocab[b], a, b) for a, b in halves if a in vocab and b in vocab]
    tokenizer = GemmaTokenizer(vocab=vocab, merges=[(a, b) for *_, a, b in sorted(merges)])
    tokenizer.add_tokens(own[3:])
    tokenizer.add_special_tokens({"additional_special_tokens": own[1:3]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def write_model(folder: Path, seed: int = 0, **shape: object) -> Path:
    """A random Gemma 3 text model with the tokenizer in `folder`; its norms are not the all-zero they start as."""
    import torch
    from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    settings = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    settings |= {"num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}
    settings |= {"max_position_embeddings": 1024, "vocab_size": len(tokenizer), **shape}
    settings |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    model = Gemma3ForCausalLM(Gemma3TextConfig(**settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0, 0.3 if name.endswith("norm.weight") else weight.shape[-1] ** -0.5)
            # with tied weights a token would answer itself, did the layers not add more than the embedding
            if "post_" in name:
                weight.add_(2.0)
        # logits that lie apart, for a tie is broken by rounding
        model.model.norm.weight.add_(4.0)
        # bytes that are no UTF-8 are shown differently by the two engines; this model says none
        said = [i for token, i in tokenizer.get_vocab().items() if token.startswith("<0x")]
        model.model.embed_tokens.weight[said] *= 0.1
    model.generation_config.eos_token_id = [1, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    model.save_pretrained(folder)
    return folder


def make_run(folder: Path, base: Path, run: str = "batfit-tiny", rows: int = 12) -> str:
    """models/<run>/ in the project `folder` as train.run leaves it, with a snapshot; the weights are random."""
    from potstill import runs
    from potstill.files import canonical_json, sha256_file, sha256_text, write_json
    from potstill.records import Example, write_jsonl

    answer = canonical_json({"context": {}, "interaction": {}})
    texts = sentences(rows, seed=11)
    snapshots = {}
    for split in ("train", "val", "test"):
        path = Path("data/processed/batfit") / f"{split}.v1.jsonl"
        examples = [
            Example(
                **{"id": f"{split}-{i}", "task": "t1_parse", "system": SYSTEM, "prompt": text, "response": answer},
                **{"slots": {}, "metadata": {}, "schema_version": "1", "source_sha256": sha256_text(text)},
            )
            for i, text in enumerate(texts)
        ]
        write_jsonl(folder / path, examples)
        snapshots[split] = {"file": str(path), "rows": rows, "sha256": sha256_file(folder / path)}
    target = folder / "models" / run
    shutil.copytree(base, target / "model")
    write_model(target / "model", seed=1)
    record = {"run": run, "workload": "batfit", "created_at": "2026-11-20T22:00:00+00:00", "train_config": "nano"}
    record |= {"mode": "full", "snapshot": "v1", "snapshots": snapshots, "git_commit": "0" * 40, "git_dirty": False}
    record |= {"base": {"name": "nano", "path": str(base), "revision": None, "sha256": "0" * 64}}
    record |= {"lock_sha256": None, "seed": 17, "device": "cpu"}
    write_json(target / "run.json", runs.RunRecord.model_validate(record).model_dump())
    shutil.copy(folder / "configs/train/nano.yaml", target / "config.yaml")
    write_json(target / "metrics.json", {})
    return run
