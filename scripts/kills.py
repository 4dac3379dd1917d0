"""Kills `dari index` and `dari train` at random moments, again and again, and looks whether anything is lost.

    cargo build --release
    python scripts/kills.py [--kills 100] [--seed 1]

Half of the kills go to each. An index that was killed is carried on until it ends; then every picture must be found
with the score that an index made in one go gives. A training run that was killed goes on with --resume until it ends;
its model must have the bytes of a run made in one go. Needs Python alone; everything lies in a temporary folder.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DARI = ROOT / "target/release/dari"
PICTURES = 1500
QUERY = "빨간 사과"


def run(arguments: list[str], home: Path, kill_after: float | None = None) -> int | None:
    """The exit code, or None where the kill came before the end."""
    environment = dict(os.environ, DARI_DATA_HOME=str(home), DARI_LANG="en")
    process = subprocess.Popen(
        [DARI, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None


def found(folder: Path, home: Path) -> dict[str, float]:
    environment = dict(os.environ, DARI_DATA_HOME=str(home), DARI_LANG="en")
    command = [DARI, "search", QUERY, "-k", str(PICTURES), "--json"]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    hits = map(json.loads, lines)
    return {hit["path"]: hit["score"] for hit in hits}


def index(folder: Path, work: Path, kills: int, moments: random.Random) -> str:
    began = time.monotonic()
    assert run(["index", str(folder)], work / "whole") == 0
    longest = time.monotonic() - began
    expected = found(folder, work / "whole")
    assert len(expected) == PICTURES, len(expected)
    done = rounds = 0
    while done < kills:
        home, rounds = work / f"index-{rounds}", rounds + 1
        while done < kills:
            if run(["index", str(folder)], home, moments.uniform(0.01, longest * 0.6)) is not None:
                break
            done += 1
        assert run(["index", str(folder)], home) == 0
        assert found(folder, home) == expected, home
    return f"index: {done} kills over {rounds} indexes of {PICTURES} pictures, each found with its score"


def train(work: Path, kills: int, moments: random.Random) -> str:
    def command(output: Path) -> list[str]:
        settings = ["train.steps=120", "train.batch=16", "train.checkpoint_every=3", f"output={output}"]
        return ["train", str(ROOT / "recipes/scenes.toml"), "--resume", *(part for s in settings for part in ("--set", s))]

    began = time.monotonic()
    assert run(command(work / "straight"), work) == 0
    longest = time.monotonic() - began
    expected = (work / "straight/model/model.safetensors").read_bytes()
    done = rounds = 0
    while done < kills:
        output, rounds = work / f"train-{rounds}", rounds + 1
        while done < kills:
            if run(command(output), work, moments.uniform(0.05, longest * 0.4)) is not None:
                break
            done += 1
        assert run(command(output), work) == 0
        assert (output / "model/model.safetensors").read_bytes() == expected, output
    return f"train: {done} kills over {rounds} runs of 120 steps, each ending with the same bytes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="kills of each of the two")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        folder = work / "pictures"
        draw = ["cargo", "run", "--release", "--quiet", "--example", "draw_scenes", "--", str(folder), str(PICTURES)]
        subprocess.run(draw, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        print(index(folder, work, options.kills, moments), flush=True)
        print(train(work, options.kills, moments), flush=True)


if __name__ == "__main__":
    main()
