"""open_clip's own names and files: CLIP with the text tower at the root, and CustomTextCLIP under `text.`."""

import gzip
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from common import (
    PICTURES, TEXTS, case_folder, check_spread, load_pictures, randomise, save_json, save_tensors,
)
from vocabularies import clip_merges, clip_vocabulary


def simple_tokenizer(context: int):
    """open_clip's SimpleTokenizer over the tiny vocabulary."""
    from open_clip.tokenizer import SimpleTokenizer

    lines = ["#version: tiny", *(" ".join(pair) for pair in clip_merges())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bpe.txt.gz"
        path.write_bytes(gzip.compress("\n".join(lines).encode("utf-8")))
        tokenizer = SimpleTokenizer(bpe_path=str(path), context_length=context)
    assert list(tokenizer.encoder.values()) == list(clip_vocabulary(clip_merges()).values())
    return tokenizer


def open_clip_case(case: str, model, config: dict, preprocess: dict, dtype, side_files: bool, more=None) -> None:
    """Saves `model` as open_clip pushes it, reads it back, and writes what it computes.

    `more(model, pixels)` gives further expected tensors by name.
    """
    import open_clip
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.push_to_hf_hub import save_for_hf
    from open_clip.transform import PreprocessCfg
    from transformers import CLIPTokenizer

    context = config["text_cfg"]["context_length"]
    merges = clip_merges()
    vocabulary = clip_vocabulary(merges)
    fast = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=context)

    folder = case_folder(case)
    side = config["vision_cfg"]["image_size"]
    set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=side, **preprocess)))
    save_for_hf(model.to(dtype), fast, config, folder, safe_serialization=True)
    if side_files:
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", precision="fp32")
    model = model.float().eval()
    pixels = torch.stack([transform(picture) for picture in load_pictures()])
    ids = simple_tokenizer(context)(TEXTS)
    fast_ids = fast(TEXTS, padding="max_length", truncation=True, max_length=context, return_tensors="pt")
    # SimpleTokenizer pads with 0; the ids agree where the real tokens do.
    agreed = torch.where(fast_ids["attention_mask"] == 1, fast_ids["input_ids"], 0)
    differing = [number for number in range(len(TEXTS)) if not torch.equal(agreed[number], ids[number])]
    print(f"  {case}: texts where tokenizer.json and SimpleTokenizer differ: {[TEXTS[n] for n in differing]}")

    with torch.no_grad():
        image = model.encode_image(pixels)
        text = model.encode_text(ids)
        image_embeddings, text_embeddings = (torch.nn.functional.normalize(rows, dim=-1) for rows in (image, text))
        logits, _ = model.get_logits(pixels, ids)
        further = more(model, pixels) if more else {}
    check_spread(case, image_embeddings=image_embeddings, text_embeddings=text_embeddings)
    save_tensors(folder / "expected.safetensors", {
        "pixel_values": pixels, "input_ids": ids, "input_ids_tokenizer_json": fast_ids["input_ids"],
        "attention_mask_tokenizer_json": fast_ids["attention_mask"], "image_features": image, "text_features": text,
        "image_embeddings": image_embeddings, "text_embeddings": text_embeddings, "logits_per_image": logits,
    } | further)
    save_json(folder / "inputs.json", {
        "pictures": PICTURES, "texts": TEXTS, "texts_where_tokenizer_json_differs": differing,
    })


def open_clip_vit():
    """`open_clip.CLIP` with quick_gelu; its centre crop rounds unlike transformers' when the rest is odd."""
    from open_clip.model import CLIP

    config = {
        "embed_dim": 12,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 18, "layers": 2, "width": 16, "head_width": 8, "mlp_ratio": 2.0, "patch_size": 6},
        "text_cfg": {
            "context_length": 20, "vocab_size": len(clip_vocabulary(clip_merges())), "width": 16, "heads": 2,
            "layers": 2, "mlp_ratio": 2.0,
        },
    }
    model = randomise(CLIP(**config), "open-clip", logit_scale=3.0)
    open_clip_case("open-clip", model, config, {}, torch.float16, side_files=True)


def open_clip_custom():
    """`open_clip.CustomTextCLIP` with exact gelu, a logit bias, and SigLIP's squashed pictures."""
    from open_clip.model import CustomTextCLIP

    config = {
        "embed_dim": 12,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 4, "mlp_ratio": 1.5, "patch_size": 8},
        "text_cfg": {
            "context_length": 20, "vocab_size": len(clip_vocabulary(clip_merges())), "width": 12, "heads": 3,
            "layers": 2, "mlp_ratio": 2.0,
        },
    }
    parts = {key: value for key, value in config.items() if key != "custom_text"}
    model = randomise(CustomTextCLIP(**parts), "open-clip-custom", logit_scale=2.0, logit_bias=-2.5)
    preprocess = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"}
    open_clip_case("open-clip-custom", model, config, preprocess, torch.float16, side_files=False)


def clip_resnet_openai():
    """`open_clip.CLIP` with a ModifiedResNet: OpenAI's RN50 in small. Its state dict has OpenAI's own names."""
    from open_clip.model import CLIP

    config = {
        "embed_dim": 12,
        "quick_gelu": True,
        # 64 pixels leave a map of 2 x 2; heads are width * 32 / head_width.
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 4, "head_width": 32, "patch_size": None},
        "text_cfg": {
            "context_length": 20, "vocab_size": len(clip_vocabulary(clip_merges())), "width": 8, "heads": 2,
            "layers": 2, "mlp_ratio": 2.0,
        },
    }
    case = "clip-resnet-openai"
    model = randomise(CLIP(**config), case, logit_scale=2.5)

    def feature_map(model, pixels):
        found = model.visual.forward_intermediates(pixels, indices=1, intermediates_only=True)
        return {"vision_feature_map": found["image_intermediates"][0]}

    open_clip_case(case, model, config, {}, torch.float16, side_files=False, more=feature_map)
