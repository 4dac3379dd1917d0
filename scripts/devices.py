#!/usr/bin/env python3
"""Holds another device's embeddings against the processor's.

    python scripts/devices.py --dari target/release/dari --device cuda

Every contrastive model and picture encoder of fixtures/parity, and `mini`, embeds the pictures of samples/ (and
the texts below, where the model reads texts) on both devices. Prints one line a model: the largest absolute
difference of the unit vectors and the least cosine. Exit status 1 when a difference is over --tolerance or a
model fails on the device. Needs a dari built with the device's feature, and NumPy.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["a red apple", "빨간 사과", "", "two cats under a blue table, one of them asleep"]


def models():
    yield "mini"
    for folder in sorted((ROOT / "fixtures/parity").iterdir()):
        for model in (folder, folder / "model"):
            if (model / "config.json").is_file() or (model / "open_clip_config.json").is_file():
                yield model
                break


def embed(dari, model, device, what, precision):
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.npy"
        command = [dari, "embed", *what, "--model", str(model), "--device", device, "--precision", precision,
                   "--output", str(output)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            return None, (run.stderr.strip().splitlines() or ["no message"])[-1]
        return numpy.load(output), None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dari", default=str(ROOT / "target/release/dari"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()

    failed = 0
    ways = {"pictures": ["--images", str(ROOT / "samples")], "texts": ["--texts", *TEXTS]}
    for model in models():
        name = model if isinstance(model, str) else str(model.relative_to(ROOT))
        for way, what in ways.items():
            here, reason = embed(arguments.dari, model, "cpu", what, arguments.precision)
            if here is None:
                # Not what this model reads, or no model of vectors; whoever reads the table sees which.
                print(f"{name} {way}: left out, the cpu says: {reason}", flush=True)
                continue
            there, reason = embed(arguments.dari, model, arguments.device, what, arguments.precision)
            if there is None:
                print(f"{name} {way}: FAILED on {arguments.device}: {reason}")
                failed += 1
                continue
            difference = float(numpy.abs(here - there).max())
            cosine = float((here * there).sum(axis=1).min())
            verdict = "" if difference <= arguments.tolerance else "  OVER"
            failed += bool(verdict)
            print(f"{name} {way}: {len(here)} rows, largest difference {difference:.1e}, least cosine {cosine:.6f}{verdict}",
                  flush=True)
    print(json.dumps({"device": arguments.device, "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
