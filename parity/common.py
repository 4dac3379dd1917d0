"""What every case shares: the texts, the pictures, seeded weights, and how a case is written down."""

import json
import os
import unicodedata
import zlib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

ROOT = Path(__file__).resolve().parent.parent / "fixtures" / "parity"
PICTURES_FOLDER = ROOT / "pictures"

PICTURE_SIZES = {  # name: (width, height)
    "landscape.png": (40, 30),
    "portrait.png": (31, 57),
    "square.png": (64, 64),
    "sliver.png": (1, 20),
}
PICTURES = list(PICTURE_SIZES)
MORE_PICTURE_SIZES = {"wide.png": (90, 14), "tall.png": (18, 75), "tiny.png": (3, 2)}  # not for every case

# How every transformers checkpoint is read back for its reference.
EAGER = {"dtype": torch.float32, "attn_implementation": "eager"}
HIDDEN_TEXTS = 2  # text hidden states are kept for the first texts only, for size

TEXTS = [
    "a photo of a cat",
    "A red circle left of a BLUE square.",
    "고양이 두 마리가 파란 의자에서 잔다",
    unicodedata.normalize("NFD", "한국어 café 문장"),
    "",
    "  \t two \n\n words \u3000 ",
    "don't they've 3 cats, 42 dogs & 1,000 birds?! it's_a_[test]",
    "naïve ﬁnd ① Ⅳ １２３ ½ ＡＢＣ Straße ΟΔΟΣ",
    "👩‍👩‍👧‍👦 🇰🇷 👍🏽 ❤️ ok",
    "\u202eabc\u202c zero\u200bwidth\u00ad \ufeffe\u0301\u0327 İstanbul ǅ",
    "<|endoftext|> [MASK] </s> <eos> are literal here",
    "nul\u0000 bell\u0007 \ufffd \U0010ffff 𠀀 \u2028line",
    "the quick brown fox jumps over the lazy dog " * 12,
]


def draw_pictures() -> None:
    """Writes the shared pictures: waves with a different phase in each channel, and one hard edge."""
    PICTURES_FOLDER.mkdir(parents=True, exist_ok=True)
    for number, (name, (width, height)) in enumerate({**PICTURE_SIZES, **MORE_PICTURE_SIZES}.items()):
        y, x = np.mgrid[0:height, 0:width].astype(np.int64)
        red = (x * x + 3 * y * (number + 1)) % 256
        green = (7 * x + 5 * y + 40 * number) % 256
        blue = np.where(x * 2 > y + number * 10, 230 - 2 * (y % 100), 20 + (x * y) % 97)
        pixels = np.stack([red, green, blue], axis=-1).astype(np.uint8)
        Image.fromarray(pixels, "RGB").save(PICTURES_FOLDER / name, optimize=True)


def load_pictures(names=PICTURES) -> list:
    if not all((PICTURES_FOLDER / name).exists() for name in names):
        draw_pictures()
    return [Image.open(PICTURES_FOLDER / name).convert("RGB") for name in names]


def noise(key: str, shape) -> torch.Tensor:
    """Normal noise that depends on `key` alone, so that adding a tensor changes no other."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.randn(tuple(shape), generator=generator)


@torch.no_grad()
def randomise(model: torch.nn.Module, case: str, **scalars: float) -> torch.nn.Module:
    """Fills every parameter with seeded noise whose scale keeps outputs of different inputs far apart.

    Norm weights lie around 1, biases are not zero, a batch norm's running mean is not zero and its running
    variance not 1; `scalars` sets logit_scale, logit_bias and such by name.
    """
    for module_name, module in model.named_modules():
        is_batch_norm = isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        is_norm = isinstance(module, torch.nn.LayerNorm) or is_batch_norm or type(module).__name__.endswith("RMSNorm")
        if is_batch_norm:
            module.running_mean.copy_(0.2 * noise(f"{case}/{module_name}.running_mean", module.running_mean.shape))
            spread = noise(f"{case}/{module_name}.running_var", module.running_var.shape)
            module.running_var.copy_((0.4 * spread).exp())
        for name, parameter in module.named_parameters(recurse=False):
            values = noise(f"{case}/{module_name}.{name}", parameter.shape)
            if name in scalars:
                values = torch.full_like(values, scalars[name])
            elif is_norm and name == "weight":
                values = 1 + 0.25 * values
            elif name.endswith("bias"):
                values = 0.15 * values
            elif isinstance(module, torch.nn.Embedding) or "embed" in name or name in ("cls_token", "probe"):
                values = 0.6 * values
            else:
                fan_in = max(1, parameter.numel() // parameter.shape[0])
                values = 1.3 / fan_in**0.5 * values
            parameter.copy_(values)
    return model.eval()


def normalise(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def save_tensors(path: Path, tensors: dict) -> None:
    """Writes tensors under sorted names; floats as f32, whole numbers as i64."""
    kept = {}
    for name in sorted(tensors):
        tensor = torch.as_tensor(tensors[name]).detach()
        kept[name] = tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64).contiguous().clone()
    save_file(kept, path, metadata={"format": "pt"})


def finish_case(folder: Path) -> int:
    """Makes the case's files readable to all (safetensors writes them for the owner alone); their size in bytes."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        file.chmod(0o644)
    return sum(file.stat().st_size for file in files)


def save_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def case_folder(case: str) -> Path:
    """The case's folder, emptied."""
    folder = ROOT / case
    if folder.exists():
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_spread(case: str, **outputs: torch.Tensor) -> None:
    """Refuses a degenerate case: rows of an output must differ clearly from one another."""
    for name, rows in outputs.items():
        if not torch.isfinite(rows).all():
            raise SystemExit(f"{case}: {name} is not finite")
        cosine = normalise(rows) @ normalise(rows).T
        # Texts may be equal once tokenised (the empty and the blank one), so the median is what counts.
        upper = cosine[torch.triu(torch.ones_like(cosine), 1) > 0]
        print(f"  {case}: {name} {tuple(rows.shape)}, median cosine {upper.median():.3f}, largest {upper.max():.3f}")
        if upper.median() > 0.97:
            raise SystemExit(f"{case}: {name} hardly differs between inputs")
