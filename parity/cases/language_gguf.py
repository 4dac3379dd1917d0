"""Language models in llama.cpp's files: every block format, read by transformers through `gguf`."""

import json

import gguf
import numpy as np
import torch

from common import EAGER, ROOT, case_folder, noise, save_json, save_tensors

WIDTH = 256  # of every row: a whole block of the `K` formats
LENGTH, STEPS = 24, 16

# Formats with bytes of a block and, in it, where f16 scales lie. Each is used at least once.
SCALES = {
    "Q4_0": (18, [0]), "Q4_1": (20, [0, 2]), "Q5_0": (22, [0]), "Q5_1": (24, [0, 2]), "Q8_0": (34, [0]),
    "Q2_K": (84, [80, 82]), "Q3_K": (110, [108]), "Q4_K": (144, [0, 2]), "Q5_K": (176, [0, 2]), "Q6_K": (210, [208]),
}
FORMATS = {
    "llama": {"q": "Q4_1", "k": "Q8_0", "v": "Q5_1", "output": "Q4_0", "gate": "Q5_0", "up": "Q4_1", "down": "Q2_K",
              "token_embd": "Q8_0"},
    "qwen2": {"q": "Q4_K", "k": "Q5_K", "v": "Q6_K", "output": "Q3_K", "gate": "Q4_K", "up": "Q2_K", "down": "Q6_K",
              "token_embd": "Q4_K", "last": "Q6_K"},
}


def blocks(key: str, outputs: int, kind: str, size: float) -> np.ndarray:
    """A matrix of random blocks whose numbers have about this standard deviation and no great mean."""
    type_ = gguf.GGMLQuantizationType[kind]
    count, scales = SCALES[kind]
    per_row = WIDTH // gguf.GGML_QUANT_SIZES[type_][0]
    bits = noise(key, [outputs, per_row * count])
    rows = ((bits * 977).abs().to(torch.int64) % 256).to(torch.uint8).numpy().reshape(outputs, per_row, count)

    def put(place: int, value: float) -> None:
        own = np.full((outputs, per_row, 1), value) * (1 + 0.1 * np.sin(np.arange(outputs * per_row))).reshape(outputs, per_row, 1)
        rows[:, :, place : place + 2] = own.astype(np.float16).view(np.uint8)

    def numbers(values: list) -> np.ndarray:
        for place, value in zip(scales, values, strict=True):
            put(place, value)
        return gguf.quants.dequantize(rows.reshape(outputs, -1), type_)

    if len(scales) == 2:
        # How far the second scale moves the mean, for one that the first gives.
        first, second = numbers([1, 0]).mean(), numbers([0, 1]).mean()
        values = [1.0, -first / second]
    else:
        values = [1.0]
    factor = size / numbers(values).std()
    numbers([value * factor for value in values])
    return rows.reshape(outputs, -1)


def write(case: str, path) -> None:
    """A file of two layers with llama's tokenizer (SmolLM2's rules)."""
    own = FORMATS[case]
    tokenizer = json.loads((ROOT / "llama" / "tokenizer.json").read_text())["model"]
    words = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    file = gguf.GGUFWriter(path, case)
    heads, groups, hidden = 4, 2, WIDTH
    file.add_context_length(128)
    file.add_embedding_length(WIDTH)
    file.add_block_count(2)
    file.add_feed_forward_length(hidden)
    file.add_head_count(heads)
    file.add_head_count_kv(groups)
    file.add_rope_freq_base(10000.0)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("smollm")
    file.add_token_list(words)
    file.add_token_types([3 if word.startswith("<|") else 1 for word in words])
    file.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["merges"]])
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)

    def matrix(name: str, outputs: int, kind: str, size: float) -> None:
        rows = blocks(f"gguf/{case}/{name}", outputs, kind, size)
        file.add_tensor(f"{name}.weight", rows, raw_dtype=gguf.GGMLQuantizationType[kind])

    def vector(name: str, count: int, mean: float, size: float) -> None:
        file.add_tensor(name, (mean + size * noise(f"gguf/{case}/{name}", [count])).numpy())

    keys = groups * WIDTH // heads
    matrix("token_embd", len(words), own["token_embd"], 0.1)
    for layer in range(2):
        at = f"blk.{layer}"
        vector(f"{at}.attn_norm.weight", WIDTH, 1, 0.2)
        vector(f"{at}.ffn_norm.weight", WIDTH, 1, 0.2)
        for name, outputs, size in [("q", WIDTH, 0.1), ("k", keys, 0.1), ("v", keys, 0.06)]:
            matrix(f"{at}.attn_{name}", outputs, own[name], size)
            if case == "qwen2":
                vector(f"{at}.attn_{name}.bias", outputs, 0, 0.3)
        matrix(f"{at}.attn_output", WIDTH, own["output"], 0.15)
        matrix(f"{at}.ffn_gate", hidden, own["gate"], 0.12)
        matrix(f"{at}.ffn_up", hidden, own["up"], 0.12)
        matrix(f"{at}.ffn_down", WIDTH, own["down"], 0.15)
    vector("output_norm.weight", WIDTH, 1, 0.2)
    if "last" in own:
        matrix("output", len(words), own["last"], 0.2)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


@torch.no_grad()
def in_blocks(case: str):
    """`gguf-llama` and `gguf-qwen2`: logits of 24 ids, and 16 tokens said greedily behind them."""
    from transformers import AutoModelForCausalLM

    folder = case_folder(f"gguf-{case}")
    path = folder / "model.gguf"
    write(case, path)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, **EAGER).eval()
    ids = noise(f"gguf/{case}/ids", [model.config.vocab_size - 3]).argsort()[:LENGTH] + 3
    logits = model(ids[None]).logits[0]
    said, gaps = ids.tolist(), []
    for _ in range(STEPS):
        best = model(torch.tensor([said])).logits[0, -1].topk(2)
        gaps.append(float(best.values[0] - best.values[1]))
        said.append(int(best.indices[0]))
    print(f"  gguf-{case}: logits to {logits.abs().max():.1f}, least gap {min(gaps):.3f}, says {said[LENGTH:]}")
    save_tensors(folder / "expected.safetensors", {
        "ids": ids, "logits": logits.contiguous(), "greedy": torch.tensor(said[LENGTH:]),
    })
    save_json(folder / "inputs.json", {"formats": sorted(set(FORMATS[case].values()))})


def gguf_llama():
    in_blocks("llama")


def gguf_qwen2():
    in_blocks("qwen2")
