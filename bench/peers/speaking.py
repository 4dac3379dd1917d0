"""Dari's language models beside llama.cpp, `transformers` and PyTorch in one run, which writes a part of
`benchmarks/RESULTS.md`.

    python bench/peers/speaking.py MODEL.gguf … [--bridge LANGUAGE.gguf] [--pairs 10] [--threads 2] [--work FOLDER]

Each model is read and written with as `language.py` says; then a bridge is trained (`bridge.py`), and a picture gets its
first word (`asking.py`). The report is written after each, so that a run which is broken off leaves what it measured.
"""

import argparse
import shlex
import subprocess
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

import asking
import bridge
import language
from compare import REPOSITORY, commit, processor_line, processor_name
from parts import put

HEADING = "# Dari's language models beside llama.cpp, transformers and PyTorch on a CPU"
PEERS = ["llama-cpp-python", "torch", "transformers"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL.gguf")
    parser.add_argument("--bridge", metavar="LANGUAGE.gguf")
    parser.add_argument("--precisions", default="int8,f32", help="of the picture's first word; none where empty")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dari", default=str(REPOSITORY / "target/release/dari"))
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/RESULTS.md")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dari-peers")
    options = parser.parse_args()
    dari = subprocess.run([options.dari, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    shown = ["python", "bench/peers/speaking.py", *(Path(model).name for model in options.models)]
    shown += ["--bridge", Path(options.bridge).name] if options.bridge else []
    shown += ["--precisions", options.precisions, "--pairs", str(options.pairs), "--threads", str(options.threads)]
    lines = [
        # One for each machine: a run leaves the others'.
        f"{HEADING}: {processor_name()}", "",
        f"`{shlex.join(shown)}`, {date.today().isoformat()}. Written by bench/peers/speaking.py; what is run is told at the "
        "head of language.py, asking.py and bridge.py.", "",
        processor_line(),
        f"- {dari}{commit()}, " + ", ".join(f"{peer} {version(peer)}" for peer in PEERS),
        f"- {options.threads} threads on both sides; {options.pairs} pairs a row, in turns, each figure a process of its own; of each side the median, and of the "
        "pairs' ratios the median, the least and the most", "",
    ]

    sections: dict[str, list[str]] = {}

    def add(title: str, found: list[str]) -> None:
        sections[title] = found
        of_all = [line for name, own in sections.items() for line in [f"## {name}", "", *own, ""]]
        put(options.out, "\n".join(lines + of_all))
        print("\n".join(found), flush=True)

    for model in options.models:
        found = language.measure(options.dari, model, options.pairs, options.threads)
        add(f"{Path(model).stem}: tokens read and written", found)
    if options.bridge:
        found = bridge.measure(options.dari, options.bridge, options.pairs, options.threads)
        add("Training a bridge on a frozen language model", found)
    if options.precisions:
        precisions = options.precisions.split(",")
        for found in asking.measure(options.dari, options.work, precisions, options.pairs, options.threads):
            add("A picture's first word", found)


if __name__ == "__main__":
    main()
