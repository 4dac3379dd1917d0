"""Training a bridge between a frozen tower and a frozen language model beside PyTorch, in turns: samples a second.

    python bench/peers/bridge.py LANGUAGE.gguf [--pairs 10] [--threads 2] [--dari target/release/dari]

Ours is `recipes/smollm2.toml` with that language model, its blocks as they lie. The peer has the same weights in f32,
from `transformers`: CLIP's vision tower of `models/mini`, a linear layer behind joined places, the LLaMA of the file,
AdamW. It gets as many samples, pictures, tokens and tokens to say as ours had, all samples of one length, so that it
pads nothing. Its ways are tried alone: sdpa or eager attention, logits of every token as `labels=` asks for or of those
to say alone; the fastest runs the pairs. The tower runs without gradients, and nothing frozen asks for one.
"""

import argparse
import json
import time
from pathlib import Path

from turns import apart, itself, pairs, peak_memory_mb

ROOT = Path(__file__).resolve().parents[2]
SEED, SCALE, WARM, STEPS = 20261126, 2, 1, 3
WAYS = [(attention, logits) for attention in ("sdpa", "eager") for logits in ("said", "all")]


def torch_way(model: str, attention: str, logits: str, shape: dict, threads: int) -> dict:
    """One run in this process."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    file = Path(model)
    language = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation=attention,
    )
    tower = transformers.CLIPVisionModel.from_pretrained(
        ROOT / "models/mini", dtype=torch.float32, attn_implementation=attention,
    )
    for frozen in (language, tower):
        frozen.requires_grad_(False)
    width, side = tower.config.hidden_size, tower.config.image_size // tower.config.patch_size
    bridge = torch.nn.Linear(width * SCALE * SCALE, language.config.hidden_size, bias=False)
    optimizer = torch.optim.AdamW(bridge.parameters(), lr=2e-3)
    few = side // SCALE
    batch = shape["batch"]
    length, said = shape["tokens"] // batch, max(1, shape["said_tokens"] // batch)
    words = length - few * few
    assert shape["picture_pieces"] == batch and words > said, shape
    pixels = torch.randn(batch, 3, tower.config.image_size, tower.config.image_size)
    ids = torch.randint(300, 10_000, (batch, words))
    targets = ids[:, -said:]
    labels = torch.full((batch, length), -100)
    labels[:, -said:] = targets

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            seen = tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
            text = language.get_input_embeddings()(ids)
        squares = seen.view(batch, few, SCALE, few, SCALE, width).permute(0, 1, 3, 2, 4, 5)
        picture = bridge(squares.reshape(batch, few * few, SCALE * SCALE * width))
        embeddings = torch.cat([picture, text], 1)
        if logits == "all":
            loss = language(inputs_embeds=embeddings, labels=labels, use_cache=False).loss
        else:
            hidden = language.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
            found = language.lm_head(hidden[:, -said - 1 : -1])
            loss = torch.nn.functional.cross_entropy(found.flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()

    for _ in range(WARM):
        step()
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return {"rate": batch / sorted(seconds)[STEPS // 2], "memory": peak_memory_mb()}


def dari(binary: str, model: str, threads: int) -> tuple[dict, dict]:
    """One run, and what its batches held."""
    command = [binary, "bench", "train", str(ROOT / "recipes/smollm2.toml"), "--set",
               f"model.compose.language={Path(model).resolve()}", "--runs", str(STEPS), "--threads", str(threads), "--json"]
    found = apart(*command)
    rate = found["batch"] / found["median_ms"] * 1e3
    return {"rate": rate, "memory": found["peak_memory_mb"]}, found


def other(model: str, way: tuple[str, str], shape: dict, threads: int) -> dict:
    return itself(__file__, model, "--one", ",".join(way), "--shape", json.dumps(shape), "--threads", str(threads))


def measure(binary: str, model: str, count: int, threads: int) -> list[str]:
    """The lines of a report."""
    shape = {key: value for key, value in dari(binary, model, threads)[1].items()
             if key in ("batch", "tokens", "said_tokens", "picture_pieces")}
    trials = {way: other(model, way, shape, threads) for way in WAYS}
    way = max(trials, key=lambda way: trials[way]["rate"])
    alone = ", ".join(f"{' '.join(way)} {found['rate']:.2f}" for way, found in trials.items())
    (ours, theirs), (ratio, least, most), memory = pairs(
        lambda: dari(binary, model, threads)[0], lambda: other(model, way, shape, threads), count, "rate",
    )
    return [
        f"A step: {shape['batch']} samples, {shape['tokens']} tokens, {shape['said_tokens']} of them to say. The peer "
        f"alone, samples a second: {alone}; {' '.join(way)} ran the {count} pairs.", "",
        "| | Dari | PyTorch, f32 | Dari over PyTorch: median (least to most) | memory, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| samples a second, {Path(model).name} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} ({least:.2f} to {most:.2f}) | "
        f"{memory[0]:.0f} / {memory[1]:.0f} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dari", default="target/release/dari")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way = options.one.split(",")
        print(json.dumps(torch_way(options.model, *way, json.loads(options.shape), options.threads)))
        return
    print("\n".join(measure(options.dari, options.model, options.pairs, options.threads)))


if __name__ == "__main__":
    main()
