"""Quantised weights against the same weights in f32: Dari beside llama.cpp, teacher-forced.

    python parity/quantised.py MODEL.gguf [--dari target/release/examples/logits]

Over 20 texts of 64 tokens, English, Korean and code: how often the likeliest next token is that of the weights
dequantised to f32 (by transformers), and the mean Kullback-Leibler divergence of the next token's distribution from
theirs. Needs torch, transformers, gguf and llama-cpp-python; `cargo build --release --example logits` first.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from llama_cpp import Llama
from transformers import AutoModelForCausalLM

TEXTS = [
    "The river ran under the old stone bridge, and every morning a heron stood there waiting for small silver fish. ",
    "To bake bread you need flour, water, salt and yeast; mix them, let the dough rise twice, and bake it until brown. ",
    "In 1969 two people walked on the Moon while a third stayed in orbit and listened to the radio in silence. ",
    "다리 아래로 강물이 흐르고, 아침마다 왜가리 한 마리가 서서 작은 은빛 물고기를 기다렸다. 아이들은 돌을 던지며 놀았다. ",
    "서울에서 부산까지는 기차로 두 시간 반이 걸리고, 창밖으로 논과 산과 강이 차례로 지나간다. ",
    "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(add(i, i * 2))\n",
    "struct Point { x: f64, y: f64 }\nimpl Point { fn norm(&self) -> f64 { (self.x * self.x + self.y * self.y).sqrt() } }\n",
    "She asked whether the train had left. 'Ten minutes ago,' he said, and looked at the clock above the door. ",
    "The theorem says that in a right triangle the square of the hypotenuse is the sum of the other two squares. ",
    "Once upon a time there was a cat who could not sleep, so it counted the stars until the sun came up again. ",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dari", default="target/release/examples/logits")
    arguments = parser.parse_args()
    llama = Llama(str(arguments.model), n_ctx=256, logits_all=True, verbose=False, n_threads=2)
    texts = []
    for start in (0, 5):
        for index in range(len(TEXTS)):
            whole = "".join(TEXTS[(index + step) % len(TEXTS)] for step in range(start, start + 4))
            texts.append(llama.tokenize(whole.encode(), add_bos=False)[:64])
    assert all(len(ids) == 64 for ids in texts)
    reference = AutoModelForCausalLM.from_pretrained(
        arguments.model.parent, gguf_file=arguments.model.name, dtype=torch.float32
    ).eval()
    with tempfile.TemporaryDirectory() as folder:
        ids, out = Path(folder) / "ids.json", Path(folder) / "out.bin"
        ids.write_text(json.dumps(texts))
        ours = {}
        ways = {"dari, as a prompt": [], "dari, as an answer": ["1"]}
        ways |= {f"{name}, cache in {kind}": [*(given or ["0"]), kind]
                 for kind in ("f16", "int8") for name, given in list(ways.items())}
        for name, tokens in ways.items():
            subprocess.run([arguments.dari, str(arguments.model), str(ids), str(out), *tokens], check=True)
            ours[name] = np.fromfile(out, dtype="<f4").reshape(len(texts), 64, -1)
    rows = {name: [0, 0.0, 0.0] for name in [*ours, "llama.cpp"]}
    total = 0
    for number, ids in enumerate(texts):
        with torch.no_grad():
            want = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
        llama.reset()
        llama.eval(ids)
        theirs = torch.tensor(np.array(llama.scores[: len(ids)]))[:, : want.shape[1]].float()
        mine = {name: torch.tensor(logits[number])[:, : want.shape[1]] for name, logits in ours.items()}
        for name, logits in (mine | {"llama.cpp": theirs}).items():
            got = logits.log_softmax(-1)
            rows[name][0] += int((got.argmax(-1) == want.argmax(-1)).sum())
            rows[name][1] += float((want.exp() * (want - got)).sum(-1).sum())
            rows[name][2] = max(rows[name][2], (got - want).abs().max().item())
        total += len(ids)
    print("| | top-1 as in f32 | mean KL divergence | log-probabilities within |\n| --- | ---: | ---: | ---: |")
    for name, (same, divergence, largest) in rows.items():
        print(f"| {name} | {same / total:.4f} | {divergence / total:.2e} | {largest:.1e} |")
    print(f"\n{total} tokens")


if __name__ == "__main__":
    main()
