"""ViT as transformers saves it: a classifier and a feature extractor."""

import torch

from common import (
    EAGER, PICTURES, case_folder, check_spread, load_pictures, normalise, randomise, save_json, save_tensors,
)


@torch.no_grad()
def vit():
    """ViTForImageClassification with labels, read from the class token."""
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    labels = {0: "cat", 1: "dog", 2: "Siamese cat, Siamese", 3: "고양이", 4: "tabby"}
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=24, patch_size=8,
        id2label=labels, label2id={name: number for number, name in labels.items()},
    )
    folder = case_folder("vit")
    randomise(ViTForImageClassification(config), "vit").to(torch.float16).save_pretrained(folder)
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    processor.save_pretrained(folder)
    model = ViTForImageClassification.from_pretrained(folder, **EAGER).eval()
    pixels = processor(load_pictures(), return_tensors="pt")["pixel_values"].float()
    features = model.vit(pixels).last_hidden_state
    logits = model(pixels).logits
    check_spread("vit", logits=logits)
    save_tensors(folder / "expected.safetensors", {
        "pixel_values": pixels, "last_hidden_state": features, "logits": logits, "probabilities": logits.softmax(-1),
    })
    save_json(folder / "inputs.json", {"pictures": PICTURES})


@torch.no_grad()
def vit_pooler():
    """ViTModel with its pooler: a feature extractor without labels, without query, key and value biases."""
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=4,
        qkv_bias=False, layer_norm_eps=1e-6,
    )
    folder = case_folder("vit-pooler")
    randomise(ViTModel(config, add_pooling_layer=True), "vit-pooler").to(torch.float16).save_pretrained(folder)
    # Mean and deviation of ImageNet, a resampling of 3 (bicubic): the fields must be read, not assumed.
    processor = ViTImageProcessorPil(
        size={"height": 16, "width": 16}, resample=3, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    processor.save_pretrained(folder)
    model = ViTModel.from_pretrained(folder, **EAGER).eval()
    pixels = processor(load_pictures(), return_tensors="pt")["pixel_values"].float()
    output = model(pixels)
    check_spread("vit-pooler", pooled=output.pooler_output)
    save_tensors(folder / "expected.safetensors", {
        "pixel_values": pixels, "last_hidden_state": output.last_hidden_state, "pooled": output.pooler_output,
        "class_embeddings": normalise(output.last_hidden_state[:, 0]),
        "mean_embeddings": normalise(output.last_hidden_state[:, 1:].mean(dim=1)),
    })
    save_json(folder / "inputs.json", {"pictures": PICTURES})
