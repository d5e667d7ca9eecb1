"""The nano base's tokenizer: SentencePiece BPE with Gemma's control tokens, as tokenizer.model and tokenizer.json.

Three readers must agree on every text: SentencePiece and llama.cpp join the adjacent pair whose union has the best
score, leftmost first; Hugging Face joins the pair with the lowest merge rank. So scores fall strictly with the rank,
every way to split a piece in two is a merge of that piece's rank, and no piece can overlap itself when it is joined.
A space is always a symbol of its own, so a word has the same tokens after a space, a quote or an underscore.
"""

import io
import re
import tempfile
from pathlib import Path
from typing import Any

from potstill.files import atomic_open, write_json

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
PAD, EOS, BOS, UNK, END_OF_TURN = 0, 1, 2, 3, 6
SPACE = "▁"  # how SentencePiece writes a space
TOPIC_WEIGHTS = {"function": 60, "spanish": 1, "german": 1, "french": 1, "hindi": 1}
CAPITALISED = ("function", "verb", "adjective", "sport", "shop")
TEMPLATE = Path(__file__).with_name("chat_template.jinja")

# Whitespace runs and the punctuation runs of compact JSON and HTML, each made of two earlier pieces, best first.
RUNS = [
    "\n\n", SPACE * 2, SPACE * 4, SPACE * 8,
    '":', ',"', '{"', '":"', '","', '"}', '"]', '":{"', '["', '":["', '"},', '"],"', '"},"', '},"', '"},{"', "}}",
    '"}}', '"}]', '[{"', '":[{"', '":[', '":{', "],", '],"', "[]", "{}", '":[]', '":[],"', '":null', '":null,"',
    '":null}', '":null}}', '":null},"', '":true', '":true,"', '":false', '":false,"',
    "</", '="', '">', "/>", "><", "--", "==", "->", "//", "://", "**", "##",
]  # fmt: skip
# characters that have a token of their own; all others are spelt in bytes
CHARACTERS = (
    "\n\t"
    + SPACE
    + "".join(map(chr, range(33, 127)))
    + "£€¥°×½¼¾–—’‘“”…·•éèêëáàâäãåæçíìîïñóòôöõøœßúùûüýÉÈÁÀÄÅÇÍÑÓÖØÚÜ¿¡"
)


def weights(words: dict[str, list[str]]) -> dict[str, int]:
    """How much each word counts: every topic that has it adds 4, function words 60; a capital form adds 1."""
    counts: dict[str, int] = {}
    for topic, members in words.items():
        for word in members:
            counts[word] = counts.get(word, 0) + TOPIC_WEIGHTS.get(topic, 4)
            if topic in CAPITALISED and word.islower():
                counts[word.capitalize()] = counts.get(word.capitalize(), 0) + (8 if topic == "function" else 1)
    return counts


def train(words: dict[str, int], vocabulary: int) -> list[str]:
    """The pieces, in id order, of a SentencePiece BPE trained on `words` (word -> weight): at most `vocabulary`."""
    room = vocabulary - len(CONTROL) - 256 - len(CHARACTERS)
    merged = list(RUNS)
    for piece in _learn(words, vocabulary + 512):
        # "did" would keep "di" and "id" out; it can do without a token of its own
        if len(piece) == 1 or piece in merged or (len(piece) == 3 and piece[0] == piece[2]):
            continue
        merged += _path(piece, merged)[: room - len(merged)]
    return [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *merged, *CHARACTERS]


def _path(piece: str, merged: list[str]) -> list[str]:
    """`piece`, after the part it needs when the pieces it was learned from were left out; nothing when it cannot be."""
    known = {*CHARACTERS, *merged}
    if splits(piece, known):
        return [] if _disturbs(piece, merged, known) else [piece]
    for i in range(1, len(piece)):
        for part, rest in ((piece[:i], piece[i:]), (piece[i:], piece[:i])):
            if rest in known and splits(part, known) and not _disturbs(part, merged, known):
                return [part, *_path(piece, [*merged, part])]
    return []


def _disturbs(piece: str, merged: list[str], known: set[str]) -> bool:
    """Whether with this piece some piece could overlap itself when joined."""
    wider = known | {piece}
    touched = [whole for whole in merged if whole.startswith(piece) or whole.endswith(piece)]
    return any(overlaps_itself(whole, wider) for whole in (piece, *touched))


def _learn(words: dict[str, int], vocabulary: int) -> list[str]:
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "words.tsv"
        corpus.write_text("".join(f"{word}\t{weight}\n" for word, weight in sorted(words.items())), encoding="utf-8")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus),
            input_format="tsv",
            model_writer=model,
            model_type="bpe",
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            byte_fallback=True,
            num_threads=1,
            minloglevel=2,
        )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [
        processor.id_to_piece(i)
        for i in range(processor.get_piece_size())
        if not (processor.is_control(i) or processor.is_byte(i) or processor.is_unknown(i))
    ]


def splits(piece: str, known: set[str]) -> list[tuple[str, str]]:
    """Every way to make `piece` from two known pieces."""
    pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
    return [(left, right) for left, right in pairs if left in known and right in known]


def overlaps_itself(piece: str, known: set[str]) -> bool:
    """Whether X T Y can be joined to the piece as (X T) or as (T Y): there, two greedy joiners may differ."""
    pairs = splits(piece, known)
    return any(a != c and b == c for a, b in pairs for c, _ in pairs)


def merge_rules(pieces: list[str]) -> list[tuple[str, str]]:
    """Hugging Face merges of the pieces that `train` returns, best first."""
    normal = pieces[len(CONTROL) + 256 :]
    known = set(normal)
    return [pair for piece in normal if len(piece) > 1 for pair in splits(piece, known)]


def write(pieces: list[str], folder: Path) -> list[Path]:
    """Writes tokenizer.model, tokenizer.json, tokenizer_config.json, special_tokens_map.json and the chat template."""
    model = folder / "tokenizer.model"
    with atomic_open(model, "wb") as file:
        file.write(sentencepiece_model(pieces))
    fast = huggingface_tokenizer(pieces)
    written = [Path(name) for name in fast.save_pretrained(str(folder))]
    # transformers 5 keeps these in tokenizer_config.json; older readers look here
    tokens = folder / "special_tokens_map.json"
    write_json(tokens, {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "mask", "pad", "unk")})
    return sorted({model, tokens, *(path for path in written if path.is_file())})


def sentencepiece_model(pieces: list[str]) -> bytes:
    """The model file; format: sentencepiece_model.proto of SentencePiece 0.2."""
    from sentencepiece import sentencepiece_model_pb2

    model: Any = vars(sentencepiece_model_pb2)["ModelProto"]()  # protobuf makes its classes at import
    kind = model.SentencePiece
    for index, piece in enumerate(pieces):
        if piece in CONTROL:
            model.pieces.add(piece=piece, score=0.0, type=kind.UNKNOWN if piece == "<unk>" else kind.CONTROL)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
            model.pieces.add(piece=piece, score=0.0, type=kind.BYTE)
        else:
            model.pieces.add(piece=piece, score=float(len(CONTROL) + 256 - 1 - index), type=kind.NORMAL)
    trainer = model.trainer_spec
    trainer.model_type = trainer.BPE
    trainer.vocab_size = len(pieces)
    trainer.byte_fallback = True
    trainer.split_digits = True
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = PAD, EOS, BOS, UNK
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece = "<pad>", "<eos>", "<bos>"
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    return model.SerializeToString(deterministic=True)


def huggingface_tokenizer(pieces: list[str]):
    """The same tokenizer as a transformers GemmaTokenizer."""
    from transformers import GemmaTokenizer

    merges: Any = merge_rules(pieces)  # annotated as text upstream, but pairs are what it reads
    return GemmaTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        add_bos_token=True,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
        chat_template=TEMPLATE.read_text(encoding="utf-8"),
    )
