"""SigLIP 2 NaFlex: pictures of any shape, cut into at most so many patches."""

import torch
from common import (
    EAGER, HIDDEN_TEXTS, TEXTS, case_folder, check_spread, load_pictures, normalise, randomise, save_json,
    save_tensors,
)
from vocabularies import gemma_vocabulary

from cases.siglip import CONTEXT, leave_out_defaults, let_words_count

# Not sliver.png: one column of patches is what torch 2.15 resizes positions to wrongly (see README.md).
SHAPES = ["wide.png", "tall.png", "square.png", "tiny.png", "landscape.png", "portrait.png"]
MAX_NUM_PATCHES = 20
OTHER_MAX_NUM_PATCHES = [12, 36]  # asked for at the call, as `processor(…, max_num_patches=12)`
RESIZED_TO = [(2, 10), (3, 3), (5, 4)]  # of a 4 x 4 grid: smaller and larger, both smaller, larger and the same


@torch.no_grad()
def siglip2_naflex():
    """`Siglip2Model`: patches through a linear layer, positions resized to each picture's shape, padding masked."""
    from transformers import (
        AutoImageProcessor, AutoTokenizer, GemmaTokenizer, Siglip2Config, Siglip2Model, Siglip2Processor,
        Siglip2TextConfig, Siglip2VisionConfig,
    )
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    case = "siglip2-naflex"
    folder = case_folder(case)
    vocabulary, merges = gemma_vocabulary()
    # As on the hub: the files name GemmaTokenizer, and AutoTokenizer takes Siglip2Tokenizer, which lowers.
    tokenizer = GemmaTokenizer(
        vocab=vocabulary, merges=merges, add_bos_token=False, add_eos_token=True, padding_side="right",
        model_max_length=CONTEXT, model_input_names=["input_ids"],
    )
    config = Siglip2Config(
        text_config=dict(
            vocab_size=len(vocabulary), hidden_size=12, intermediate_size=20, num_hidden_layers=2,
            num_attention_heads=3, max_position_embeddings=CONTEXT, projection_size=16,
            pad_token_id=0, bos_token_id=None, eos_token_id=1,
        ),
        vision_config=dict(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=4,
            num_patches=16,
        ),
    )
    model = randomise(Siglip2Model(config), case, logit_scale=2.4, logit_bias=-4.0)
    let_words_count(model, pad=0)
    model.to(torch.float16).save_pretrained(folder)
    leave_out_defaults(folder / "config.json", Siglip2TextConfig, Siglip2VisionConfig)
    image_processor = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=MAX_NUM_PATCHES)
    Siglip2Processor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)

    model = Siglip2Model.from_pretrained(folder, **EAGER).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pictures = load_pictures(SHAPES)
    pixels = processor(pictures, return_tensors="pt")
    assert pixels["spatial_shapes"][:, 1].min() > 1
    tokenizer, as_named = AutoTokenizer.from_pretrained(folder), GemmaTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__ == "Siglip2Tokenizer"
    ids, named_ids = (
        found(TEXTS, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")["input_ids"]
        for found in (tokenizer, as_named)
    )
    differing = [number for number in range(len(TEXTS)) if not torch.equal(ids[number], named_ids[number])]
    print(f"  {case}: texts where tokenizer.json does not lower: {[TEXTS[number] for number in differing]}")
    output = model(input_ids=ids, **pixels)
    vision, text = output.vision_model_output, output.text_model_output
    check_spread(case, image_embeddings=output.image_embeds, text_embeddings=output.text_embeds)
    expected = {
        **pixels,
        "input_ids": ids,
        "vision_last_hidden_state": vision.last_hidden_state,
        "vision_pooled": vision.pooler_output,
        "text_last_hidden_state": text.last_hidden_state[:HIDDEN_TEXTS],
        "text_pooled": text.pooler_output,
        "image_embeddings": output.image_embeds,
        "text_embeddings": output.text_embeds,
        "logits_per_image": output.logits_per_image,
    }
    for most in OTHER_MAX_NUM_PATCHES:
        other = processor(pictures, max_num_patches=most, return_tensors="pt")
        assert other["spatial_shapes"][:, 1].min() > 1
        expected[f"spatial_shapes_max_{most}"] = other["spatial_shapes"]
        expected[f"image_embeddings_max_{most}"] = normalise(model.get_image_features(**other).pooler_output)
    embeddings = model.vision_model.embeddings
    grid = embeddings.position_embedding.weight.reshape(4, 4, -1)
    for height, width in RESIZED_TO:
        resized = embeddings.resize_positional_embeddings(grid, torch.tensor([[height, width]]), height * width)
        expected[f"position_embeddings_{height}x{width}"] = resized.reshape(height, width, -1)
    # One column, by way of one row of the transposed grid.
    resized = embeddings.resize_positional_embeddings(grid.transpose(0, 1).contiguous(), torch.tensor([[1, 6]]), 6)
    expected["position_embeddings_6x1"] = resized.reshape(6, 1, -1)
    # Padding is seen by nobody: each picture alone, without any, gives the same.
    for row, (height, width) in enumerate(pixels["spatial_shapes"].tolist()):
        alone = {"pixel_values": pixels["pixel_values"][row : row + 1, : height * width]}
        alone["pixel_attention_mask"] = torch.ones(1, height * width, dtype=torch.int64)
        alone["spatial_shapes"] = pixels["spatial_shapes"][row : row + 1]
        apart = (model.get_image_features(**alone).pooler_output[0] - vision.pooler_output[row]).abs().max()
        assert apart < 1e-5, (SHAPES[row], apart)
    print(f"  {case}: patches (rows, columns) {pixels['spatial_shapes'].tolist()}")
    save_tensors(folder / "expected.safetensors", expected)
    save_json(folder / "inputs.json", {
        "pictures": SHAPES, "texts": TEXTS, "max_num_patches": MAX_NUM_PATCHES,
        "other_max_num_patches": OTHER_MAX_NUM_PATCHES, "position_embeddings": [*RESIZED_TO, (6, 1)],
        "texts_where_tokenizer_json_differs": differing,
    })
