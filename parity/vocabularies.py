"""Tiny tokenizers of each family, trained on a corpus that stands below; same input, same vocabulary."""

import io
import string
import unicodedata
from collections import Counter
from pathlib import Path

CORPUS = [
    "a photo of a cat and a dog on the blue chair",
    "the red circle is left of the green square",
    "two words in one short line about the lazy brown fox",
    "it's what they've said: don't jump over the dogs",
    "고양이 두 마리가 파란 의자에서 잔다",
    "한국어 문장 하나와 빨간 원 그리고 초록 네모",
    "zero birds, 3 cats, 42 dogs and 1000 quick tests",
]


def byte_letters() -> list[str]:
    """The 256 printable stand-ins for bytes, in the order in which CLIP's vocabulary lists them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(printable)))
    return [letters[byte] for byte in [*printable, *(b for b in range(256) if b not in printable)]]


def byte_map() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    order = [*printable, *(b for b in range(256) if b not in printable)]
    return dict(zip(order, byte_letters()))


def learn_merges(words: list[list[str]], count: int) -> list[tuple[str, str]]:
    """Plain byte-pair encoding: the commonest pair first, ties by the pair itself."""
    words, merges = [list(word) for word in words], []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in zip(word, word[1:]))
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in words:
            place = 0
            while place < len(word) - 1:
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = [best[0] + best[1]]
                place += 1
    return merges


def clip_merges(count: int = 40) -> list[tuple[str, str]]:
    letters = byte_map()
    words = []
    for word in " ".join(CORPUS).split():
        symbols = [letters[byte] for byte in word.encode()]
        words.append(symbols[:-1] + [symbols[-1] + "</w>"])
    return learn_merges(words, count)


def clip_vocabulary(merges, start="<|startoftext|>", end="<|endoftext|>") -> dict[str, int]:
    """Bytes, bytes that end a word, merges, start, end: the order of CLIP's own vocabulary."""
    letters = byte_letters()
    entries = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), start, end]
    return {entry: number for number, entry in enumerate(entries)}


def word_piece_vocabulary() -> dict[str, int]:
    """Specials, characters and their continuations, then the corpus's words; jamo for decomposed Korean."""
    words = sorted({word for line in CORPUS for word in line.split() if word.isalpha() and word.isascii()})
    hangul = sorted({c for line in CORPUS for c in line if "가" <= c <= "힣"})
    jamo = sorted({part for c in hangul for part in unicodedata.normalize("NFD", c)})
    specials = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_lowercase, *string.digits]
    entries = [
        *specials, *string.punctuation, *letters, *("##" + c for c in letters),
        *jamo, *("##" + c for c in jamo), *hangul[:20], *("##" + c for c in hangul[:20]),
        *words, "##s", "##ing", "##at",
    ]
    return {entry: number for number, entry in enumerate(dict.fromkeys(entries))}


def train_sentencepiece(path: Path, size: int = 220) -> None:
    """A Unigram model with SigLIP's special ids: <pad> 0, </s> 1, <unk> 2, and a small normalisation table."""
    import sentencepiece
    import sentencepiece.sentencepiece_model_pb2 as schema

    # A full NFKC table would be 240 KB; these few rules exercise the same code.
    rules = {c: unicodedata.normalize("NFKC", c) for c in "ﬁﬂ①②③ⅣⅤ½１２３ＡＢＣａｂｃ\u3000\u00a0"}
    rules |= {c: "" for c in "\u200b\u00ad\ufeff\u0007"}
    table = path.with_suffix(".tsv")
    table.write_text("".join(
        " ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n"
        for source, target in sorted(rules.items())
    ))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3), model_writer=model, vocab_size=size, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
        normalization_rule_tsv=str(table), character_coverage=1.0, hard_vocab_limit=False, num_threads=1,
        minloglevel=2,
    )
    table.unlink()
    # The trainer notes the table's path, which differs from machine to machine.
    proto = schema.ModelProto.FromString(model.getvalue())
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    path.write_bytes(proto.SerializeToString())


def gemma_vocabulary(merge_count: int = 60) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Gemma's order: specials, byte pieces, merges' results, single characters."""
    words = [list(word) for line in CORPUS for word in ("▁" + line.replace(" ", " ▁")).split(" ")]
    characters = sorted({c for word in words for c in word if c.isascii() or c == "▁"} | set("한국어원고양이"))
    known = [word for word in words if all(c in characters for c in word)]
    merges = learn_merges(known, merge_count)
    entries = [
        "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)),
        *dict.fromkeys("".join(pair) for pair in merges), *characters,
    ]
    return {entry: number for number, entry in enumerate(dict.fromkeys(entries))}, merges


def byte_level_vocabulary(
    splitter, merge_count: int, first: list[str] = (), last: list[str] = (), corpus: list[str] = CORPUS
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Specials, the 256 bytes, merges' results, specials: GPT-2's order, and with `first` SmolLM2's.

    `splitter` is the pre-tokenizer whose pieces the merges stay within.
    """
    words = [list(piece) for line in corpus for piece, _ in splitter.pre_tokenize_str(line)]
    merges = learn_merges(words, merge_count)
    entries = [*first, *byte_letters(), *dict.fromkeys("".join(pair) for pair in merges), *last]
    return {entry: number for number, entry in enumerate(entries)}, merges


def llama_vocabulary(merge_count: int = 60) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """LLaMA's order: <unk> 0, <s> 1, </s> 2, byte pieces, merges' results, single characters."""
    words = [list(word) for line in CORPUS for word in ("▁" + line.replace(" ", " ▁")).split(" ")]
    characters = sorted({c for word in words for c in word if c.isascii() or c == "▁"} | set("한국어원고양이"))
    known = [word for word in words if all(c in characters for c in word)]
    merges = learn_merges(known, merge_count)
    entries = [
        "<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)),
        *dict.fromkeys("".join(pair) for pair in merges), *characters,
    ]
    return {entry: number for number, entry in enumerate(dict.fromkeys(entries))}, merges
