"""Loads a model folder with transformers and prints normalised embeddings, to compare with Dari's own.

    python parity/check_layout.py DIR --pictures a.png b.png --texts "a cat" "a dog"
    python parity/check_layout.py DIR --inputs inputs.json --pictures-folder pictures --output embeddings.npz

Prints one JSON object: model_type, image_embeddings, text_embeddings, and logits_per_image where both were given;
with --output the same arrays go to an .npz file. Nothing is fetched from the network. A folder that transformers
cannot read in full (a tensor missing, left over, or of another shape) is an error: exit status 1.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from PIL import Image, ImageOps

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_model(folder: Path):
    """The folder's model at f32, refused unless its tensors and the model's are the same."""
    config = transformers.AutoConfig.from_pretrained(folder)
    classes = {"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}
    if config.model_type not in classes:
        raise SystemExit(f"{folder}: model_type is {config.model_type}, expected one of {', '.join(classes)}")
    model, report = classes[config.model_type].from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    faults = {name: sorted(map(str, values)) for name, values in report.items() if values}
    if faults:
        raise SystemExit(f"{folder}: transformers reads the weights in part only: {json.dumps(faults)}")
    return model.eval()


def load_image_processor(folder: Path):
    """The Pillow processor that the folder names: the torchvision ones round differently."""
    try:
        return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    except (OSError, ValueError) as error:
        raise SystemExit(f"{folder}: no image processor could be loaded: {error}")


@torch.no_grad()
def image_embeddings(model, folder: Path, paths: list[Path]) -> torch.Tensor:
    pictures = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]
    pixels = load_image_processor(folder)(pictures, return_tensors="pt")["pixel_values"].float()
    return model.get_image_features(pixel_values=pixels).pooler_output


@torch.no_grad()
def text_embeddings(model, folder: Path, texts: list[str]) -> torch.Tensor:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    siglip = model.config.model_type == "siglip"
    context = model.config.text_config.max_position_embeddings
    # SigLIP was trained on texts padded to the whole context, and without an attention mask.
    tokens = tokenizer(
        texts, padding="max_length" if siglip else True, truncation=True, max_length=context, return_tensors="pt"
    )
    kept = {"input_ids"} if siglip else {"input_ids", "attention_mask"}
    return model.get_text_features(**{name: tokens[name] for name in kept}).pooler_output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--pictures", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--texts", nargs="+", default=[], metavar="TEXT")
    parser.add_argument("--inputs", type=Path, help="a JSON file with `pictures` (names) and `texts`")
    parser.add_argument("--pictures-folder", type=Path, help="where the names of --inputs lie; default: beside it")
    parser.add_argument("--output", type=Path, help="write an .npz file instead of JSON on standard output")
    options = parser.parse_args()
    pictures, texts = list(options.pictures), list(options.texts)
    if options.inputs:
        inputs = json.loads(options.inputs.read_text(encoding="utf-8"))
        pictures += [(options.pictures_folder or options.inputs.parent) / name for name in inputs.get("pictures", [])]
        texts += inputs.get("texts", [])
    if not pictures and not texts:
        parser.error("give --pictures, --texts or --inputs")

    model = load_model(options.folder)
    found = {}
    if pictures:
        found["image_embeddings"] = image_embeddings(model, options.folder, pictures)
    if texts:
        found["text_embeddings"] = text_embeddings(model, options.folder, texts)
    found = {name: rows / rows.norm(dim=-1, keepdim=True) for name, rows in found.items()}
    if pictures and texts:
        logits = found["image_embeddings"] @ found["text_embeddings"].T * model.logit_scale.detach().exp()
        found["logits_per_image"] = logits + getattr(model, "logit_bias", torch.zeros(1)).detach()
    arrays = {name: rows.numpy() for name, rows in found.items()}
    if options.output:
        np.savez(options.output, **arrays)
    else:
        json.dump(
            {"model_type": model.config.model_type} | {name: rows.tolist() for name, rows in arrays.items()}, sys.stdout
        )
        print()


if __name__ == "__main__":
    main()
