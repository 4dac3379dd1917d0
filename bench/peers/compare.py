#!/usr/bin/env python3
"""Compares the `dari` binary with PyTorch (transformers) and ONNX Runtime on a CPU.

    python bench/peers/compare.py [--threads 2] [--pairs 15] [--only ROW,ROW] [--accuracy]

Makes one CLIP ViT-B/32 of the published sizes with seeded random weights, lets both sides run it in
turn, and writes benchmarks/RESULTS.md: ratios with their intervals, wins and losses alike, peak
memory, and what was tried to make the peers fast. README.md beside this file says how and why.

This process imports neither torch nor onnxruntime: every peer lives in a process of its own (this
same file with --worker), which waits without computing while the other side runs.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib.metadata
import json
import math
import os
import platform
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from parts import put as put_part
from parts import read as parts_of
from turns import peak_memory_mb

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
SEED = 20261124
FORMAT = 3  # of the work folder; a folder of another number is made anew

# Numbers of one pass: a name ("PyTorch f32") and milliseconds.
Json = dict[str, Any]


class Trouble(Exception):
    """Something the reader can mend; the message says what it is."""


# ---------------------------------------------------------------------------------------------------
# What is compared
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One kind of work. `aim` is our time over that of `aim_peer`, or over the fastest peer of the
    row's own precision where no peer is named."""

    name: str
    title: str
    task: str  # pictures, texts, natural, train
    batch: int
    precision: str
    aim: float | None = None
    aim_peer: str = ""


def all_rows() -> list[Row]:
    rows = []
    aims = {"f32": (0.95, "ONNX Runtime f32"), "bf16": (0.80, "PyTorch bf16"), "int8": (0.90, "ONNX Runtime int8")}
    for batch in (32, 1):
        for precision, (aim, peer) in aims.items():
            if (batch, precision) == (1, "bf16"):
                aim, peer = None, ""
            title = f"pictures, batch {batch}, {precision}"
            rows.append(Row(f"pictures-{batch}-{precision}", title, "pictures", batch, precision, aim, peer))
    for precision in aims:
        title = f"texts of 77 tokens, batch 32, {precision}"
        rows.append(Row(f"texts-77-{precision}", title, "texts", 32, precision, 0.95))
    for precision in aims:
        title = f"texts of natural length, batch 32, {precision}"
        rows.append(Row(f"texts-natural-{precision}", title, "natural", 32, precision, 0.60))
    rows.append(Row("train-f32", "training step, batch 64, f32", "train", 64, "f32", 0.80, "PyTorch f32"))
    title = "training step, batch 64, bf16 products"
    rows.append(Row("train-bf16", title, "train", 64, "bf16", 0.55, "PyTorch f32"))
    return rows


@dataclass(frozen=True)
class Candidate:
    """One way of running one peer; a trial finds each peer's fastest."""

    peer: str
    label: str
    spec: Json = field(hash=False)

    @property
    def key(self) -> str:
        return json.dumps([self.peer, self.spec], sort_keys=True)


def candidates(row: Row, prepared: Json, threads: int) -> list[Candidate]:
    """Every way in which the peers of a row may run it. A bf16 row has the f32 peers too: on a
    machine without bf16 instructions they are the faster choice, and a reader should see that."""
    common = {"task": row.task, "batch": row.batch, "threads": threads}
    precisions = ["bf16", "f32"] if row.precision == "bf16" else [row.precision]
    found = []
    for precision in precisions:
        spec = common | {"precision": precision}
        if row.task == "train":
            found += train_candidates(spec)
        else:
            found += torch_candidates(spec) + ort_candidates(spec, prepared)
    return found


def train_candidates(spec: Json) -> list[Candidate]:
    precision = spec["precision"]
    how = "autocast, " if precision == "bf16" else ""
    # The fused AdamW alone under autocast: without bf16 instructions one step may take half a minute.
    optimizers = ["fused"] if precision == "bf16" else ["fused", "foreach"]
    return [
        Candidate(
            f"PyTorch {precision}",
            f"{how}{attention} attention, AdamW {name}",
            spec | {"engine": "train", "optimizer": name, "attention": attention},
        )
        for attention in ("eager", "sdpa")
        for name in optimizers
    ]


def torch_candidates(spec: Json) -> list[Candidate]:
    precision = spec["precision"]
    spec = spec | {"engine": "torch"}
    peer = f"PyTorch {precision}"
    ways = {"f32": [""], "bf16": ["weights bf16", "autocast"], "int8": ["quantize_dynamic, qint8"]}[precision]
    found = []
    for way in ways:
        for attention in ("sdpa", "eager"):
            of_way = spec | {"autocast": way == "autocast", "attention": attention}
            if spec["task"] != "natural":
                found.append(Candidate(peer, joined(way, attention), of_way))
                continue
            for mask in (True, False):
                label = joined(way, attention, "padded to the longest", "mask" if mask else "no mask")
                found.append(Candidate(peer, label, of_way | {"mask": mask}))
    if spec["task"] == "natural" and precision == "f32":
        # open_clip's habit.
        padded = {"autocast": False, "mask": False, "pad_to": 77, "attention": "sdpa"}
        found.append(Candidate("PyTorch f32 padded to 77", "sdpa, no mask", spec | padded))
    return found


def ort_candidates(spec: Json, prepared: Json) -> list[Candidate]:
    precision = spec["precision"]
    if precision == "bf16":
        return []  # its CPU provider has no bf16 products
    tower = "vision" if spec["task"] == "pictures" else "text"
    found = []
    for spin in (True, False):
        for graph in prepared["graphs"]:
            fits = graph["tower"] == tower and graph["precision"] == precision
            # Texts of full length need no mask, so none is given.
            if not fits or (spec["task"] == "texts" and graph["mask"]):
                continue
            label = joined(graph["label"], "spins" if spin else "no spinning")
            of_graph = {"engine": "ort", "graph": graph["file"], "mask": graph["mask"], "spin": spin}
            found.append(Candidate(f"ONNX Runtime {precision}", label, spec | of_graph))
    return found


def joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


# ---------------------------------------------------------------------------------------------------
# The models: made once, in a process of their own, kept in the work folder
# ---------------------------------------------------------------------------------------------------

CLIP_B32 = {
    "projection_dim": 512,
    "vision_config": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 32, "projection_dim": 512, "hidden_act": "quick_gelu",
    },
    "text_config": {
        "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
        "max_position_embeddings": 77, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407,
        "pad_token_id": 49407, "projection_dim": 512, "hidden_act": "quick_gelu",
    },
}  # fmt: skip
START, END = 49406, 49407

# The training step's model; `START` and `END` of its texts are those of mini's tokenizer, which it borrows.
SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4,
         "projection_dim": 256, "hidden_act": "quick_gelu"}  # fmt: skip
SMALL_CLIP = {
    "projection_dim": 256,
    "vision_config": SMALL | {"image_size": 64, "patch_size": 8},
    "text_config": SMALL | {"max_position_embeddings": 32, "vocab_size": 8192, "bos_token_id": 1398,
                            "eos_token_id": 1399, "pad_token_id": 1399},
}  # fmt: skip
SMALL_START, SMALL_END = 1398, 1399

# Dynamic quantization of the weights' products: type, a scale a column, seven bits a weight.
INT8_WAYS = [(kind, columns, seven) for kind in ("QInt8", "QUInt8") for columns in (False, True)
             for seven in (False, True)]  # fmt: skip
EXPORTS = [(attention, exporter) for attention in ("sdpa", "eager") for exporter in ("dynamo", "legacy")]
INT8_EXPORTS = [("sdpa", "dynamo"), ("eager", "legacy")]


def prepare(work: Path) -> Json:
    """What the work folder holds, made first where it is missing or of other versions."""
    key = {"format": FORMAT, "seed": SEED} | versions()
    marker = work / "prepared.json"
    if marker.is_file():
        prepared = json.loads(marker.read_text())
        if prepared.get("key") == key:
            return prepared
    work.mkdir(parents=True, exist_ok=True)
    say(f"making the models in {work}, once: some minutes and 7 GB")
    log = work / "prepare.log"
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, str(HERE / Path(__file__).name), "--prepare", str(work)],
            stdout=file, stderr=file, env=peer_environment(os.cpu_count() or 1), check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise Trouble(f"the models could not be made; the last lines of {log}:\n{tail(log)}")
    prepared = json.loads((work / "made.json").read_text()) | {"key": key}
    marker.write_text(json.dumps(prepared, indent=1))
    return prepared


def prepare_here(work: Path) -> None:
    """Makes everything. Runs in a process of its own."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    write_token_lists(work / "tokens.json")
    write_clip(work / "clip", CLIP_B32)
    write_clip_tokenizer(work / "clip")
    write_clip(work / "small", SMALL_CLIP)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(REPOSITORY / "models" / "mini" / file, work / "small" / file)
    folder = work / "onnx"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with torch.no_grad():
        graphs = export_all(work / "clip", folder)
    (work / "made.json").write_text(json.dumps({"graphs": graphs}, indent=1))


def write_token_lists(path: Path) -> None:
    """32 texts as token ids, start and end included: lengths as captions have them (a log-normal
    around 12, from 5 to 30), one in twenty-five longer."""
    draw = random.Random(SEED)
    lists = []
    for _ in range(32):
        length = min(30, max(5, round(draw.lognormvariate(math.log(12), 0.4))))
        if draw.random() < 0.04:
            length = draw.randint(31, 60)
        lists.append([START, *(draw.randrange(256, START) for _ in range(length - 2)), END])
    path.write_text(json.dumps(lists))


def write_clip(folder: Path, config: Json) -> None:
    """A CLIP with seeded weights as transformers saves it, with its preprocessor's file."""
    import torch
    import transformers

    folder.mkdir(exist_ok=True)
    torch.manual_seed(SEED)
    model = transformers.CLIPModel(transformers.CLIPConfig(**config))
    model.save_pretrained(folder)
    side = config["vision_config"]["image_size"]
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True, "do_resize": True,
        "size": {"shortest_edge": side}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": side, "width": side}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1))


def write_clip_tokenizer(folder: Path) -> None:
    """A tokenizer of CLIP's form and size with made-up merges: the public one cannot be had without a
    network, and what is timed takes ids."""
    import transformers

    vocabulary, merges = clip_vocabulary(CLIP_B32["text_config"]["vocab_size"])
    tokenizer = transformers.CLIPTokenizer(
        vocab=vocabulary, merges=merges, bos_token="<|startoftext|>", eos_token="<|endoftext|>",
        unk_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=77,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)


def clip_vocabulary(size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Bytes, bytes that end a word, merges of two and three letters, start and end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    units = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pairs = [(a, b) for a in letters for b in letters]
    merges = pairs + [(a + b, c) for a, b in pairs for c in letters]
    merges += [(a, b + "</w>") for a, b in pairs]
    merges = merges[: size - 2 * len(units) - 2]
    tokens = units + [unit + "</w>" for unit in units] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(tokens) == len(set(tokens)) == size
    return {token: number for number, token in enumerate(tokens)}, merges


def export_all(clip: Path, folder: Path) -> list[Json]:
    """Both towers as ONNX graphs by both exporters, and their int8 forms; each held against PyTorch."""
    import torch
    import transformers

    model = transformers.CLIPModel.from_pretrained(clip, attn_implementation="sdpa").eval()
    torch.manual_seed(SEED)
    ids = torch.tensor([pad(tokens, 77) for tokens in json.loads((clip.parent / "tokens.json").read_text())[:8]])
    pixels = torch.randn(8, 3, 224, 224)
    mask = (ids != END).long()
    mask[torch.arange(len(ids)), mask.sum(1)] = 1  # the first END is the text's own
    towers = [
        ("vision", False, {"pixel_values": pixels}),
        ("text", False, {"input_ids": ids}),
        ("text", True, {"input_ids": ids, "attention_mask": mask}),
    ]
    graphs = []
    for tower, masked, inputs in towers:
        module = Tower(model, tower).module()
        expected = module(*inputs.values()).numpy()
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        about = {"tower": tower, "mask": masked}
        for attention, exporter in INT8_EXPORTS if masked else EXPORTS:
            model.set_attn_implementation(attention)
            stem = f"{tower}{'-mask' if masked else ''}-{attention}-{exporter}"
            label = joined(f"{exporter} export of {attention} attention", "mask" if masked else "")
            file = folder / f"{stem}.onnx"
            if not attempt(f"export {stem}", export, module, inputs, exporter, file):
                continue
            made = [about | {"precision": "f32", "label": label, "file": str(file)}]
            # The optimizer's patterns are those of this export.
            if (attention, exporter) == ("eager", "legacy"):
                made += fused_graph(tower, about, label, file)
            # A mask is only ever more work, and the same embeddings: the padding lies behind the text.
            if not masked and (attention, exporter) in INT8_EXPORTS:
                for graph in list(made):
                    made += quantized_graphs(about, graph["label"], Path(graph["file"]))
            graphs += made
        for graph in graphs:
            if (graph["tower"], graph["mask"]) == (tower, masked):
                graph["cosine"] = graph_cosine(graph["file"], arrays, expected)
    wrong = [graph for graph in graphs if graph["precision"] == "f32" and graph["cosine"] < 0.99999]
    if wrong:
        raise Trouble(f"graphs that compute something else than PyTorch: {wrong}")
    return graphs


class Tower:
    """One tower of a CLIPModel as a module from inputs to projected embeddings."""

    def __init__(self, model: Any, tower: str) -> None:
        self.model, self.tower = model, tower

    def module(self) -> Any:
        import torch

        model = self.model

        class Vision(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.tower, self.projection = model.vision_model, model.visual_projection

            def forward(self, pixel_values):  # noqa: ANN001, ANN202
                return self.projection(self.tower(pixel_values=pixel_values).pooler_output)

        class Text(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.tower, self.projection = model.text_model, model.text_projection

            def forward(self, input_ids, attention_mask=None):  # noqa: ANN001, ANN202
                pooled = self.tower(input_ids=input_ids, attention_mask=attention_mask).pooler_output
                return self.projection(pooled)

        return (Vision() if self.tower == "vision" else Text()).eval()


def export(module: Any, inputs: Json, exporter: str, file: Path, output: str = "embeddings") -> None:
    """Writes an ONNX graph with a dynamic batch, and a dynamic length where inputs are texts."""
    import torch

    names = list(inputs)
    axes = {0: "batch"} if "pixel_values" in inputs else {0: "batch", 1: "length"}
    shared = {"input_names": names, "output_names": [output]}
    arguments = tuple(inputs.values())
    if exporter == "dynamo":
        limits = {"batch": torch.export.Dim("batch"), "length": torch.export.Dim("length", max=77)}
        shapes = tuple({axis: limits[name] for axis, name in axes.items()} for _ in names)
        torch.onnx.export(
            module, arguments, file, dynamo=True, dynamic_shapes=shapes, external_data=False, **shared
        )
    else:
        dynamic = dict.fromkeys(names, axes) | {output: {0: "batch"}}
        torch.onnx.export(module, arguments, file, dynamo=False, dynamic_axes=dynamic, opset_version=17, **shared)


def fused_graph(tower: str, about: Json, label: str, file: Path) -> list[Json]:
    """The graph after onnxruntime.transformers' own fusions, where they apply."""
    out = file.with_name(f"{file.stem}-fused.onnx")

    def fuse() -> None:
        from onnxruntime.transformers import optimizer

        config = CLIP_B32[f"{tower}_config"]
        fused = optimizer.optimize_model(
            str(file), model_type="clip", num_heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"], opt_level=1,
        )  # fmt: skip
        print(f"fusions in {file.name}:", fused.get_fused_operator_statistics())
        fused.save_model_to_file(str(out))

    if not attempt(f"fuse {file.stem}", fuse):
        return []
    return [about | {"precision": "f32", "label": f"{label}, fused by its optimizer", "file": str(out)}]


def quantized_graphs(about: Json, label: str, file: Path) -> list[Json]:
    """The int8 forms of a graph: products with weights alone, as the dynamic quantizer does by itself;
    the patches' convolution and the embeddings' table stay f32, which is faster. Seven bits a weight
    are other weights for the same kernels, so they are left to --accuracy."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = file.with_name(f"{file.stem}-ready.onnx")
    if not attempt(f"prepare {file.stem}", quant_pre_process, str(file), str(ready), skip_symbolic_shape=True):
        ready = file
    graphs = []
    for kind, columns, seven in INT8_WAYS:
        if seven:
            continue
        way = joined(kind, "per channel" if columns else "")
        out = file.with_name(f"{file.stem}-{way.replace(', ', '-').replace(' ', '-')}.onnx")
        if attempt(f"quantize {out.stem}", quantize, ready, out, kind, columns, seven):
            graphs.append(about | {"precision": "int8", "label": joined(label, way), "file": str(out)})
    if ready != file:
        ready.unlink()
    return graphs


def quantize(source: Path, out: Path, kind: str, columns: bool, seven: bool) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(out),
        op_types_to_quantize=["MatMul", "Gemm", "Attention"],
        per_channel=columns,
        reduce_range=seven,
        weight_type=getattr(QuantType, kind),
        # Types are not inferred through the fused operators.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )  # fmt: skip


def graph_cosine(file: str, inputs: Json, expected: Any) -> float:
    """Mean cosine of a graph's embeddings with PyTorch's, the mean embedding subtracted."""
    session = ort_session(file, threads=os.cpu_count() or 1, spin=False)
    found = session.run(None, inputs)[0]
    return centred_cosine(expected, found)[0]


def attempt(what: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> bool:
    """Whether `work` went well; a tool that fails at one of several ways is told and passed over."""
    try:
        work(*arguments, **options)
    except Exception as error:  # the exporters raise anything
        print(f"{what}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return False
    return True


def pad(tokens: list[int], length: int, end: int = END) -> list[int]:
    return tokens + [end] * (length - len(tokens))


# ---------------------------------------------------------------------------------------------------
# A peer's process
# ---------------------------------------------------------------------------------------------------

Pass = Callable[[], Json]  # one pass; gives its parts' milliseconds, where it has parts


def worker(spec: Json) -> None:
    """Loads a peer, then answers requests on stdin, a JSON object a line; waits without computing."""
    # Whatever the libraries print goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: Json) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    before = peak_memory_mb()
    began = time.perf_counter()
    builders = {"torch": torch_pass, "ort": ort_pass, "train": train_pass}
    one_pass, imported = builders[spec["engine"]](spec)
    answer({"load_ms": (time.perf_counter() - began) * 1e3, "bare_mb": before, "imported_mb": imported})
    for line in sys.stdin:
        request = json.loads(line)
        for _ in range(request["warm"]):
            one_pass()
        times, parts = [], []
        for _ in range(request["runs"]):
            start = time.perf_counter()
            parts.append(one_pass())
            times.append((time.perf_counter() - start) * 1e3)
        middle = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
        answer({"times_ms": times, "parts_ms": middle, "peak_mb": peak_memory_mb()})


def texts_of(spec: Json) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and their mask, all of one length: random and full, or those of tokens.json padded
    to the longest as transformers' `padding=True` does."""
    if spec["task"] == "texts":
        draw = random.Random(SEED + 1)
        ids = [[START, *(draw.randrange(256, START) for _ in range(75)), END] for _ in range(spec["batch"])]
        return ids, [[1] * 77 for _ in ids]
    lists = json.loads((Path(spec["work"]) / "tokens.json").read_text())
    length = spec.get("pad_to") or max(map(len, lists))
    mask = [[1] * len(tokens) + [0] * (length - len(tokens)) for tokens in lists]
    return [pad(tokens, length) for tokens in lists], mask


def torch_threads(spec: Json) -> None:
    import torch

    torch.set_num_threads(spec["threads"])
    torch.set_num_interop_threads(1)


def torch_pass(spec: Json) -> tuple[Pass, float]:
    """A tower of the CLIP in PyTorch, that tower alone loaded."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch_threads(spec)
    pictures = spec["task"] == "pictures"
    kind = transformers.CLIPVisionModelWithProjection if pictures else transformers.CLIPTextModelWithProjection
    imported = peak_memory_mb()
    half = spec["precision"] == "bf16" and not spec["autocast"]
    model = kind.from_pretrained(
        Path(spec["work"]) / "clip", dtype=torch.bfloat16 if half else torch.float32,
        attn_implementation=spec["attention"],
    ).eval()  # fmt: skip
    if spec["precision"] == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    if pictures:
        torch.manual_seed(SEED)
        pixels = torch.randn(spec["batch"], 3, 224, 224)
        inputs = {"pixel_values": pixels.to(torch.bfloat16) if half else pixels}
    else:
        ids, mask = texts_of(spec)
        inputs = {"input_ids": torch.tensor(ids)}
        if spec.get("mask"):
            inputs["attention_mask"] = torch.tensor(mask)

    def one_pass() -> Json:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=spec["autocast"]):
            model(**inputs)
        return {}

    return one_pass, imported


def ort_session(file: str, threads: int, spin: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Threads may spin for work within a run, never between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def ort_pass(spec: Json) -> tuple[Pass, float]:
    """A graph in ONNX Runtime; this process has no PyTorch."""
    import numpy
    import onnxruntime  # noqa: F401  (counted before the graph is)

    imported = peak_memory_mb()
    session = ort_session(spec["graph"], spec["threads"], spec["spin"])
    if spec["task"] == "pictures":
        draw = numpy.random.default_rng(SEED)
        inputs = {"pixel_values": draw.standard_normal((spec["batch"], 3, 224, 224), dtype=numpy.float32)}
    else:
        ids, mask = texts_of(spec)
        inputs = {"input_ids": numpy.array(ids, dtype=numpy.int64)}
        if spec["mask"]:
            inputs["attention_mask"] = numpy.array(mask, dtype=numpy.int64)

    def one_pass() -> Json:
        session.run(None, inputs)
        return {}

    return one_pass, imported


def train_pass(spec: Json) -> tuple[Pass, float]:
    """Forward, backward and AdamW step of the small CLIP. Texts have all their 32 tokens, or as many
    as `tokens` says."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch_threads(spec)
    imported = peak_memory_mb()
    folder = Path(spec["work"]) / "small"
    model = transformers.CLIPModel.from_pretrained(folder, attn_implementation=spec["attention"]).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1,
        fused=spec["optimizer"] == "fused", foreach=spec["optimizer"] == "foreach",
    )  # fmt: skip
    torch.manual_seed(SEED)
    pixels = torch.randn(spec["batch"], 3, 64, 64)
    ids = torch.randint(256, SMALL_START, (spec["batch"], 32))
    ids[:, 0], ids[:, -1] = SMALL_START, SMALL_END

    def one_pass() -> Json:
        marks = [time.perf_counter()]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=spec["precision"] == "bf16"):
            loss = model(input_ids=ids, pixel_values=pixels, return_loss=True).loss
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        names = ("forward_ms", "backward_ms", "optimizer_ms")
        return {name: (b - a) * 1e3 for name, a, b in zip(names, marks, marks[1:], strict=False)}

    return one_pass, imported


class Worker:
    """A peer's process, seen from the process that compares."""

    def __init__(self, candidate: Candidate, work: Path) -> None:
        self.log = work / "logs" / f"{re.sub(r'[^a-z0-9]+', '-', candidate.peer.lower())}.log"
        self.log.parent.mkdir(exist_ok=True)
        spec = candidate.spec | {"work": str(work)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / Path(__file__).name), "--worker", json.dumps(spec)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=peer_environment(candidate.spec["threads"]),
            )  # fmt: skip
        self.name = f"{candidate.peer} ({candidate.label})"
        self.loaded = self.answer()

    def answer(self) -> Json:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Trouble(f"{self.name} ended; the last lines of its log:\n{tail(self.log)}")
        return json.loads(line)

    def measure(self, runs: int, warm: int) -> Json:
        self.process.stdin.write(json.dumps({"runs": runs, "warm": warm}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def peer_environment(threads: int) -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error",
             "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    return os.environ | quiet | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


# ---------------------------------------------------------------------------------------------------
# Our side
# ---------------------------------------------------------------------------------------------------


class Dari:
    """The binary under test, a fresh process for each measurement."""

    def __init__(self, binary: Path, threads: int, work: Path) -> None:
        if not binary.is_file():
            raise Trouble(f"{binary}: no such file; build it with `cargo build --release`, or say --dari FILE")
        self.binary, self.threads, self.work = binary.resolve(), threads, work

    def version(self) -> str:
        return self.call(["--version"]).strip()

    def call(self, arguments: list[str]) -> str:
        """What a command prints on stdout; a failure is told with the command and its last words."""
        command = [str(self.binary), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        except subprocess.TimeoutExpired:
            raise Trouble(f"no end after half an hour: {shlex.join(command)}") from None
        except OSError as error:
            raise Trouble(f"{self.binary} does not start: {error}") from None
        if done.returncode != 0:
            words = last_lines(done.stderr.strip() or done.stdout.strip() or "(it said nothing)", 6)
            raise Trouble(f"exit code {done.returncode} of: {shlex.join(['dari', *arguments])}\n{words}")
        return done.stdout

    def bench(self, row: Row, runs: int) -> Json:
        arguments = self.command(row, runs)
        text = self.call(arguments).strip()
        try:
            found = json.loads(text.splitlines()[-1] if text else "")
            if not (isinstance(found["median_ms"], int | float) and found["median_ms"] > 0):
                raise ValueError("median_ms is no time")
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            said = last_lines(text, 3) or "(nothing)"
            what = f"no JSON object with median_ms ({type(error).__name__}: {error})"
            raise Trouble(f"{what} from: {shlex.join(['dari', *arguments])}\nit printed: {said}") from None
        return found

    def command(self, row: Row, runs: int) -> list[str]:
        shared = ["--threads", str(self.threads), "--runs", str(runs), "--json"]
        if row.task == "train":
            return ["bench", "train", str(self.recipe(row.precision)), *shared]
        texts = {"pictures": [], "texts": ["--texts"],
                 "natural": ["--texts", "--tokens", str(self.work / "tokens.json")]}[row.task]  # fmt: skip
        model = ["--model", str(self.work / "clip"), "--batch", str(row.batch), "--precision", row.precision]
        return ["bench", "embed", *model, *texts, *shared]

    def recipe(self, products: str) -> Path:
        """bench_clip.toml with the peer's own start instead of a new model."""
        recipe = tomllib.loads((HERE / "bench_clip.toml").read_text())
        recipe["model"] = {"from": str(self.work / "small")}
        recipe["output"] = str(self.work / "runs" / products)
        if products != "f32":
            recipe["train"]["products"] = products
        path = self.work / f"train-{products}.toml"
        path.write_text(toml(recipe))
        return path


def toml(table: Json) -> str:
    """A recipe as TOML: values, tables of values, and lists of tables of values."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict | list)]
    for key, value in table.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                lines.append(f"\n[[{key}]]" if isinstance(value, list) else f"\n[{key}]")
                lines += [f"{name} = {json.dumps(item)}" for name, item in inner.items()]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------

SETTLE = 0.25  # seconds after a peer's work: OpenMP's threads spin some milliseconds before they sleep
SLOW_PASS = 12_000.0  # milliseconds
QUIET = 0.25  # processors that others may keep busy
TOO_SLOW = 4.0  # a peer that takes so many times the fastest's time in the trial stays out of the pairs


@dataclass
class Load:
    """Seconds of the processors' time while something was measured."""

    wall: float = 0.0
    own: float = 0.0  # of what was measured
    all: float = 0.0  # of every process of the machine, stolen time included
    waiting: float = 0.0  # of the peers that should wait

    def add(self, other: Load) -> None:
        self.wall, self.own = self.wall + other.wall, self.own + other.own
        self.all, self.waiting = self.all + other.all, self.waiting + other.waiting

    def others(self) -> float:
        """Processors that work of others kept busy, on average."""
        return max(0.0, self.all - self.own) / self.wall if self.wall else 0.0


def busy_seconds() -> float:
    with contextlib.suppress(OSError):
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = fields[3] + fields[4]
        return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")
    return 0.0


def process_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


@contextlib.contextmanager
def watched(load: Load, own: Callable[[], float], waiting: list[int]) -> Iterator[None]:
    """Adds to `load` what the processors did meanwhile."""

    def now() -> tuple[float, float, float, float]:
        return time.perf_counter(), own(), busy_seconds(), sum(map(process_seconds, waiting))

    before = now()
    yield
    load.add(Load(*(b - a for a, b in zip(before, now(), strict=True))))


def runs_for(milliseconds: float, seconds: float) -> int:
    """Passes a measurement has: about so many seconds of them, never fewer than three."""
    return max(3, min(40, math.ceil(seconds * 1e3 / max(milliseconds, 1e-3))))


def wait_for_quiet(seconds: float) -> None:
    """Waits until others leave the processors alone, or so many seconds have passed."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        load = Load()
        with watched(load, lambda: 0.0, []):
            time.sleep(0.5)
        if load.others() < QUIET:
            return


def try_candidate(candidate: Candidate, best: float, options: Options) -> Json:
    """A candidate's quickest pass, asked again while others compute. One pass alone where it is clearly
    slower than `best`, or takes long."""
    times = []
    try:
        peer = Worker(candidate, options.work)
        try:
            for _ in range(3):
                wait_for_quiet(options.wait)
                load = Load()
                with watched(load, lambda: process_seconds(peer.process.pid), []):
                    times += peer.measure(runs=1, warm=0)["times_ms"]
                    if min(times) < min(2.5 * best, SLOW_PASS):
                        passes = max(3, min(15, math.ceil(800 / min(times))))
                        times += peer.measure(runs=passes, warm=0)["times_ms"]
                if load.others() < QUIET:
                    break
        finally:
            peer.close()
    except Trouble as error:
        return {"error": str(error)}
    return {"ms": min(times), "passes": len(times), "others": load.others()}


def choose(row: Row, prepared: Json, trials: Json, options: Options) -> dict[str, Candidate]:
    """The fastest candidate of each peer of a row. `trials` keeps what was measured, for all rows."""
    taken: dict[str, Candidate] = {}
    for candidate in candidates(row, prepared, options.threads):
        rival = taken.get(candidate.peer)
        # Whether threads should spin is asked of the best graph alone; candidates that spin come first.
        if candidate.spec.get("spin") is False and rival and rival.spec["graph"] != candidate.spec["graph"]:
            continue
        if candidate.key not in trials:
            best = trials[rival.key]["ms"] if rival else math.inf
            found = try_candidate(candidate, best, options)
            trials[candidate.key] = {"peer": candidate.peer, "label": candidate.label} | found
            value = f"{milliseconds(found['ms'])} ms" if "ms" in found else found["error"]
            say(f"  tried {candidate.peer} ({candidate.label}): {value}")
        if "ms" not in trials[candidate.key]:
            continue
        if rival is None or trials[candidate.key]["ms"] < trials[rival.key]["ms"]:
            taken[candidate.peer] = candidate
    return taken


def measure_row(row: Row, prepared: Json, trials: Json, dari: Dari | None, options: Options) -> Json:
    """All pairs of a row. What fails is told in the result, and the other rows go on."""
    result: Json = {"row": asdict(row), "pairs": [], "peers": {}, "left_out": {}}
    seconds = options.seconds
    own_runs = 3
    if dari:
        # A first run tells early whether the binary can do the row at all.
        own_runs = runs_for(dari.bench(row, 1)["median_ms"], seconds)
    taken = choose(row, prepared, trials, options)
    cosines = {graph["file"]: graph["cosine"] for graph in prepared["graphs"]}
    result["tried"] = [
        trials[c.key] | {"taken": c in taken.values(), "cosine": cosines.get(c.spec.get("graph"))}
        for c in candidates(row, prepared, options.threads) if c.key in trials
    ]  # fmt: skip
    if not taken:
        raise Trouble("no peer runs this row: " + "; ".join(str(t.get("error")) for t in result["tried"]))
    fastest = min(trials[c.key]["ms"] for c in taken.values())
    for peer, candidate in list(taken.items()):
        quickest = trials[candidate.key]["ms"]
        if quickest > TOO_SLOW * fastest and peer != row.aim_peer:
            result["left_out"][peer] = quickest
            del taken[peer]
    workers: dict[str, Worker] = {}
    try:
        for peer, candidate in taken.items():
            workers[peer] = Worker(candidate, options.work)
            quickest = trials[candidate.key]["ms"]
            # One that is here for the aim's sake alone may take a minute for three passes.
            runs = 1 if quickest > TOO_SLOW * fastest else runs_for(quickest, seconds)
            result["peers"][peer] = {"label": candidate.label, "runs": runs} | workers[peer].loaded
        loads = {"ours": Load(), "peers": Load()}
        for number in range(options.pairs):
            wait_for_quiet(options.wait)
            result["pairs"].append(one_pair(row, number, own_runs, workers, result["peers"], dari, loads))
            say(f"  pair {number + 1}/{options.pairs}: {pair_line(result['pairs'][-1])}")
    finally:
        for peer in workers.values():
            peer.close()
    result["load"] = {side: asdict(load) | {"others": load.others()} for side, load in loads.items()}
    return result


def one_pair(
    row: Row,
    number: int,
    own_runs: int,
    workers: dict[str, Worker],
    about: Json,
    dari: Dari | None,
    loads: dict[str, Load],
) -> Json:
    """Ours and every peer once, one after the other; ours goes first in every second pair."""
    pair: Json = {"peers": {}}
    pids = {name: peer.process.pid for name, peer in workers.items()}

    def ours() -> None:
        if dari:
            with watched(loads["ours"], children_seconds, list(pids.values())):
                pair["ours"] = dari.bench(row, own_runs)

    def theirs() -> None:
        names = list(workers)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            others = [pid for other, pid in pids.items() if other != name]
            with watched(loads["peers"], lambda name=name: process_seconds(pids[name]), others):
                warm = 1 if number == 0 or about[name]["runs"] > 1 else 0
                found = workers[name].measure(about[name]["runs"], warm)
            time.sleep(SETTLE)
            times = found["times_ms"]
            pair["peers"][name] = {"median_ms": statistics.median(times), "peak_mb": found["peak_mb"],
                                   "parts_ms": found["parts_ms"]}  # fmt: skip

    for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
        side()
    pair["first"] = "ours" if number % 2 == 0 else "peers"
    return pair


def pair_line(pair: Json) -> str:
    ours = f"ours {pair['ours']['median_ms']:.1f} ms; " if "ours" in pair else ""
    return ours + "; ".join(f"{name} {found['median_ms']:.1f}" for name, found in pair["peers"].items())


# ---------------------------------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------------------------------


def interval(values: list[float], coverage: float = 0.90) -> tuple[float, float, float] | None:
    """Order statistics that hold the median with at least `coverage` whatever the distribution is, and
    how surely they do; None where there are too few values for that."""
    n = len(values)
    best = None
    tail_probability = 0.0
    for k in range(1, n // 2 + 1):
        tail_probability += math.comb(n, k - 1) / 2**n
        if 1 - 2 * tail_probability < coverage:
            break
        best = (k, 1 - 2 * tail_probability)
    if best is None:
        return None
    k, sure = best
    ordered = sorted(values)
    return ordered[k - 1], ordered[n - k], sure


@dataclass(frozen=True)
class Ratio:
    """Our time over a peer's, pair by pair."""

    median: float
    low: float | None
    high: float | None
    wins: int
    pairs: int

    @staticmethod
    def of(pairs: list[Json], peer: str) -> Ratio:
        values = [pair["ours"]["median_ms"] / pair["peers"][peer]["median_ms"] for pair in pairs]
        bounds = interval(values)
        low, high = bounds[:2] if bounds else (None, None)
        return Ratio(statistics.median(values), low, high, sum(value < 1 for value in values), len(values))

    def text(self) -> str:
        return f"{self.median:.3f}"

    def bounds(self) -> str:
        return "too few pairs" if self.low is None else f"{self.low:.3f} – {self.high:.3f}"

    def verdict(self) -> str:
        if self.low is None:
            return "–"
        return "ahead" if self.high < 1 else "behind" if self.low > 1 else "even"


def peer_median(result: Json, peer: str) -> float:
    return statistics.median(pair["peers"][peer]["median_ms"] for pair in result["pairs"])


def our_median(result: Json) -> float:
    return statistics.median(pair["ours"]["median_ms"] for pair in result["pairs"])


def fastest_peer(result: Json, ending: str = "") -> str | None:
    """The peer with the least median, among those whose name ends so."""
    names = [name for name in result["peers"] if name.endswith(ending)]
    return min(names, key=lambda name: peer_median(result, name), default=None)


def aim_peer(result: Json) -> str | None:
    """Whom a row's aim speaks of: the peer it names, else the fastest of its precision; where none of
    those is worth a pair (bf16 without its instructions), the fastest of all."""
    row = result["row"]
    named = row["aim_peer"]
    if named:
        return named if named in result["peers"] else None
    return fastest_peer(result, " " + row["precision"]) or fastest_peer(result)


def centred_cosine(expected: Any, found: Any) -> tuple[float, float]:
    """Mean and least cosine of rows, the mean row of `expected` subtracted from both; rows are brought
    to unit length first."""
    import numpy

    def unit(rows: Any) -> Any:
        rows = numpy.asarray(rows, dtype=numpy.float64)
        return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)

    a, b = unit(expected), unit(found)
    mean = a.mean(axis=0)
    cosines = (unit(a - mean) * unit(b - mean)).sum(axis=1)
    return float(cosines.mean()), float(cosines.min())


# ---------------------------------------------------------------------------------------------------
# Accuracy on trained weights
# ---------------------------------------------------------------------------------------------------

PRECISIONS = ("f32", "bf16", "int8")
SCENES, SCENE_SIZE, SCENE_SEED = 300, 96, 4711


@dataclass
class Embedder:
    """A trained model: its reference, its inputs, and other ways to its embeddings. Sets are named
    after what they hold: pictures, texts."""

    name: str
    folder: Path
    sets: list[str]
    reference: dict[str, Any]
    others: dict[str, dict[str, Any]]  # way: set: embeddings
    ours: dict[str, dict[str, Any] | str]  # precision: set: embeddings, or why there are none
    agreement: str  # what the top-1 is of
    about: str


def measure_accuracy(dari: Dari | None, options: Options) -> list[Embedder]:
    import transformers

    transformers.logging.set_verbosity_error()
    work = options.work / "accuracy"
    work.mkdir(parents=True, exist_ok=True)
    models = [mini(dari, work)]
    if options.minilm:
        models.append(minilm(dari, options.minilm, work))
    return models


def mini(dari: Dari | None, work: Path) -> Embedder:
    """models/mini: labels and captions, Korean and English, against samples and new scenes."""
    import torch
    import transformers
    from PIL import Image

    folder = REPOSITORY / "models" / "mini"
    pictures, texts, about = mini_inputs(dari, work)
    model = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    # The Pillow processor: the torchvision one rounds differently.
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    opened = [Image.open(path).convert("RGB") for path in pictures]
    pixels = processor(opened, return_tensors="pt")["pixel_values"].float()
    context = model.config.text_config.max_position_embeddings
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt"
    )
    inputs = {"pictures": {"pixel_values": pixels}, "texts": {"input_ids": tokens["input_ids"]}}
    towers = {"pictures": Tower(model, "vision").module(), "texts": Tower(model, "text").module()}
    with torch.no_grad():
        reference = {name: towers[name](*inputs[name].values()).numpy() for name in towers}
        others = {}
        for way, stem in quantized_ways(towers, inputs, work, "mini").items():
            others[way] = {name: run_graph(work / f"{stem}-{name}.onnx", inputs[name]) for name in towers}
        half = {name: {key: cast_floats(value) for key, value in inputs[name].items()} for name in towers}
        for name in towers:
            towers[name].to(torch.bfloat16)
        bf16 = {name: towers[name](*half[name].values()).float().numpy() for name in towers}
    ours = embed_all(dari, folder, pictures, texts, work)
    others = {"PyTorch bf16": bf16} | others
    return Embedder("mini", folder, ["pictures", "texts"], reference, others, ours, "text → picture", about)


def mini_inputs(dari: Dari | None, work: Path) -> tuple[list[Path], list[str], str]:
    """The repository's samples, and scenes that the example `draw_scenes` draws, where it is built."""
    pictures = sorted((REPOSITORY / "samples").glob("*.png"))
    texts = [path.stem.replace("-", " ") for path in pictures]
    scenes = work / "scenes"
    example = dari.binary.parent / "examples" / "draw_scenes" if dari else Path("-")
    if not scenes.is_dir() and example.is_file():
        arguments = [str(scenes), str(SCENES), str(SCENE_SIZE), str(SCENE_SEED)]
        subprocess.run([str(example), *arguments], check=True, capture_output=True)
    drawn = sorted(scenes.rglob("*.png"))
    pictures += drawn
    for picture in drawn:
        texts += [path.read_text().strip() for path in sorted(picture.parent.glob(f"{picture.stem}.*.txt"))]
    texts = list(dict.fromkeys(text for text in texts if text))
    about = f"{len(pictures)} pictures ({len(drawn)} of them scenes), {len(texts)} texts"
    if not drawn:
        about += "; no scenes: `cargo build --release --example draw_scenes` was not run"
    return pictures, texts, about


def minilm(dari: Dari | None, folder: Path, work: Path) -> Embedder:
    """all-MiniLM-L6-v2: each sentence's nearest among the others."""
    import numpy
    import torch
    import transformers

    texts = sentences(400)
    model = transformers.BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = model

        def forward(self, input_ids, attention_mask):  # noqa: ANN001, ANN202
            return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    mask = tokens["attention_mask"].numpy()[..., None].astype(numpy.float64)

    def pooled(states: Any) -> dict[str, Any]:
        return {"texts": (states * mask).sum(1) / mask.sum(1)}

    inputs = {"texts": {name: tokens[name] for name in ("input_ids", "attention_mask")}}
    module = States().eval()
    with torch.no_grad():
        reference = pooled(module(**inputs["texts"]).numpy())
        others = {}
        for way, stem in quantized_ways({"texts": module}, inputs, work, "minilm").items():
            others[way] = pooled(run_graph(work / f"{stem}-texts.onnx", inputs["texts"]))
        bf16 = pooled(module.to(torch.bfloat16)(**inputs["texts"]).float().numpy())
    ours = embed_all(dari, folder, [], texts, work)
    others = {"PyTorch bf16": bf16} | others
    name = "all-MiniLM-L6-v2"
    return Embedder(name, folder, ["texts"], reference, others, ours, "nearest text", f"{len(texts)} sentences")


def sentences(count: int) -> list[str]:
    """Distinct sentences from templates, many of them near to another."""
    draw = random.Random(SEED)
    words = {
        "who": ["a cat", "two dogs", "the old teacher", "my neighbour", "a young engineer", "the pilot",
                "our guide", "a tired nurse", "the children", "an unknown painter"],
        "does": ["is waiting", "sleeps", "is reading a letter", "sings quietly", "repairs a bicycle", "drinks tea",
                 "is looking for the keys", "talks about the weather", "writes a long report", "counts the boats"],
        "where": ["in the kitchen", "near the harbour", "on a crowded train", "at the edge of the forest",
                  "under an old bridge", "in a small library", "behind the hospital", "on the roof"],
        "thing": ["interest rates", "the price of bread", "solar panels", "the history of maps",
                  "a new vaccine", "computer memory", "the football match", "violin music",
                  "volcanoes", "the city budget"],
        "how": ["every morning", "in the rain", "without a word", "for the first time", "after a long day"],
    }  # fmt: skip
    templates = [
        "{who} {does} {where}.", "{who} {does} {where} {how}.", "{how}, {who} {does}.",
        "An article about {thing}.", "What does {who} think about {thing}?",
        "{who} asked a question about {thing} {how}.",
        "{thing} and {thing2}: what they have in common.", "The report on {thing} was read {where}.",
    ]  # fmt: skip
    found: dict[str, None] = {}
    while len(found) < count:
        values = {name: draw.choice(options) for name, options in words.items()}
        text = draw.choice(templates).format(**values, thing2=draw.choice(words["thing"]))
        found[text[0].upper() + text[1:]] = None
    return list(found)


def cast_floats(tensor: Any) -> Any:
    import torch

    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


def quantized_ways(modules: Json, inputs: Json, work: Path, name: str) -> dict[str, str]:
    """Exports and quantizes modules by every way of INT8_WAYS; gives each way's file stem."""
    for part, module in modules.items():
        export(module, inputs[part], "legacy", work / f"{name}-f32-{part}.onnx")
    ways = {}
    for kind, columns, seven in INT8_WAYS:
        way = joined(kind, "per channel" if columns else "", "reduced range" if seven else "")
        stem = f"{name}-{way.replace(', ', '-').replace(' ', '-')}"
        for part in modules:
            quantize(work / f"{name}-f32-{part}.onnx", work / f"{stem}-{part}.onnx", kind, columns, seven)
        ways[f"ONNX Runtime int8, {way}"] = stem
    return ways


def run_graph(file: Path, inputs: Json) -> Any:
    session = ort_session(str(file), os.cpu_count() or 1, spin=False)
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]


def embed_all(
    dari: Dari | None, folder: Path, pictures: list[Path], texts: list[str], work: Path
) -> dict[str, dict[str, Any] | str]:
    """Our embeddings at each precision, or why there are none."""
    import numpy

    found: dict[str, dict[str, Any] | str] = {}
    listed, output = work / "texts.txt", work / "ours.npy"
    listed.write_text("\n".join(texts) + "\n")
    for precision in PRECISIONS if dari else ():
        arguments = ["embed", "--model", str(folder), "--precision", precision, "--output", str(output)]
        arguments += ["--threads", str(dari.threads), "--texts-file", str(listed)]
        if pictures:
            arguments += ["--images", *map(str, pictures)]
        try:
            dari.call(arguments)
        except Trouble as error:
            found[precision] = one_line(str(error).splitlines()[-1])
            continue
        rows = numpy.load(output)
        if len(rows) != len(pictures) + len(texts) or not numpy.isfinite(rows).all():
            found[precision] = f"{rows.shape} embeddings, or some that are no numbers"
            continue
        found[precision] = {"texts": rows[len(pictures) :]}
        if pictures:
            found[precision]["pictures"] = rows[: len(pictures)]
    return found


def top_1(sets: dict[str, Any]) -> Any:
    """Each text's nearest picture; without pictures its nearest other text."""
    import numpy

    unit = {name: rows / numpy.linalg.norm(rows, axis=1, keepdims=True) for name, rows in sets.items()}
    if "pictures" in unit:
        return (unit["texts"] @ unit["pictures"].T).argmax(axis=1)
    cosines = unit["texts"] @ unit["texts"].T
    numpy.fill_diagonal(cosines, -numpy.inf)
    return cosines.argmax(axis=1)


def accuracy_rows(model: Embedder) -> list[list[str]]:
    """Our precisions first, then the peers' own losses."""
    rows = []
    ways: dict[str, dict[str, Any] | str] = {f"Dari {name}": found for name, found in model.ours.items()}
    right = top_1(model.reference)
    for way, found in (ways | model.others).items():
        if isinstance(found, str):
            rows.append([way, *["–"] * (2 * len(model.sets)), found])
            continue
        cells = []
        for name in model.sets:
            mean, least = centred_cosine(model.reference[name], found[name])
            cells += [f"{mean:.5f}", f"{least:.5f}"]
        rows.append([way, *cells, f"{100 * (top_1(found) == right).mean():.2f} %"])
    return rows


def accuracy_text(models: list[Embedder], dari: Dari | None, command: str) -> str:
    lines = [
        ACCURACY,
        "",
        f"`{command}`, {date.today().isoformat()}; {versions_line(dari)}.",
        "",
        "Trained weights; the reference is transformers at f32. Cosine: of each embedding with the reference's,",
        "after both have unit length and the reference's mean embedding is subtracted. Top-1: how often the",
        "nearest is the reference's nearest. Aims: bf16 at least 0.999 and 99.5 %, int8 at least 0.99 and 98 %.",
        "ONNX Runtime's int8 is its dynamic quantization of the same weights; reduced range: seven bits a weight.",
    ]
    for model in models:
        head = ["way"]
        for name in model.sets:
            head += [f"{name}: mean cosine", "least"]
        lines += ["", f"### {model.name}", "", f"{model.about}.", ""]
        lines += markdown([*head, f"top-1, {model.agreement}"], accuracy_rows(model))
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------
# The report
# ---------------------------------------------------------------------------------------------------

HEADING = "# Dari beside PyTorch and ONNX Runtime on a CPU"
ACCURACY = "## Accuracy"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table; all columns but the first to the right where they hold numbers."""
    sides = []
    for number in range(len(head)):
        cells = [row[number] for row in rows]
        numeric = number > 0 and all(re.match(r"^[\d.–-]", cell) or not cell for cell in cells)
        sides.append("---:" if numeric else "---")
    return ["| " + " | ".join(cells) + " |" for cells in [head, sides, *rows]]


def milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def report(results: list[Json], failures: list[Json], dari: Dari | None, options: Options, command: str) -> str:
    lines = [HEADING, ""]
    lines += [f"`{command}`, {date.today().isoformat()}. Written by bench/peers/compare.py; what it does in which",
              "order is told in bench/peers/README.md.", ""]  # fmt: skip
    lines += ["## Machine and versions", ""] + machine_lines(dari, options) + [""]
    if dari:
        lines += ["## Ratios", "", *summary(results)]
    lines += ["", "## Every peer", "", *every_peer(results, bool(dari))]
    lines += ["", "## Peak memory", "", *memory(results, bool(dari))]
    training = parts(results, bool(dari))
    if training:
        lines += ["", "## Parts of the training step", "", *training]
    if failures:
        lines += ["", "## Rows that failed", ""]
        lines += [f"- {failure['row']}: {one_line(failure['error'])}" for failure in failures]
    lines += ["", "## What was tried to make the peers fast", "", *tried(results)]
    lines += ["", "## How quiet the machine was", "", *quiet(results, bool(dari))]
    return "\n".join(lines) + "\n"


def summary(results: list[Json]) -> list[str]:
    rows = []
    for result in results:
        row, pairs = result["row"], result["pairs"]
        best = fastest_peer(result)
        ratio = Ratio.of(pairs, best)
        against = aim_peer(result)
        theirs = f"{milliseconds(peer_median(result, best))} {best}"
        cells = [row["title"], milliseconds(our_median(result)), theirs,
                 ratio.text(), ratio.bounds(), f"{ratio.wins} of {ratio.pairs}", ratio.verdict()]  # fmt: skip
        if row["aim"] is None:
            cells += ["–", "–", "–"]
        elif against is None:
            cells += [f"{row['aim']:.2f} of {row['aim_peer']}", "–", "its peer did not run"]
        else:
            aimed = Ratio.of(pairs, against)
            met = "met" if aimed.median <= row["aim"] else "missed"
            cells += [f"{row['aim']:.2f} of {against}", f"{aimed.text()}", met]
        rows.append(cells)
    head = [
        "work",
        "Dari, ms",
        "fastest peer, ms",
        "ratio",
        "90% interval",
        "wins",
        "verdict",
        "aim",
        "ratio to its peer",
        "aim is",
    ]
    sure = interval([0.0] * len(results[0]["pairs"])) if results else None
    note = "There are too few pairs for an interval."
    if sure:
        note = (
            "The interval is of order statistics of the pairs' ratios: it holds the median with at least 90 % "
            f"({100 * sure[2]:.1f} % for {len(results[0]['pairs'])} pairs) whatever their distribution."
        )
    return [
        *markdown(head, rows), "",
        "Ratio: our time over the peer's, median over the pairs; below 1 we are faster. Ahead or behind: the",
        f"whole interval lies on one side of 1. {note}",
    ]  # fmt: skip


def every_peer(results: list[Json], ours: bool) -> list[str]:
    rows = []
    for result in results:
        title = result["row"]["title"]
        if ours:
            values = [pair["ours"]["median_ms"] for pair in result["pairs"]]
            rows.append([title, "Dari", "", milliseconds(our_median(result)), spread(values), "", "", ""])
        for peer, about in sorted(result["peers"].items(), key=lambda item: peer_median(result, item[0])):
            values = [pair["peers"][peer]["median_ms"] for pair in result["pairs"]]
            how = f"{about['label']}; {about['runs']} pass{'es' if about['runs'] > 1 else ''}"
            cells = [title, peer, how, milliseconds(peer_median(result, peer)), spread(values)]
            if ours:
                ratio = Ratio.of(result["pairs"], peer)
                cells += [ratio.text(), ratio.bounds(), f"{ratio.wins} of {ratio.pairs}"]
            else:
                cells += ["", "", ""]
            rows.append(cells)
        for peer, value in result["left_out"].items():
            note = f"left out of the pairs: {milliseconds(value)} ms in the trial"
            rows.append([title, peer, note, "", "", "", "", ""])
    return markdown(["work", "who", "how", "median, ms", "least – most", "ratio", "90% interval", "wins"], rows)


def spread(values: list[float]) -> str:
    return f"{milliseconds(min(values))} – {milliseconds(max(values))}"


def memory(results: list[Json], ours: bool) -> list[str]:
    rows = []
    for result in results:
        last = result["pairs"][-1]["peers"]
        own = [pair["ours"]["peak_memory_mb"] for pair in result["pairs"]
               if ours and isinstance(pair["ours"].get("peak_memory_mb"), int | float)]  # fmt: skip
        mine = statistics.median(own) if own else None
        for number, (peer, about) in enumerate(result["peers"].items()):
            peak = last[peer]["peak_mb"]
            ratio = f"{mine / peak:.2f}" if mine else "–"
            dari_cell = (f"{mine:.0f}" if mine else "–") if number == 0 else ""
            title = result["row"]["title"] if number == 0 else ""
            rows.append([title, dari_cell, peer, f"{peak:.0f}", f"{about['imported_mb']:.0f}", ratio])
    head = ["work", "Dari, MB", "peer", "peak, MB", "of it after its imports", "ratio of peaks"]
    return [
        *markdown(head, rows), "",
        "Largest resident size (MB of 10^6 bytes) of a process that loads the model from its file, runs the row",
        "and nothing else. The peers load the one tower that the row needs.",
    ]  # fmt: skip


def parts(results: list[Json], ours: bool) -> list[str]:
    names = ("forward_ms", "backward_ms", "optimizer_ms")
    rows = []
    for result in results:
        if result["row"]["task"] != "train":
            continue
        sides = {"Dari": [pair["ours"] for pair in result["pairs"]]} if ours else {}
        sides |= {peer: [pair["peers"][peer]["parts_ms"] for pair in result["pairs"]] for peer in result["peers"]}
        for side, found in sides.items():
            cells = [result["row"]["title"], side]
            for name in names:
                values = [each[name] for each in found if isinstance(each.get(name), int | float)]
                cells.append(milliseconds(statistics.median(values)) if values else "–")
            rows.append(cells)
    return markdown(["work", "who", "forward, ms", "backward, ms", "optimizer, ms"], rows) if rows else []


def tried(results: list[Json]) -> list[str]:
    rows = []
    seen = set()
    for result in results:
        for trial in result["tried"]:
            mark = (trial["peer"], trial["label"], trial.get("ms"))
            if mark in seen:
                continue
            seen.add(mark)
            value = milliseconds(trial["ms"]) if "ms" in trial else "failed: " + one_line(trial["error"])
            cosine = "" if trial["cosine"] is None else f"{trial['cosine']:.4f}"
            # Shown where it may have spoilt the choice.
            others = f"{trial['others']:.1f}" if trial.get("others", 0) >= QUIET else ""
            taken = "taken" if trial["taken"] else ""
            rows.append([result["row"]["title"], trial["peer"], trial["label"], value, others, cosine, taken])
    return [
        *markdown(["work", "peer", "way", "quickest pass, ms", "busy for others", "cosine", ""], rows), "",
        "Before a row's pairs every way runs alone; the one with the quickest pass goes into the pairs. One pass",
        "alone where a way was clearly slower. Cosine: of the graph's embeddings with PyTorch's f32, the mean",
        "subtracted, on random weights.",
    ]  # fmt: skip


def quiet(results: list[Json], ours: bool) -> list[str]:
    rows = []
    for result in results:
        load = result["load"]
        cells = [result["row"]["title"]]
        for side in ("ours", "peers") if ours else ("peers",):
            cells += [
                f"{load[side]['others']:.2f}",
                f"{1e3 * load[side]['waiting']:.0f} of {1e3 * load[side]['wall']:.0f}",
            ]
        rows.append(cells)
    head = ["work"]
    for side in ("ours ran", "a peer ran") if ours else ("a peer ran",):
        head += [f"processors busy for others while {side}", "ms that waiting peers computed meanwhile"]
    return markdown(head, rows)


def one_line(text: str) -> str:
    return " ".join(text.split())[:400].replace("|", "/")


def tail(log: Path, lines: int = 12) -> str:
    return last_lines(log.read_text(errors="replace"), lines)


def last_lines(text: str, count: int) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


# ---------------------------------------------------------------------------------------------------
# Machine and versions
# ---------------------------------------------------------------------------------------------------

FLAGS = ("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8",
         "asimddp", "i8mm", "bf16", "sve")  # fmt: skip


def versions() -> dict[str, str]:
    """Of the Python side; read without importing anything large."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "onnxruntime", "onnx", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise Trouble(f"{name} is not installed: pip install -r bench/peers/requirements.txt") from None
    return found


def versions_line(dari: Dari | None) -> str:
    own = f"{dari.version()}{commit()}, " if dari else ""
    return own + ", ".join(f"{name} {version}" for name, version in versions().items())


def commit() -> str:
    """Which commit the checkout is at, where git tells."""
    try:

        def git(*arguments: str) -> str:
            done = subprocess.run(
                ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=True
            )
            return done.stdout.strip()

        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return f" ({git('rev-parse', '--short', 'HEAD')}{changed})"
    except (OSError, subprocess.CalledProcessError):
        return ""


def processor_value(name: str) -> str:
    """What Linux says of the processor under that name; nothing elsewhere."""
    text = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def processor_name() -> str:
    """The processor's name, and what tells it from others of that name."""
    name = processor_value("model name") or platform.processor() or platform.machine()
    family = processor_value("cpu family")
    return name + (f" (family {family}, model {processor_value('model')})" if family else "")


def processor_line() -> str:
    """What a report says of the processor."""
    flags = set((processor_value("flags") or processor_value("Features")).split())
    has = [flag for flag in FLAGS if flag in flags]
    lacks = [flag for flag in ("avx512f", "avx512_bf16", "avx512_vnni") if flag not in flags]
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"- CPU: {processor_name()}, {processors} processors usable, {memory_gb:.0f} GB; "
        + (", ".join(has) or "flags unknown")
        + (f"; not {', '.join(lacks)}" if flags and lacks else "")
    )


def machine_lines(dari: Dari | None, options: Options) -> list[str]:
    return [
        processor_line(),
        f"- {platform.system()} {platform.release()}, {platform.machine()}",
        f"- {versions_line(dari)}",
        f"- {options.threads} threads on both sides; {options.pairs} pairs a row, each side's value the median of "
        "its passes",
    ]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    dari: Path
    threads: int
    pairs: int
    rows: list[Row]
    out: Path
    work: Path
    seconds: float
    wait: float
    without_dari: bool
    accuracy: str
    minilm: Path | None


def read_options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="rows: " + ", ".join(r.name for r in all_rows())
    )
    parser.add_argument("--dari", type=Path, default=REPOSITORY / "target/release/dari", help="the binary")
    parser.add_argument("--threads", type=int, default=2, help="of both sides (default 2)")
    parser.add_argument("--pairs", type=int, default=15, help="interleaved pairs a row (default 15)")
    parser.add_argument("--only", default="*", metavar="ROW,ROW", help="these rows; * stands for anything")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "benchmarks/RESULTS.md", help="where the report goes"
    )
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dari-peers",
                        help="folder of the models, some 7 GB, kept for the next time")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=1.5, help="of passes in each measurement (default 1.5)")
    parser.add_argument("--wait", type=float, default=10, metavar="SECONDS",
                        help="for a quiet machine before each trial and pair, at most (default 10)")  # fmt: skip
    parser.add_argument("--without-dari", action="store_true", help="the peers alone")
    parser.add_argument("--accuracy", nargs="?", const="also", default="no", choices=["also", "only", "no"],
                        help="each precision's loss on trained weights, after the rows or alone")  # fmt: skip
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2, for --accuracy")
    found = parser.parse_args(arguments)
    patterns = found.only.split(",")
    rows = [row for row in all_rows() if any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns)]
    unknown = [p for p in patterns if not any(fnmatch.fnmatchcase(row.name, p) for row in all_rows())]
    if unknown:
        parser.error(
            f"--only {','.join(unknown)}: no such row; there are {', '.join(row.name for row in all_rows())}"
        )
    if found.threads < 1 or found.pairs < 1:
        parser.error("--threads and --pairs are at least 1")
    if found.minilm and not (found.minilm / "model.safetensors").is_file():
        parser.error(
            f"--minilm {found.minilm}: no model.safetensors in it; scripts/fetch_weights.py minilm fetches one"
        )
    return Options(
        dari=found.dari,
        threads=found.threads,
        pairs=found.pairs,
        rows=[] if found.accuracy == "only" else rows,
        out=found.out,
        work=found.work.resolve(),
        seconds=found.seconds,
        wait=found.wait,
        without_dari=found.without_dari,
        accuracy=found.accuracy,
        minilm=found.minilm.resolve() if found.minilm else None,
    )


def write_report(out: Path, speed: str | None, accuracy: str | None) -> None:
    """Writes the given parts; the accuracy part that a file has stays until there is a new one, and so does what has
    another heading of the first level."""
    old = parts_of(out).get(HEADING, "")
    cut = old.find(ACCURACY + "\n")
    old_speed, old_accuracy = (old, "") if cut < 0 else (old[:cut].rstrip() + "\n", old[cut:])
    both = [part for part in (speed or old_speed, accuracy or old_accuracy) if part]
    put_part(out, "\n".join(both))


def compare(options: Options, command: str) -> int:
    """The whole comparison; 1 when some row failed."""
    dari = None if options.without_dari else Dari(options.dari, options.threads, options.work)
    results: list[Json] = []
    failures: list[Json] = []
    if options.rows:
        prepared = prepare(options.work)
        trials: Json = {}
        for row in options.rows:
            say(f"{row.name}: {row.title}")
            try:
                result = measure_row(row, prepared, trials, dari, options)
            except Trouble as error:
                say(f"  failed: {error}")
                failures.append({"row": row.name, "error": str(error)})
            else:
                results.append(result)
            # After each row: a run that is broken off leaves what it measured.
            raw = {"command": command, "results": results, "failures": failures}
            (options.work / "results.json").write_text(json.dumps(raw, indent=1))
            write_report(options.out, report(results, failures, dari, options, command), None)
    if options.accuracy != "no":
        say("accuracy on trained weights")
        models = measure_accuracy(dari, options)
        write_report(options.out, None, accuracy_text(models, dari, command))
    say(f"written: {options.out}")
    return 1 if failures else 0


def shown_command(script: str, arguments: list[str]) -> str:
    """The command as another would type it: paths inside the checkout relative to it, no folder for its work."""
    shown = []
    words = iter(arguments)
    for word in words:
        if word == "--work":
            next(words, None)
        elif not word.startswith("--work="):
            shown.append(word.replace(f"{REPOSITORY}/", ""))
    return shlex.join(["python", f"bench/peers/{script}", *shown])


def main() -> int:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--worker"]:
        worker(json.loads(arguments[1]))
        return 0
    try:
        if arguments[:1] == ["--prepare"]:
            prepare_here(Path(arguments[1]))
            return 0
        return compare(read_options(arguments), shown_command("compare.py", arguments))
    except Trouble as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("broken off")
        return 130


if __name__ == "__main__":
    sys.exit(main())
