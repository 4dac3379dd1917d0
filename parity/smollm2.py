"""What SmolLM2-135M-Instruct (GGUF, Q4_1) says greedily, by transformers on its weights dequantised to f32.

    python parity/smollm2.py MODEL.gguf     # of `python scripts/fetch_weights.py smollm2`

Writes fixtures/parity/smollm2/expected.json: prompts, their token ids by llama.cpp, and the 32 tokens behind each; a
step whose two best logits are nearer than 2e-2 ends a text, since rounding may turn it. Needs torch, transformers, gguf
and llama-cpp-python.
"""

import json
import sys
from pathlib import Path

import torch
from llama_cpp import Llama
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ["Once upon a time", "The capital of France is", "def fibonacci(n):", "Water boils at", "A recipe for bread:"]
STEPS, NEAR = 32, 2e-2


def main() -> None:
    path = Path(sys.argv[1])
    words = Llama(str(path), vocab_only=True, verbose=False)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    cases = []
    for prompt in PROMPTS:
        start = words.tokenize(prompt.encode(), add_bos=False, special=True)
        ids = list(start)
        for _ in range(STEPS):
            with torch.no_grad():
                best = model(torch.tensor([ids])).logits[0, -1].topk(2)
            if best.values[0] - best.values[1] < NEAR:
                break
            ids.append(int(best.indices[0]))
        cases.append({"prompt": prompt, "ids": start, "greedy": ids[len(start) :]})
    folder = ROOT / "fixtures/parity/smollm2"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "expected.json").write_text(json.dumps({"cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
