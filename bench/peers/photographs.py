#!/usr/bin/env python3
"""Compares `dari embed` on a folder of photographs with open_clip's preprocessing and PyTorch, on a CPU.

    python bench/peers/photographs.py [--count 200] [--pairs 3] [--precisions f32,bf16,int8]

Draws JPEG photographs of 12 megapixels under a seed, makes one CLIP ViT-B/32 with seeded random weights, lets
both sides turn the folder into embeddings in turn, and writes benchmarks/PHOTOGRAPHS.md: ratios, peak memory,
how far a picture decoded at a fraction of its size is from the whole one. README.md beside this file says more.

This process imports no torch: every pass of either side is a process of its own.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.metadata
import json
import math
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # the checkout stays as it is

import compare  # noqa: E402
from compare import Json, Load, Trouble, joined, markdown, say, shown_command  # noqa: E402
from turns import peak_memory_mb  # noqa: E402

REPOSITORY = compare.REPOSITORY
SEED = compare.SEED + 1
FORMAT = 1  # of the photographs; a folder of another number is drawn anew
BATCH = 32
AIMS = {"f32": 0.60, "bf16": 0.45, "int8": 0.33}  # our time over PyTorch's of the same precision
MEMORY_AIM = 0.5
COSINE_AIM = 0.999

# ---------------------------------------------------------------------------------------------------
# The photographs
# ---------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 4000, 3000
FIELD = 4096  # side of the noise fields that all pictures are cut from; they repeat without a seam
QUALITY = 88
ORIENTATIONS = {1: 6, 3: 8}  # picture number modulo 5: EXIF orientation, both make it a portrait


def photographs_ready(folder: Path, count: int) -> bool:
    """Whether the folder holds these very photographs."""
    marker = folder.with_suffix(".json")
    if not marker.is_file() or json.loads(marker.read_text()) != photographs_key(count):
        return False
    return len(list(folder.glob("*.jpg"))) == count


def photographs_key(count: int) -> Json:
    drawn_by = {name: importlib.metadata.version(name) for name in ("numpy", "pillow")}
    return {"format": FORMAT, "seed": SEED, "count": count} | drawn_by


def draw_photographs(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder.with_suffix(".json")
    marker.unlink(missing_ok=True)
    for old in folder.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory(dir=folder.parent) as fields:
        write_fields(Path(fields))
        with concurrent.futures.ProcessPoolExecutor(len(processors())) as pool:
            jobs = [pool.submit(draw_photograph, number, Path(fields), folder) for number in range(count)]
            for job in jobs:
                job.result()
    marker.write_text(json.dumps(photographs_key(count)))


def is_upright(number: int) -> bool:
    return number % 5 not in ORIENTATIONS


def is_progressive(number: int) -> bool:
    return number % 4 == 3


def write_fields(folder: Path) -> None:
    """Three fields of 1/f noise as nature's pictures have it, and white noise for the sensor."""
    import numpy

    draw = numpy.random.default_rng(SEED)
    for name in ("luma", "blue", "red"):
        numpy.save(folder / f"{name}.npy", pink_noise(draw))
    white = draw.standard_normal((FIELD, FIELD), dtype=numpy.float32)
    numpy.save(folder / "sensor.npy", white.astype(numpy.float16))


def pink_noise(draw: Any) -> Any:
    """Noise whose amplitude falls as 1/f, of mean 0 and deviation 1."""
    import numpy

    spectrum = numpy.fft.rfft2(draw.standard_normal((FIELD, FIELD), dtype=numpy.float32))
    across = numpy.fft.rfftfreq(FIELD)[None, :]
    down = numpy.fft.fftfreq(FIELD)[:, None]
    # Waves longer than a quarter of the picture are the scene's affair.
    spectrum /= numpy.maximum(numpy.hypot(across, down), 4 / FIELD)
    spectrum[0, 0] = 0
    field = numpy.fft.irfft2(spectrum)
    return (field / field.std()).astype(numpy.float16)


def cut(folder: Path, name: str, draw: Any) -> Any:
    """A random part of a field, of a picture's size, maybe mirrored or turned."""
    import numpy

    field = numpy.load(folder / f"{name}.npy", mmap_mode="r")
    if draw.random() < 0.5:
        field = field.T
    down, across = (int(place) for place in draw.integers(0, FIELD, 2))
    part = numpy.roll(field, (down, across), (0, 1))[:HEIGHT, :WIDTH]
    return part[:: int(draw.choice([-1, 1])), :: int(draw.choice([-1, 1]))].astype(numpy.float32)


def enlarged(values: Any, size: tuple[int, int]) -> Any:
    import numpy
    from PIL import Image

    return numpy.asarray(Image.fromarray(values.astype(numpy.float32)).resize(size, Image.Resampling.BICUBIC))


def draw_photograph(number: int, fields: Path, folder: Path) -> None:
    """Soft shapes, a texture that is sharp in some places only, the sensor's noise, a tone curve."""
    import numpy
    from PIL import Image

    draw = numpy.random.default_rng([SEED, number])
    scene = [numpy.asarray(plane) for plane in draw_scene(draw).convert("YCbCr").split()]
    texture = cut(fields, "luma", draw)
    small = numpy.asarray(Image.fromarray(texture).reduce(16))
    smooth = enlarged(small, (WIDTH, HEIGHT))
    sharpness = enlarged(draw.uniform(-0.2, 1.0, (6, 8)).clip(0, 1), (WIDTH, HEIGHT))
    luma = enlarged(scene[0], (WIDTH, HEIGHT)) + draw.uniform(18, 34) * (smooth + sharpness * (texture - smooth))
    luma += draw.uniform(0.8, 6.5) * cut(fields, "sensor", draw)
    gamma = draw.uniform(0.85, 1.2)
    curve = [round(255 * (level / 255) ** gamma) for level in range(256)]
    planes = [as_plane(luma).point(curve)]
    half = (WIDTH // 2, HEIGHT // 2)
    shade = enlarged(small, half)
    for name, plane in zip(("blue", "red"), scene[1:], strict=True):
        # Colour follows brightness in part.
        chroma = enlarged(plane, half) + draw.uniform(-4, 4) * shade
        chroma += draw.uniform(3, 7) * cut(fields, name, draw)[::2, ::2]
        planes.append(as_plane(chroma).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
    exif = Image.Exif()
    exif[0x0112] = ORIENTATIONS.get(number % 5, 1)
    Image.merge("YCbCr", planes).save(
        folder / f"{number:04}.jpg",
        quality=QUALITY,
        subsampling="4:2:0",
        progressive=is_progressive(number),
        exif=exif,
    )


def as_plane(values: Any) -> Any:
    import numpy
    from PIL import Image

    return Image.fromarray(values.round().clip(0, 255).astype(numpy.uint8))


def draw_scene(draw: Any) -> Any:
    """Shapes of soft edges over a slope from one colour to another, a quarter as wide as the picture."""
    import numpy
    from PIL import Image, ImageDraw, ImageFilter

    width, height = WIDTH // 4, HEIGHT // 4
    slope = enlarged(draw.uniform(0, 1, (2, 2)), (width, height))[..., None]
    first, second = colour(draw), colour(draw)
    scene = Image.fromarray((first + slope * (second - first)).clip(0, 255).astype(numpy.uint8))
    for _ in range(int(draw.integers(10, 30))):
        mask = Image.new("L", (width, height))
        pen = ImageDraw.Draw(mask)
        x, y = draw.uniform(0, width), draw.uniform(0, height)
        across, down = numpy.exp(draw.uniform(math.log(10), math.log(250), 2))
        if draw.random() < 0.5:
            pen.ellipse([x - across, y - down, x + across, y + down], fill=255)
        else:
            angles = numpy.sort(draw.uniform(0, 2 * math.pi, int(draw.integers(3, 8))))
            pen.polygon([(x + across * math.cos(a), y + down * math.sin(a)) for a in angles], fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(draw.uniform(0.4, 5)))
        scene.paste(tuple(int(value) for value in colour(draw)), mask=mask)
    return scene


def colour(draw: Any) -> Any:
    """Red, green and blue of a colour that is mostly grey."""
    return draw.uniform(30, 225) + draw.uniform(-30, 30, 3)


# ---------------------------------------------------------------------------------------------------
# What both sides need: made once, in a process of its own, kept in the work folder
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    folder: Path  # of the photographs
    model: Path
    tiny: Path  # one picture of 32 x 32

    def pictures(self, count: int | None = None) -> list[Path]:
        return sorted(self.folder.glob("*.jpg"))[:count]


def prepare(work: Path, count: int) -> Prepared:
    prepared = Prepared(work / f"photographs-{count}", work / "clip", work / "tiny.jpg")
    if model_ready(work) and photographs_ready(prepared.folder, count):
        return prepared
    say(f"making the model and {count} photographs in {work}, once: a second or two for each")
    work.mkdir(parents=True, exist_ok=True)
    log = work / "prepare.log"
    command = [sys.executable, str(Path(__file__).resolve()), "--prepare", str(work), str(count)]
    with log.open("w") as file:
        environment = compare.peer_environment(1)
        done = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False)
    if done.returncode != 0:
        raise Trouble(f"the last lines of {log}:\n{compare.tail(log)}")
    return prepared


def prepare_here(work: Path, count: int) -> None:
    """Makes what is missing. Runs in a process of its own, before anything is timed."""
    from PIL import Image

    folder = work / f"photographs-{count}"
    if not photographs_ready(folder, count):
        draw_photographs(folder, count)
    if not model_ready(work):
        compare.write_clip(work / "clip", compare.CLIP_B32)
        compare.write_clip_tokenizer(work / "clip")
        Image.new("RGB", (32, 32), (90, 120, 60)).save(work / "tiny.jpg")
        (work / "clip.json").write_text(json.dumps(model_key()))


def model_ready(work: Path) -> bool:
    marker = work / "clip.json"
    return marker.is_file() and json.loads(marker.read_text()) == model_key()


def model_key() -> Json:
    return {"format": compare.FORMAT, "seed": compare.SEED} | compare.versions()


def processors() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def confine(threads: int) -> bool:
    """Keeps this process and all it starts on so many processors; False where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    allowed = processors()
    if len(allowed) < threads:
        raise Trouble(f"--threads {threads}: only {len(allowed)} processors may be used")
    os.sched_setaffinity(0, allowed[:threads])
    return True


# ---------------------------------------------------------------------------------------------------
# The peer's process
# ---------------------------------------------------------------------------------------------------

WHOLE = 0  # in place of Pillow's draft: decoded in full
ATTENTIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class Way:
    """How PyTorch is run: decoding in so many worker processes (0: in the model's own), the model with so
    many threads."""

    workers: int
    threads: int
    attention: str

    def label(self) -> str:
        decoders = {0: "decodes in the model's process", 1: "1 worker"}.get(
            self.workers, f"{self.workers} workers"
        )
        return joined(
            decoders, f"model with {self.threads} thread{'s' if self.threads > 1 else ''}", self.attention
        )


def pools(threads: int) -> list[tuple[int, int]]:
    """Workers and the model's threads; more of both together than there are processors is allowed."""
    several = sorted({1, threads})
    return [(0, threads)] + [(workers, of_model) for workers in several for of_model in several]


class Pictures:
    """A data set for torch's DataLoader: files as open_clip's preprocessing turns them into pixels."""

    def __init__(self, files: list[str], transform: Callable[[Any], Any], side: int, draft: int) -> None:
        self.files, self.transform, self.wanted = files, transform, draft * side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        from PIL import Image

        with Image.open(self.files[number]) as picture:
            if self.wanted:
                picture.draft("RGB", (self.wanted, self.wanted))
            return self.transform(picture)


def peer(spec: Json) -> None:
    """Loads the model, runs each way once, prints one JSON object."""
    # Whatever the libraries print goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import open_clip  # noqa: F401  (counted as an import)
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(spec["threads"])
    torch.set_num_interop_threads(1)
    imported = peak_memory_mb()
    began = time.perf_counter()
    attention, attentions = spec["attention"], {}
    if not attention:
        attentions = {name: forward_ms(load(spec, name), spec) for name in ATTENTIONS}
        attention = min(attentions, key=attentions.__getitem__)
    model = load(spec, attention)
    load_ms = (time.perf_counter() - began) * 1e3
    forward_ms(model, spec, runs=1)
    passes = [one_pass(model, Way(workers, threads, attention), spec) for workers, threads in spec["pools"]]
    found = {"load_ms": load_ms, "imported_mb": imported, "passes": passes, "attentions_ms": attentions}
    answers.write(json.dumps(found | {"peak_mb": peak_memory_mb()}) + "\n")
    answers.flush()


def load(spec: Json, attention: str) -> Any:
    """The vision tower of the model, that tower alone."""
    import torch
    import transformers

    precision = spec["precision"]
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(
        spec["model"],
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        attn_implementation=attention,
    ).eval()
    if precision == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    return model


def forward_ms(model: Any, spec: Json, runs: int = 3) -> float:
    """The quickest of some passes over a batch that is in memory already."""
    import torch

    side = preprocessing(Path(spec["model"]))[1]
    pixels = torch.zeros(BATCH, 3, side, side)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        embeddings(model, pixels)
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def embeddings(model: Any, pixels: Any) -> Any:
    import torch

    with torch.inference_mode():
        found = model(pixel_values=pixels.to(model.dtype)).image_embeds.float()
        return found / found.norm(dim=-1, keepdim=True)


def preprocessing(model: Path) -> tuple[Callable[[Any], Any], int]:
    """open_clip's image transform with a model folder's numbers, and the side of its pictures."""
    from open_clip.transform import image_transform

    config = json.loads((model / "preprocessor_config.json").read_text())
    shape = {"mean": config["image_mean"], "std": config["image_std"], "interpolation": "bicubic"}
    size = config["size"]
    if "shortest_edge" in size and size["shortest_edge"] == config["crop_size"]["height"]:
        side, mode = size["shortest_edge"], "shortest"
    elif "shortest_edge" not in size and size["height"] == size["width"] and not config["do_center_crop"]:
        side, mode = size["height"], "squash"
    else:
        raise Trouble(f"{model}: open_clip's transform has no such size and crop")
    return image_transform(side, is_train=False, resize_mode=mode, **shape), side


def one_pass(model: Any, way: Way, spec: Json) -> Json:
    """All pictures once: from the start of the loader, its workers included, to the last embedding."""
    import torch

    torch.set_num_threads(way.threads)
    transform, side = preprocessing(Path(spec["model"]))
    pictures = Pictures(spec["pictures"], transform, side, spec["draft"])
    loader = torch.utils.data.DataLoader(pictures, batch_size=BATCH, num_workers=way.workers)
    rows, model_ms = [], 0.0
    computed = processor_seconds()
    began = time.perf_counter()
    for pixels in loader:
        start = time.perf_counter()
        rows.append(embeddings(model, pixels))
        ended = time.perf_counter()
        model_ms += (ended - start) * 1e3
    # The workers have ended and been waited for, so their time is in.
    computed = processor_seconds() - computed
    if spec["save"]:
        import numpy

        numpy.save(spec["save"], torch.cat(rows).numpy())
    return {"way": asdict(way), "ms": (ended - began) * 1e3, "model_ms": model_ms, "cpu_s": computed}


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


class Peer:
    """PyTorch at one precision and one way of decoding, seen from the process that compares."""

    def __init__(self, model: Path, precision: str, draft: int, threads: int, work: Path) -> None:
        self.precision, self.draft, self.work = precision, draft, work
        self.name = f"PyTorch {precision}" + (", Pillow's draft" if draft else "")
        self.spec = {"model": str(model), "precision": precision, "draft": draft, "threads": threads}
        self.way: Way | None = None

    def run(
        self,
        pictures: list[Path],
        pools: list[tuple[int, int]],
        save: Path | None = None,
        watch: Callable[[int], float] | None = None,
    ) -> Json:
        """A process that runs the pictures once by each pool. `watch` is given its id, and what it
        returns is the answer's tree_mb."""
        log = self.work / "logs" / f"{self.precision}-{self.draft}.log"
        log.parent.mkdir(exist_ok=True)
        spec = self.spec | {"pictures": [str(path) for path in pictures], "pools": pools,
                            "attention": self.way.attention if self.way else "",
                            "save": str(save) if save else ""}  # fmt: skip
        request = self.work / "request.json"
        request.write_text(json.dumps(spec))
        command = [sys.executable, str(Path(__file__).resolve()), "--peer", str(request)]
        with log.open("w") as file:
            environment = compare.peer_environment(self.spec["threads"])
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment)
            largest = watch(child.pid) if watch else 0.0
            answer, _ = child.communicate()
        if child.returncode != 0 or not answer:
            raise Trouble(f"{self.name} failed; the last lines of {log}:\n{compare.tail(log)}")
        return json.loads(answer) | {"tree_mb": largest}

    def choose(self, pictures: list[Path]) -> Json:
        """Tries every way on some pictures and keeps the fastest."""
        found = self.run(pictures, pools(self.spec["threads"]))
        best = min(found["passes"], key=lambda one: one["ms"])
        self.way = Way(**best["way"])
        return found

    def measure(self, pictures: list[Path], save: Path | None = None) -> Json:
        found = self.run(pictures, [(self.way.workers, self.way.threads)], save)
        return found["passes"][0] | {"load_ms": found["load_ms"]}

    def memory(self, pictures: list[Path]) -> Json:
        """Peak memory of the process and its workers, in a pass that is not timed."""
        found = self.run(pictures, [(self.way.workers, self.way.threads)], watch=largest_tree_mb)
        return {"peak_mb": max(found["peak_mb"], found["tree_mb"]), "imported_mb": found["imported_mb"]}


def largest_tree_mb(pid: int) -> float:
    """The largest memory of a process and its children together until it ends; pages that they share are
    counted once. 0 where the system does not tell."""
    largest = 0.0
    while is_alive(pid):
        largest = max(largest, sum(map(proportional_mb, [pid, *children(pid)])))
        time.sleep(0.05)
    return largest


def is_alive(pid: int) -> bool:
    """Whether it still runs; an ended process that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def proportional_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return 0.0


# ---------------------------------------------------------------------------------------------------
# Our side
# ---------------------------------------------------------------------------------------------------


class Ours(compare.Dari):
    """`dari embed`, a fresh process each time."""

    def __init__(self, binary: Path, threads: int, work: Path) -> None:
        super().__init__(binary, threads, work)
        self.has_exact = "--exact" in self.call(["embed", "--help"])
        self.names = ["Dari", "Dari --exact"] if self.has_exact else ["Dari"]

    def embed(self, model: Path, precision: str, images: list[Path], exact: bool, output: Path) -> Json:
        """Wall time, processors' time and peak memory of the whole process."""
        command = [str(self.binary), "embed", "--model", str(model), "--precision", precision]
        command += ["--threads", str(self.threads), "--batch", str(BATCH), "--output", str(output)]
        command += ["--exact"] * exact + ["--images", *map(str, images)]
        log = self.work / "logs" / "dari.log"
        log.parent.mkdir(exist_ok=True)
        output.unlink(missing_ok=True)
        with log.open("w") as file:
            began = time.perf_counter()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
            _, status, used = os.wait4(child.pid, 0)
            wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            words = compare.tail(log, 6) or "(it said nothing)"
            raise Trouble(f"exit code {child.returncode} of: {shlex.join(['dari', *command[1:]])[:400]}\n{words}")
        return {"ms": wall * 1e3, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak_mb(used)}


def peak_mb(used: resource.struct_rusage) -> float:
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


# ---------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------


def measure(precision: str, prepared: Prepared, dari: Ours, options: Options) -> Json:
    """Trials, pairs and peak memory at one precision."""
    say(f"{precision}: {options.count} photographs")
    peers = [
        Peer(prepared.model, precision, draft, options.threads, options.work) for draft in (WHOLE, options.draft)
    ]
    result: Json = {"precision": precision, "trials": {}, "ways": {}, "pairs": [], "memory": {}}
    for rival in peers:
        compare.wait_for_quiet(options.wait)
        result["trials"][rival.name] = rival.choose(prepared.pictures(min(options.count, 2 * BATCH)))
        result["ways"][rival.name] = rival.way.label()
        say(f"  {rival.name}: {rival.way.label()}")
    loads = {"ours": Load(), "peers": Load()}
    for number in range(options.pairs):
        result["pairs"].append(one_pair(precision, number, peers, prepared, dari, options, loads))
        say(f"  pair {number + 1}/{options.pairs}: {pair_line(result['pairs'][-1])}")
    for rival in peers:
        result["memory"][rival.name] = rival.memory(prepared.pictures())
    result["load"] = {side: load.others() for side, load in loads.items()}
    return result


def one_pair(
    precision: str,
    number: int,
    peers: list[Peer],
    prepared: Prepared,
    dari: Ours,
    options: Options,
    loads: dict[str, Load],
) -> Json:
    """Every side once, one after the other; ours goes first in every second pair."""
    pair: Json = {}

    def ours() -> None:
        for name in dari.names:
            exact = name != "Dari"
            output = output_file(options.work, precision, name)
            with compare.watched(loads["ours"], compare.children_seconds, []):
                tiny = dari.embed(prepared.model, precision, [prepared.tiny], exact, options.work / "tiny.npy")
                found = dari.embed(prepared.model, precision, [prepared.folder], exact, output)
            pair[name] = found | {"tiny_ms": tiny["ms"], "without_load_ms": found["ms"] - tiny["ms"]}

    def theirs() -> None:
        for rival in peers if number % 4 < 2 else peers[::-1]:
            with compare.watched(loads["peers"], compare.children_seconds, []):
                pair[rival.name] = rival.measure(prepared.pictures())

    for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
        compare.wait_for_quiet(options.wait)
        side()
    return pair


def pair_line(pair: Json) -> str:
    return "; ".join(f"{name} {found['ms'] / 1e3:.2f} s" for name, found in pair.items())


def median_of(pairs: list[Json], name: str, key: str = "ms") -> float:
    return statistics.median(pair[name][key] for pair in pairs)


def ratios(pairs: list[Json], name: str, key: str, peer_name: str) -> list[float]:
    return [pair[name][key] / pair[peer_name]["ms"] for pair in pairs]


# ---------------------------------------------------------------------------------------------------
# Accuracy
# ---------------------------------------------------------------------------------------------------


def measure_accuracy(prepared: Prepared, dari: Ours, options: Options) -> list[list[str]]:
    """Rows of the accuracy table: the random model, then the trained one."""
    rows = []
    models = {"ViT-B/32, random weights": prepared.model}
    if options.trained:
        models[f"{options.trained.name}, trained"] = options.trained
    for title, model in models.items():
        say(f"accuracy: {title}")
        try:
            rows += accuracy_rows(title, model, prepared.pictures(100), dari, options)
        except Trouble as error:
            rows.append([title, compare.one_line(str(error)), *[""] * 6])
    return rows


def accuracy_rows(title: str, model: Path, pictures: list[Path], dari: Ours, options: Options) -> list[list[str]]:
    import numpy

    found = {}
    output = options.work / "accuracy.npy"
    for name in dari.names:
        dari.embed(model, "f32", pictures, name != "Dari", output)
        found[name] = numpy.load(output)
    for draft, name in ((WHOLE, "PyTorch"), (options.draft, "PyTorch, Pillow's draft")):
        rival = Peer(model, "f32", draft, options.threads, options.work)
        rival.way = Way(options.threads, 1, "sdpa")
        rival.measure(pictures, output)
        found[name] = numpy.load(output)
    whole = dari.names[-1]
    # open_clip leaves a picture as it is stored, Dari turns it upright.
    upright = numpy.array([is_upright(int(path.stem)) for path in pictures])
    wanted = [("Dari", whole, None)] if dari.has_exact else []
    wanted += [("PyTorch, Pillow's draft", "PyTorch", None), (whole, "PyTorch", upright)]
    rows = []
    for one, other, chosen in wanted:
        a, b = found[one], found[other]
        if a.shape != b.shape or not (numpy.isfinite(a).all() and numpy.isfinite(b).all()):
            raise Trouble(f"{one} and {other}: {a.shape} and {b.shape} embeddings, or some that are no numbers")
        a, b = (a, b) if chosen is None else (a[chosen], b[chosen])
        plain = (unit(a) * unit(b)).sum(axis=1)
        mean, least = compare.centred_cosine(b, a) if len(a) > 2 else (math.nan, math.nan)
        aim = f"mean {verdict(plain.mean())}, least {verdict(plain.min())}" if other == "Dari --exact" else ""
        cells = [title, f"{one} with {other}", f"{len(a)}", f"{plain.mean():.6f}", f"{plain.min():.6f}", aim]
        rows.append([*cells, f"{mean:.5f}", f"{least:.5f}"])
    return rows


def verdict(cosine: float) -> str:
    return "met" if cosine >= COSINE_AIM else "missed"


def unit(rows: Any) -> Any:
    import numpy

    rows = rows.astype(numpy.float64)
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def check_embeddings(results: list[Json], dari: Ours, options: Options) -> None:
    """A picture that Dari could not read would make it look fast."""
    import numpy

    for result in results:
        for name in dari.names:
            rows = numpy.load(output_file(options.work, result["precision"], name))
            if len(rows) != options.count or not numpy.isfinite(rows).all():
                raise Trouble(
                    f"{name} {result['precision']}: {rows.shape} embeddings, or some that are no numbers"
                )


def output_file(work: Path, precision: str, name: str) -> Path:
    return work / f"{name.replace(' --', '-').lower()}-{precision}.npy"


# ---------------------------------------------------------------------------------------------------
# The report
# ---------------------------------------------------------------------------------------------------


def report(
    results: list[Json],
    failures: list[Json],
    accuracy: list[list[str]],
    prepared: Prepared,
    dari: Ours,
    confined: bool,
    options: Options,
    command: str,
) -> str:
    lines = ["# Dari beside open_clip's preprocessing and PyTorch on photographs", ""]
    lines += [f"`{command}`, {date.today().isoformat()}. Written by bench/peers/photographs.py;",
              "bench/peers/README.md says how it is run.", ""]  # fmt: skip
    lines += [
        "## Machine and versions",
        "",
        *compare.machine_lines(dari, options),
        *more_versions(confined, options),
    ]
    lines += ["", "## The photographs", "", *about_photographs(prepared)]
    if results:
        lines += ["", "## Ratios", "", *summary(results, dari)]
        lines += ["", "## Every side", "", *every_side(results, options)]
        lines += ["", "## Peak memory", "", *memory(results, dari)]
    if failures:
        lines += ["", "## Precisions that failed", ""]
        lines += [f"- {failure['precision']}: {compare.one_line(failure['error'])}" for failure in failures]
    lines += ["", "## Decoded at a fraction of the size, and in full", "", *accuracy_text(accuracy, dari)]
    lines += ["", "## How pictures were decoded, and what is timed", "", *how(dari, options)]
    if results:
        lines += ["", "## What was tried to make the peer fast", "", *tried(results)]
        lines += ["", "## How quiet the machine was", "", *quiet(results)]
    return "\n".join(lines) + "\n"


def more_versions(confined: bool, options: Options) -> list[str]:
    names = ("open_clip_torch", "torchvision", "pillow")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    asked = (
        "import torch; from PIL import features; "
        "print(torch.version.cuda, features.version('libjpeg_turbo') or features.version('jpg'))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    cuda, jpeg = done.stdout.split()
    package = "a package for CPUs alone" if cuda == "None" else f"a package for CUDA {cuda}, used on the CPU"
    where = f"confined to {options.threads} processors" if confined else "not confined to processors"
    return [f"- {', '.join(found)} with libjpeg-turbo {jpeg}; PyTorch is {package}", f"- every process {where}"]


def about_photographs(prepared: Prepared) -> list[str]:
    files = prepared.pictures()
    sizes = sorted(path.stat().st_size / 1e6 for path in files)
    numbers = range(len(files))
    return [
        f"- {len(files)} JPEG files of {WIDTH} x {HEIGHT}, drawn under seed {SEED}: soft shapes, 1/f noise that is",
        "  sharp in some places only, a sensor's noise; brightness and colour follow each other in part",
        f"- quality {QUALITY}, 4:2:0; {sum(map(is_progressive, numbers))} progressive, "
        f"{sum(not is_upright(n) for n in numbers)} with an EXIF orientation that turns them to portrait",
        f"- {sizes[0]:.1f} to {sizes[-1]:.1f} MB, median {statistics.median(sizes):.1f} MB; read once before",
        "  anything is timed, so they come from memory",
    ]


def seconds(value: float) -> str:
    """Of milliseconds."""
    return f"{value / 1e3:.2f}"


def spread(values: list[float]) -> str:
    return f"{min(values):.2f} – {max(values):.2f}"


def summary(results: list[Json], dari: Ours) -> list[str]:
    rows = []
    for result in results:
        pairs, precision = result["pairs"], result["precision"]
        aimed, drafted = result["ways"]
        for name, peer_name in [(name, aimed) for name in dari.names] + [("Dari", drafted)]:
            whole = ratios(pairs, name, "ms", peer_name)
            warm = ratios(pairs, name, "without_load_ms", peer_name)
            own = [seconds(median_of(pairs, name, key)) for key in ("ms", "without_load_ms")]
            cells = [precision, name, *own, peer_name, seconds(median_of(pairs, peer_name))]
            for values in (whole, warm):
                cells += [f"{statistics.median(values):.3f}", spread(values)]
            rows.append([*cells, *aim_cells(precision, whole, warm, (name, peer_name) == ("Dari", aimed))])
        rows.append(fastest_row(result, results))
    head = ["precision", "ours", "whole process, s", "without its load, s", "peer", "peer, s",
            "ratio, whole process", "least – most", "ratio without load", "least – most",
            "aim", "aim is (whole process, without load)"]  # fmt: skip
    return [
        *markdown(head, rows), "",
        "Ratio: our time over the peer's in the same pair, median over the pairs; below 1 we are faster. The",
        "peer's time has neither its imports nor its load; ours has its start and its load in the first ratio. The",
        "row of the fastest PyTorch takes medians, since precisions are measured one after the other.",
    ]  # fmt: skip


def aim_cells(precision: str, whole: list[float], warm: list[float], aimed: bool) -> list[str]:
    if not aimed:
        return ["", ""]
    aim = AIMS[precision]
    met = ["met" if statistics.median(values) <= aim else "missed" for values in (whole, warm)]
    return [f"{aim:.2f}", ", ".join(met)]


def fastest_row(result: Json, results: list[Json]) -> list[str]:
    """Against the fastest PyTorch of any precision that decodes as it likes."""
    times = {name: median_of(each["pairs"], name) for each in results for name in each["ways"]}
    best = min(times, key=times.__getitem__)
    whole, warm = (median_of(result["pairs"], "Dari", key) for key in ("ms", "without_load_ms"))
    cells = [
        result["precision"],
        "Dari",
        seconds(whole),
        seconds(warm),
        f"the fastest: {best}",
        seconds(times[best]),
    ]
    return [*cells, f"{whole / times[best]:.3f}", "", f"{warm / times[best]:.3f}", "", "", ""]


def every_side(results: list[Json], options: Options) -> list[str]:
    rows = []
    for result in results:
        pairs = result["pairs"]
        for name in pairs[0]:
            times = [pair[name]["ms"] / 1e3 for pair in pairs]
            middle = statistics.median(times)
            apart = "of it the model: " if name in result["ways"] else "with one tiny picture: "
            part = median_of(pairs, name, "model_ms" if name in result["ways"] else "tiny_ms")
            cells = [result["precision"], name, result["ways"].get(name, ""), f"{middle:.2f}", spread(times)]
            cells += [
                f"{options.count / middle:.1f}",
                f"{median_of(pairs, name, 'cpu_s'):.1f}",
                apart + seconds(part),
            ]
            rows.append(cells)
    head = [
        "precision",
        "who",
        "how",
        "median, s",
        "least – most",
        "pictures a second",
        "processors' time, s",
        "part, s",
    ]
    return [
        *markdown(head, rows), "",
        "Processors' time: user and system, of all threads and worker processes; it suffers less than wall time",
        "when others use the machine.",
    ]  # fmt: skip


def memory(results: list[Json], dari: Ours) -> list[str]:
    rows = []
    for result in results:
        for peer_name, found in result["memory"].items():
            for name in dari.names:
                ours = median_of(result["pairs"], name, "peak_mb")
                ratio = ours / found["peak_mb"]
                met = "met" if ratio <= MEMORY_AIM else "missed"
                cells = [result["precision"], name, f"{ours:.0f}", peer_name, f"{found['peak_mb']:.0f}"]
                rows.append([*cells, f"{found['imported_mb']:.0f}", f"{ratio:.2f}", f"{MEMORY_AIM}", met])
    head = ["precision", "ours", "MB", "peer", "peak, MB", "of it after its imports", "ratio", "aim", "aim is"]
    return [
        *markdown(head, rows), "",
        "MB of 10^6 bytes. Ours: the largest resident size of the process. The peer's: of its process and its",
        "workers together, pages that they share counted once, in a pass of its own that is not timed (or its",
        "process's own largest resident size, where that is more). The peer loads the vision tower alone.",
    ]  # fmt: skip


def accuracy_text(rows: list[list[str]], dari: Ours) -> list[str]:
    head = ["model", "what with what", "pictures", "mean cosine", "least", f"aim {COSINE_AIM}",
            "centred: mean", "least"]  # fmt: skip
    lines = [*markdown(head, rows), ""]
    if not dari.has_exact:
        lines += ["This dari has no `--exact`, so it is not told how far its own decoding is from a full one.", ""]
    return [
        *lines,
        "All at f32. Centred: the mean embedding of the second is subtracted from both first, which tells more",
        "where all embeddings are alike, as those of random weights are. Dari with PyTorch: the pictures that are",
        "stored upright, since open_clip's transform does not read the EXIF orientation.",
    ]


def how(dari: Ours, options: Options) -> list[str]:
    exact = " `--exact` decodes in full." if dari.has_exact else ""
    return [
        f"- Dari: `dari embed --images FOLDER --batch {BATCH} --output FILE.npy`, the whole process from its start",
        f"  to its end.{exact} Without its load: that time less a run of the same command on one picture of",
        "  32 x 32 just before, which starts, loads the model and takes one picture through it. It turns pictures",
        "  upright.",
        "- PyTorch: the vision tower of `transformers`, inference mode, on pixels of `open_clip`'s image transform",
        "  (Pillow decodes in full, bicubic to 224 and centre crop for this model, tensor, normalise) from a",
        f"  `torch.utils.data.DataLoader`, batch {BATCH}. Timed from the loader's start, its workers' start",
        "  included, to the last embedding. Imports, the model's load and a first pass to warm it are not in it.",
        "  It does not turn pictures upright. bf16: weights in bf16; int8: `quantize_dynamic`, qint8.",
        f"- Pillow's draft: `Image.draft` before the transform asks for at least {options.draft} times the model's",
        "  side, so that the decoder itself makes the picture smaller. open_clip does not do this; a careful user",
        "  can.",
    ]


def tried(results: list[Json]) -> list[str]:
    rows = []
    for result in results:
        for name, trial in result["trials"].items():
            for one in trial["passes"]:
                label = Way(**one["way"]).label()
                taken = "taken" if label == result["ways"][name] else ""
                rows.append(
                    [name, label, seconds(one["ms"]), seconds(one["model_ms"]), f"{one['cpu_s']:.1f}", taken]
                )
    attentions = [
        f"{name}: " + ", ".join(f"{way} {value:.0f} ms" for way, value in trial["attentions_ms"].items())
        for result in results
        for name, trial in result["trials"].items()
    ]
    return [
        *markdown(["peer", "way", "s", "of it the model, s", "processors' time, s", ""], rows), "",
        f"On the first pictures, {2 * BATCH} at most, each way once; the quickest goes into the pairs. Which",
        f"attention is asked before, on a batch in memory: {'; '.join(attentions)}.",
    ]  # fmt: skip


def quiet(results: list[Json]) -> list[str]:
    rows = [
        [result["precision"], *(f"{result['load'][side]:.2f}" for side in ("ours", "peers"))] for result in results
    ]
    return markdown(["precision", "processors busy for others while ours ran", "while a peer ran"], rows)


# ---------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    dari: Path
    threads: int
    pairs: int
    count: int
    draft: int
    precisions: list[str]
    out: Path
    work: Path
    wait: float
    trained: Path | None


def read_options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dari", type=Path, default=REPOSITORY / "target/release/dari", help="the binary")
    parser.add_argument("--threads", type=int, default=2, help="of both sides, and processors used (default 2)")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved pairs a precision (default 3)")
    parser.add_argument("--count", type=int, default=200, help="photographs (default 200)")
    parser.add_argument("--draft", type=int, default=2, metavar="TIMES",
                        help="times the model's side that Pillow's draft must leave (default 2)")  # fmt: skip
    parser.add_argument("--precisions", default=",".join(AIMS), metavar="P,P", help="these alone")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/PHOTOGRAPHS.md",
                        help="where the report goes")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dari-photographs",
                        help="folder of the photographs and the model, some 1.3 GB, kept")  # fmt: skip
    parser.add_argument("--wait", type=float, default=10, metavar="SECONDS",
                        help="for a quiet machine before each side, at most (default 10)")  # fmt: skip
    parser.add_argument("--model-for-accuracy", type=Path, default=REPOSITORY / "models/mini", metavar="FOLDER",
                        help="a trained CLIP beside the random one (default models/mini)")  # fmt: skip
    found = parser.parse_args(arguments)
    precisions = found.precisions.split(",")
    unknown = [name for name in precisions if name not in AIMS]
    if unknown:
        parser.error(f"--precisions {','.join(unknown)}: there are {', '.join(AIMS)}")
    if min(found.threads, found.pairs, found.count, found.draft) < 1:
        parser.error("--threads, --pairs, --count and --draft are at least 1")
    trained = found.model_for_accuracy.resolve()
    if not (trained / "preprocessor_config.json").is_file():
        parser.error(f"--model-for-accuracy {trained}: no preprocessor_config.json in it")
    return Options(
        dari=found.dari,
        threads=found.threads,
        pairs=found.pairs,
        count=found.count,
        draft=found.draft,
        precisions=precisions,
        out=found.out,
        work=found.work.resolve(),
        wait=found.wait,
        trained=trained,
    )


def compare_sides(options: Options, command: str) -> int:
    """The whole comparison; 1 when some precision failed."""
    dari = Ours(options.dari, options.threads, options.work)
    prepared = prepare(options.work, options.count)
    confined = confine(options.threads)
    for path in prepared.pictures():
        path.read_bytes()
    results: list[Json] = []
    failures: list[Json] = []
    for precision in options.precisions:
        try:
            results.append(measure(precision, prepared, dari, options))
        except Trouble as error:
            say(f"  failed: {error}")
            failures.append({"precision": precision, "error": str(error)})
        raw = {"command": command, "results": results, "failures": failures}
        (options.work / "results.json").write_text(json.dumps(raw, indent=1))
    check_embeddings(results, dari, options)
    accuracy = measure_accuracy(prepared, dari, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = report(results, failures, accuracy, prepared, dari, confined, options, command)
    options.out.write_text(text, encoding="utf-8")
    say(f"written: {options.out}")
    return 1 if failures else 0


def main() -> int:
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["--peer"]:
            peer(json.loads(Path(arguments[1]).read_text()))
            return 0
        if arguments[:1] == ["--prepare"]:
            prepare_here(Path(arguments[1]), int(arguments[2]))
            return 0
        return compare_sides(read_options(arguments), shown_command("photographs.py", arguments))
    except Trouble as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("broken off")
        return 130


if __name__ == "__main__":
    sys.exit(main())
