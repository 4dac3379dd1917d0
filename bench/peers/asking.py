"""A picture's first word beside `transformers`, in turns: a SmolVLM of 256 million random weights, a 512 x 512 picture.

    python bench/peers/asking.py [--pairs 10] [--threads 2] [--precisions f32,int8] [--dari target/release/dari]
                                 [--work FOLDER]

The model has SmolVLM-256M's sizes and is saved once, in bf16 as the public one is. Its processor cuts a picture of
512 x 512 into 16 tiles, and looks at the whole once more: 17 x 64 tokens behind the bridge. What is timed begins at the
pixels and ends at the first token's logits; each figure is a process of its own that has run once before. Peers are
tried alone in f32 and bf16, with sdpa and eager attention, each for at most four times as long as the quickest before
it; the fastest runs the pairs.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from turns import apart, itself, pairs, peak_memory_mb

SEED = 20261126
TILES, TOKENS, WORDS = 17, 64, 24
PATIENCE = 4
WAYS = [(kind, attention) for kind in ("float32", "bfloat16") for attention in ("sdpa", "eager")]


def make(folder: Path) -> None:
    """Saves the model and a processor whose tokenizer has bytes and SmolVLM's own tokens alone."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor, SmolVLMVideoProcessor,
    )
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    last = [
        "<global-img>", *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
        "<fake_token_around_image>", "<image>", "<end_of_utterance>",
    ]
    words = [*first, *sorted(pre_tokenizers.ByteLevel.alphabet()), *last]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=first[1], eos_token=last[-1], pad_token=first[2], unk_token=first[0],
        extra_special_tokens=last[:-1], model_max_length=8192,
    )
    config = SmolVLMConfig(
        vision_config=dict(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=512,
            patch_size=16,
        ),
        text_config=dict(
            model_type="llama", vocab_size=49280, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5,
            pad_token_id=2, bos_token_id=1, eos_token_id=vocabulary[last[-1]], tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        ),
        image_token_id=vocabulary["<image>"], scale_factor=4, pad_token_id=2, tie_word_embeddings=True,
    )
    torch.manual_seed(SEED)
    SmolVLMForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    template = (
        "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}"
        "{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessorPil(
            size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}, do_image_splitting=True,
        ),
        tokenizer=tokenizer, video_processor=SmolVLMVideoProcessor(), image_seq_len=TOKENS, chat_template=template,
    ).save_pretrained(folder)


def torch_way(folder: Path, kind: str, attention: str, threads: int) -> dict:
    """One run in this process."""
    import torch
    from transformers import SmolVLMForConditionalGeneration

    torch.set_num_threads(threads)
    model = SmolVLMForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, kind), attn_implementation=attention,
    ).eval()
    picture = model.config.image_token_id
    words = [(7 * place + 11) % 1000 + 300 for place in range(WORDS)]
    ids = torch.tensor([words[:8] + [picture] * (TILES * TOKENS) + words[8:]])
    generator = torch.Generator().manual_seed(SEED)
    pixels = torch.rand(1, TILES, 3, 512, 512, generator=generator, dtype=torch.float32).mul_(2).sub_(1)
    pixels = pixels.to(model.dtype)
    seconds = []
    with torch.inference_mode():
        for _ in range(2):
            began = time.perf_counter()
            model(input_ids=ids, pixel_values=pixels, use_cache=True, logits_to_keep=1)
            seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[-1], "memory": peak_memory_mb()}


def other(folder: Path, way: tuple[str, str], threads: int, limit: float | None = None) -> dict:
    command = ["--one", ",".join(way), "--work", str(folder.parent), "--threads", str(threads)]
    return itself(__file__, *command, limit=limit)


def alone(folder: Path, threads: int) -> tuple[tuple[str, str], str]:
    """The fastest way of the peer's, and what each took. Without instructions for bf16 that takes many times as long:
    a way is given `PATIENCE` times what the quickest before it took with everything."""
    found, said, limit = {}, [], None
    for way in WAYS:
        began = time.perf_counter()
        try:
            found[way] = other(folder, way, threads, limit)["seconds"]
        except subprocess.TimeoutExpired:
            said.append(f"{' '.join(way)} ended after {limit:.0f} with reading and warming")
            continue
        said.append(f"{' '.join(way)} {found[way]:.1f}")
        took = PATIENCE * (time.perf_counter() - began)
        limit = took if limit is None else min(limit, took)
    return min(found, key=found.__getitem__), ", ".join(said)


def dari(binary: str, folder: Path, precision: str, threads: int) -> dict:
    command = [binary, "bench", "ask", "--model", str(folder), "--tokens", "1", "--runs", "1", "--precision", precision,
               "--threads", str(threads), "--json"]
    found = apart(*command)
    assert found["prompt_tokens"] == TILES * TOKENS + WORDS, found
    return {"seconds": found["time_to_first_token_ms"] / 1e3, "memory": found["peak_memory_mb"]}


def measure(binary: str, work: Path, precisions: list[str], count: int, threads: int) -> Iterator[list[str]]:
    """The lines of a report, after each precision those that there are."""
    folder = work / "smolvlm"
    if not (folder / "processor_config.json").exists():
        make(folder)
    way, said = alone(folder, threads)
    lines = [
        f"`transformers` alone, seconds: {said}; {' '.join(way)} ran the {count} pairs.", "",
        "| | Dari | `transformers` | ratio: median (least to most) | memory, MB | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for precision in precisions:
        (ours, theirs), (ratio, least, most), memory = pairs(
            lambda: dari(binary, folder, precision, threads), lambda: other(folder, way, threads), count, "seconds",
        )
        lines.append(f"| first token, {precision}, s | {ours:.2f} | {theirs:.2f} | {ratio:.2f} ({least:.2f} to {most:.2f})"
                     f" | {memory[0]:.0f} / {memory[1]:.0f} | {memory[0] / memory[1]:.2f} |")
        yield lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precisions", default="f32,int8")
    parser.add_argument("--dari", default="target/release/dari")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dari-peers")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way = options.one.split(",")
        print(json.dumps(torch_way(options.work / "smolvlm", *way, options.threads)))
        return
    precisions = options.precisions.split(",")
    *_, lines = measure(options.dari, options.work, precisions, options.pairs, options.threads)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
