"""CLIP as transformers saves it."""

import torch

from common import (
    EAGER, HIDDEN_TEXTS, PICTURES, ROOT, TEXTS, case_folder, check_spread, load_pictures, randomise, save_json,
    save_tensors,
)
from vocabularies import clip_merges, clip_vocabulary


def clip_tokenizer(folder, context: int, pad: str = "<|endoftext|>"):
    from transformers import CLIPTokenizer

    merges = clip_merges()
    vocabulary = clip_vocabulary(merges)
    CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=context).save_pretrained(folder)
    return vocabulary


def clip_processor(side: int):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


@torch.no_grad()
def clip_reference(case: str, folder, processor, tokens=None, pixel_values=True) -> dict:
    """What `CLIPModel` computes for the shared pictures and texts."""
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder, **EAGER).eval()
    pixels = processor(load_pictures(), return_tensors="pt")["pixel_values"].float()
    tokens = AutoTokenizer.from_pretrained(tokens or folder)(TEXTS, padding=True, truncation=True, return_tensors="pt")
    output = model(pixel_values=pixels, **tokens)
    vision = model.vision_model(pixel_values=pixels)
    text = model.text_model(**tokens)
    check_spread(case, image_embeddings=output.image_embeds, text_embeddings=output.text_embeds)
    expected = {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "vision_last_hidden_state": vision.last_hidden_state,
        "vision_pooled": vision.pooler_output,
        "text_last_hidden_state": text.last_hidden_state[:HIDDEN_TEXTS],
        "text_pooled": text.pooler_output,
        "image_embeddings": output.image_embeds,
        "text_embeddings": output.text_embeds,
        "logits_per_image": output.logits_per_image,
    }
    if pixel_values:
        expected["pixel_values"] = pixels
    return expected


def openai_clip_model():
    """The model of the clip-openai cases: the legacy text config, whose eos_token_id says 2."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        projection_dim=20,
        text_config=dict(
            vocab_size=len(clip_vocabulary(clip_merges())), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=24, projection_dim=20, hidden_act="quick_gelu",
            bos_token_id=0, eos_token_id=2, pad_token_id=1,
        ),
        vision_config=dict(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=8, projection_dim=20, hidden_act="quick_gelu",
        ),
    )
    return randomise(CLIPModel(config), "clip-openai", logit_scale=2.9)


def clip_openai():
    """CLIPModel as OpenAI's checkpoints are: quick_gelu, pooling at the largest id, preprocessor_config.json."""
    folder = case_folder("clip-openai")
    openai_clip_model().save_pretrained(folder)
    clip_tokenizer(folder, 24)
    processor = clip_processor(32)
    processor.save_pretrained(folder)
    save_tensors(folder / "expected.safetensors", clip_reference("clip-openai", folder, processor))
    save_json(folder / "inputs.json", {"pictures": PICTURES, "texts": TEXTS})


def clip_openai_bf16():
    """The same weights rounded to bf16: one file, shards with an index, and pytorch_model.bin."""
    from transformers import CLIPModel

    processor = clip_processor(32)
    model = openai_clip_model().to(torch.bfloat16)

    folder = case_folder("clip-openai-bf16")
    model.save_pretrained(folder)
    # Tokenizer, processor, pixels and ids are clip-openai's.
    tokens = ROOT / "clip-openai"
    expected = clip_reference("clip-openai-bf16", folder, processor, tokens=tokens, pixel_values=False)
    save_tensors(folder / "expected.safetensors", expected)

    sharded = case_folder("clip-openai-sharded")
    model.save_pretrained(sharded, max_shard_size="20KB")
    binary = case_folder("clip-openai-bin")
    model.config.save_pretrained(binary)
    torch.save(model.state_dict(), binary / "pytorch_model.bin")

    single = CLIPModel.from_pretrained(folder).state_dict()
    shards = CLIPModel.from_pretrained(sharded).state_dict()
    assert all(torch.equal(single[name], shards[name]) for name in single)


def clip_laion():
    """CLIPModel as newer checkpoints are: gelu, pooling at the true end id, towers of different width, f16 file."""
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, AutoTokenizer

    folder = case_folder("clip-laion")
    vocabulary = clip_tokenizer(folder, 20, pad="!")
    config = CLIPConfig(
        projection_dim=10,
        text_config=dict(
            vocab_size=len(vocabulary), hidden_size=12, intermediate_size=20, num_hidden_layers=2,
            num_attention_heads=3, max_position_embeddings=20, projection_dim=10, hidden_act="gelu",
            bos_token_id=vocabulary["<|startoftext|>"], eos_token_id=vocabulary["<|endoftext|>"], pad_token_id=0,
        ),
        vision_config=dict(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=24,
            patch_size=8, projection_dim=10, hidden_act="gelu",
        ),
    )
    model = randomise(CLIPModel(config), "clip-laion", logit_scale=2.3)
    model.to(torch.float16).save_pretrained(folder)
    processor = clip_processor(24)
    # Today's library writes one processor_config.json for pixels and tokens together.
    CLIPProcessor(image_processor=processor, tokenizer=AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    save_tensors(folder / "expected.safetensors", clip_reference("clip-laion", folder, processor))
    save_json(folder / "inputs.json", {"pictures": PICTURES, "texts": TEXTS})
