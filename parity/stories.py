"""What stories15M says greedily: by llama2.c's own arithmetic on its own file, and by transformers on the LLaMA folder.

    python parity/stories.py PACKAGE.tgz FOLDER     # both of `python scripts/fetch_weights.py stories15m`

Writes fixtures/parity/stories15m/expected.json: prompts, their ids and the tokens behind them. The two references
have to agree at every step; one whose two best logits are nearer than 2e-3 ends a text. Needs torch and transformers.
"""

import json
import struct
import sys
import tarfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from fetch_weights import MODELS  # noqa: E402

PROMPTS = ["Once upon a time", "Lily and Tom went to the park.", "The little dog was sad because", "One day, a bird"]
STEPS, NEAR = 200, 2e-3


class Llama2C:
    """The model as the file has it: rotary embedding of neighbours, no head but the embedding."""

    def __init__(self, data: bytes):
        self.width, hidden, self.layers, self.heads, groups, words, context = struct.unpack_from("<7i", data)
        assert groups == self.heads and words > 0
        numbers = torch.frombuffer(bytearray(data[28:]), dtype=torch.float32)
        at = 0

        def take(*shape: int) -> torch.Tensor:
            nonlocal at
            count = torch.Size(shape).numel()
            at += count
            return numbers[at - count : at].view(*shape)

        n, d, h = self.layers, self.width, hidden
        self.words = take(words, d)
        self.before, self.q, self.k, self.v, self.o = take(n, d), take(n, d, d), take(n, d, d), take(n, d, d), take(n, d, d)
        self.between, self.gate, self.down, self.up = take(n, d), take(n, h, d), take(n, d, h), take(n, h, d)
        self.last = take(d)
        half = d // self.heads // 2
        self.cosines, self.sines = take(context, half), take(context, half)
        assert at == len(numbers)

    def norm(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * scale

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        pairs = x.view(len(x), self.heads, -1, 2)
        cos, sin = self.cosines[: len(x), None], self.sines[: len(x), None]
        a, b = pairs[..., 0], pairs[..., 1]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(2).transpose(0, 1)

    def logits(self, ids: list[int]) -> torch.Tensor:
        x = self.words[torch.tensor(ids)]
        for i in range(self.layers):
            y = self.norm(x, self.before[i])
            q, k = self.turn(y @ self.q[i].T), self.turn(y @ self.k[i].T)
            v = (y @ self.v[i].T).view(len(ids), self.heads, -1).transpose(0, 1)
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + y.transpose(0, 1).flatten(1) @ self.o[i].T
            y = self.norm(x, self.between[i])
            x = x + (torch.nn.functional.silu(y @ self.gate[i].T) * (y @ self.up[i].T)) @ self.down[i].T
        return self.norm(x[-1], self.last) @ self.words.T


@torch.no_grad()
def main() -> None:
    package, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with tarfile.open(package) as archive:
        data = archive.extractfile(MODELS["stories15m"].inside).read()
    own = Llama2C(data[: MODELS["stories15m"].llama2c[0]])
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cases = []
    for prompt in PROMPTS:
        start = tokenizer(prompt).input_ids
        ids = list(start)
        while len(ids) < len(start) + STEPS:
            logits = own.logits(ids)
            theirs = model(torch.tensor([ids])).logits[0, -1]
            assert (logits - theirs).norm() < 1e-4 * logits.norm(), "llama2.c and the folder differ"
            best = logits.topk(2)
            if best.values[0] - best.values[1] < NEAR:
                break
            ids.append(int(best.indices[0]))
            if ids[-1] == 1:
                break
        print(tokenizer.decode(ids), end="\n\n")
        cases.append({"prompt": prompt, "ids": start, "greedy": ids[len(start) :]})
    # SentencePiece's ids of a text that every LLaMA knows.
    assert cases[0]["ids"] == [1, 9038, 2501, 263, 931]
    target = ROOT / "fixtures/parity/stories15m"
    target.mkdir(parents=True, exist_ok=True)
    (target / "expected.json").write_text(json.dumps({"cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
