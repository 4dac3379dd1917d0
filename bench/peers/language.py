"""Language models in GGUF beside llama.cpp (llama-cpp-python), in turns: tokens read and written a second, memory.

    python bench/peers/language.py MODEL.gguf [--pairs 10] [--threads 2] [--dari target/release/dari]

Each figure is a process of its own: a model is loaded, warmed once, and reads 512 tokens or writes 128 behind 16. A pair
is one run of either, in turns, so that what else the machine does meets both. Needs llama-cpp-python; weights come by
`python scripts/fetch_weights.py smollm2`. `--write-q8 FILE` writes the model's weights anew in Q8_0 and stops.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from turns import apart, itself, pairs, peak_memory_mb

PROMPT, READ, WRITTEN = 16, 512, 128


def llama(model: str, what: str, threads: int) -> dict:
    """One run in this process."""
    import numpy as np
    from llama_cpp import Llama

    speaker = Llama(model, n_ctx=1024, n_batch=READ, n_threads=threads, n_threads_batch=threads, verbose=False)
    ids = [(7 * place + 11) % 1000 + 100 for place in range(READ)]

    def write() -> float:
        speaker.reset()
        speaker.eval(ids[:PROMPT])
        began = time.perf_counter()
        for _ in range(WRITTEN):
            # Greedy: what a sampler would do is none of the model's business.
            row = np.ctypeslib.as_array(speaker._ctx.get_logits(), shape=(speaker.n_vocab(),))
            speaker.eval([int(row.argmax())])
        return WRITTEN / (time.perf_counter() - began)

    def read() -> float:
        speaker.reset()
        began = time.perf_counter()
        speaker.eval(ids)
        return READ / (time.perf_counter() - began)

    run = {"prefill": read, "decode": write}[what]
    run()
    return {"rate": run(), "memory": peak_memory_mb()}


def dari(binary: str, model: str, what: str, threads: int) -> dict:
    tokens = {"prefill": READ, "decode": WRITTEN}[what]
    command = [binary, "bench", what, "--model", model, "--tokens", str(tokens), "--threads", str(threads),
               "--runs", "1", "--json"]
    found = apart(*command)
    speeds = [found.get(f"{what}_gb_per_second") for what in ("weights", "memory")]
    return {"rate": found["tokens_per_second"], "memory": found["peak_memory_mb"], "speeds": speeds}


def write_q8(model: str, out: str) -> None:
    import llama_cpp

    how = llama_cpp.llama_model_quantize_default_params()
    how.ftype, how.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True
    if llama_cpp.llama_model_quantize(model.encode(), out.encode(), how) != 0:
        raise SystemExit(f"{model} could not be written as {out}")


def other(model: str, what: str, threads: int) -> dict:
    return itself(__file__, model, "--one", what, "--threads", str(threads))


def measure(binary: str, model: str, count: int, threads: int) -> list[str]:
    """The lines of a report."""
    lines = ["| | Dari | llama.cpp | Dari over llama.cpp: median (least to most) | memory, MB |",
             "| --- | ---: | ---: | ---: | ---: |"]
    speeds = []

    def ours_of(what: str) -> dict:
        found = dari(binary, model, what, threads)
        if None not in found["speeds"]:
            speeds.append(found["speeds"])
        return found

    for what, name in {"prefill": f"{READ} tokens read", "decode": f"{WRITTEN} tokens written"}.items():
        (ours, theirs), (ratio, least, most), memory = pairs(
            lambda: ours_of(what), lambda: other(model, what, threads), count, "rate",
        )
        lines.append(f"| {Path(model).name}: {name} a second | {ours:.1f} | {theirs:.1f} | {ratio:.2f} ({least:.2f} to "
                     f"{most:.2f}) | {memory[0]:.0f} / {memory[1]:.0f} |")
    if not speeds:
        return lines
    weights, plain = (statistics.median(side) for side in zip(*speeds))
    shares = sorted(weights / plain for weights, plain in speeds)
    lines += ["", f"Dari writing reads {weights:.1f} GB of weights a second, of {plain:.1f} that a plain loop reads: "
              f"{statistics.median(shares):.0%} ({shares[0]:.0%} to {shares[-1]:.0%})."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dari", default="target/release/dari")
    parser.add_argument("--write-q8", metavar="FILE")
    parser.add_argument("--one", choices=["prefill", "decode"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write_q8:
        write_q8(options.model, options.write_q8)
        return
    if options.one:
        print(json.dumps(llama(options.model, options.one, options.threads)))
        return
    print("\n".join(measure(options.dari, options.model, options.pairs, options.threads)))


if __name__ == "__main__":
    main()
