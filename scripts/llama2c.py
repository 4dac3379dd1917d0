#!/usr/bin/env python3
"""Turn a model of llama2.c (model.bin and tokenizer.bin) into a LLaMA folder that Dari and transformers open.

    llama2c.py MODEL.bin TOKENIZER.bin FOLDER

The format is that of llama2.c's first export: seven whole numbers, then f32 tensors, a kind after the other with
its layers side by side (https://github.com/karpathy/llama2.c). Its rotary embedding turns neighbours, transformers'
turns halves of a head: rows of the query and key projections are reordered for it. Needs Python alone.
"""

import argparse
import json
import struct
import sys
from pathlib import Path

BEGIN, END = 1, 2


def write_folder(model, words, folder):
    """Writes model.safetensors, the tokenizer, and the configs."""
    width, hidden, layers, heads, groups, vocabulary, context = struct.unpack_from("<7i", model)
    tied, vocabulary = vocabulary > 0, abs(vocabulary)
    if min(width, hidden, layers, heads, groups, vocabulary, context) < 1 or width % heads or heads % groups:
        raise ValueError(f"not a model of llama2.c: its header says {struct.unpack_from('<7i', model)}")
    head = width // heads
    keys = groups * head
    tensors, at = {}, 28

    def take(shape, count=1):
        nonlocal at
        size = 4
        for side in shape:
            size *= side
        if at + count * size > len(model):
            raise ValueError(f"the file ends at byte {len(model)}, inside a tensor of {shape}")
        parts = [model[at + i * size: at + (i + 1) * size] for i in range(count)]
        at += count * size
        return parts

    def each(name, shape, change=lambda part: part):
        for layer, part in enumerate(take(shape, layers)):
            tensors[f"model.layers.{layer}.{name}.weight"] = (shape, change(part))

    def halves(part):
        """Rows (pair, side) of each head to (side, pair)."""
        row = 4 * width
        rows = [part[i: i + row] for i in range(0, len(part), row)]
        return b"".join(rows[first + 2 * pair + side] for first in range(0, len(rows), head)
                        for side in (0, 1) for pair in range(head // 2))

    tensors["model.embed_tokens.weight"] = ((vocabulary, width), take((vocabulary, width))[0])
    each("input_layernorm", (width,))
    each("self_attn.q_proj", (width, width), halves)
    each("self_attn.k_proj", (keys, width), halves)
    each("self_attn.v_proj", (keys, width))
    each("self_attn.o_proj", (width, width))
    each("post_attention_layernorm", (width,))
    each("mlp.gate_proj", (hidden, width))
    each("mlp.down_proj", (width, hidden))
    each("mlp.up_proj", (hidden, width))
    tensors["model.norm.weight"] = ((width,), take((width,))[0])
    take((context, head // 2), 2)  # sines and cosines, which the config gives as well
    if not tied:
        tensors["lm_head.weight"] = ((vocabulary, width), take((vocabulary, width))[0])
    if at != len(model):
        raise ValueError(f"{len(model) - at} bytes behind the last tensor")

    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, part) in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + len(part)]}
        end += len(part)
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(said)) + said)
        for _, part in tensors.values():
            file.write(part)
    write(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
        "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": groups, "vocab_size": vocabulary, "max_position_embeddings": context,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": tied,
        "bos_token_id": BEGIN, "eos_token_id": END, "torch_dtype": "float32",
    })
    # A story's end is the beginning of the next one.
    write(folder / "generation_config.json", {"bos_token_id": BEGIN, "eos_token_id": [BEGIN, END]})
    write_words(words, vocabulary, folder)


def write_words(words, vocabulary, folder):
    """SentencePiece's pieces with their scores, as a BPE: a pair's rank is its whole's."""
    pieces, at = [], 4
    for index in range(vocabulary):
        score, length = struct.unpack_from("<fi", words, at)
        piece = words[at + 8: at + 8 + length].decode()
        at += 8 + length
        pieces.append((piece.replace(" ", "▁"), score))
    if at != len(words):
        raise ValueError(f"{len(words) - at} bytes behind the tokenizer's last piece")
    pieces[0], pieces[BEGIN], pieces[END] = (("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0))
    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        pairs = [(ids[piece[:i]], ids[piece[i:]]) for i in range(1, len(piece))
                 if piece[:i] in ids and piece[i:] in ids]
        merges += [(-score, left, right) for left, right in sorted(pairs)]
    merges.sort(key=lambda merge: merge[0])  # stable: of one whole, the pairs keep their order
    special = [{"id": index, "content": pieces[index][0], "special": True, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False} for index in (0, BEGIN, END)]
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text, other = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    write(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [begin, text],
            "pair": [begin, text, {"SpecialToken": {"id": "<s>", "type_id": 1}}, other],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": ids,
            "merges": [f"{pieces[left][0]} {pieces[right][0]}" for _, left, right in merges]},
    })
    write(folder / "tokenizer_config.json", {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>",
        "eos_token": "</s>", "unk_token": "<unk>", "legacy": True, "clean_up_tokenization_spaces": False})


def write(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name in ("model", "tokenizer", "folder"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        write_folder(options.model.read_bytes(), options.tokenizer.read_bytes(), options.folder)
    except (OSError, ValueError, struct.error) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
