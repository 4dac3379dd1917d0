"""Writes fixtures/parity: tiny checkpoints as the reference libraries save them, and what those libraries compute.

    python parity/make_fixtures.py               # every case
    python parity/make_fixtures.py --only vit    # one case

Every checkpoint is written first and then read back by the library, so that what is expected is what the
files say. All references are computed at f32 on the CPU with the Pillow image processors.
"""

import argparse

import torch

import common
from common import PICTURES, TEXTS, case_folder, check_spread, load_pictures, normalise, randomise, save_json, save_tensors

EAGER = {"dtype": torch.float32, "attn_implementation": "eager"}
HIDDEN_TEXTS = 4  # text hidden states are kept for the first texts only, for size


def clip_tokenizer(folder, context: int, pad: str = "<|endoftext|>"):
    from transformers import CLIPTokenizer
    from vocabularies import clip_merges, clip_vocabulary

    merges = clip_merges()
    vocabulary = clip_vocabulary(merges)
    CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=context).save_pretrained(folder)
    return vocabulary


def clip_processor(side: int):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


@torch.no_grad()
def clip_reference(case: str, folder, processor, pixel_values=True) -> dict:
    """What `CLIPModel` computes for the shared pictures and texts."""
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder, **EAGER).eval()
    pixels = processor(load_pictures(), return_tensors="pt")["pixel_values"].float()
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, return_tensors="pt")
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
    from vocabularies import clip_merges, clip_vocabulary

    config = CLIPConfig(
        projection_dim=20,
        text_config=dict(
            vocab_size=len(clip_vocabulary(clip_merges())), hidden_size=16, intermediate_size=40, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=24, projection_dim=20, hidden_act="quick_gelu",
            bos_token_id=0, eos_token_id=2, pad_token_id=1,
        ),
        vision_config=dict(
            hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=32,
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
    clip_tokenizer(folder, 24)
    processor.save_pretrained(folder)
    # Pixels and ids are clip-openai's.
    expected = clip_reference("clip-openai-bf16", folder, processor, pixel_values=False)
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
        projection_dim=12,
        text_config=dict(
            vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=20, projection_dim=12, hidden_act="gelu",
            bos_token_id=vocabulary["<|startoftext|>"], eos_token_id=vocabulary["<|endoftext|>"], pad_token_id=0,
        ),
        vision_config=dict(
            hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=3, image_size=24,
            patch_size=8, projection_dim=12, hidden_act="gelu",
        ),
    )
    model = randomise(CLIPModel(config), "clip-laion", logit_scale=2.3)
    model.to(torch.float16).save_pretrained(folder)
    processor = clip_processor(24)
    # Today's library writes one processor_config.json for pixels and tokens together.
    CLIPProcessor(image_processor=processor, tokenizer=AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    save_tensors(folder / "expected.safetensors", clip_reference("clip-laion", folder, processor))
    save_json(folder / "inputs.json", {"pictures": PICTURES, "texts": TEXTS})


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
    randomise(ViTForImageClassification(config), "vit").save_pretrained(folder)
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


@torch.no_grad()
def bert():
    """BertModel as sentence-transformers lays it out; mean pooling, class pooling, and the pooler."""
    from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizer
    from vocabularies import word_piece_vocabulary

    vocabulary = word_piece_vocabulary()
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=32,
    )
    folder = case_folder("bert")
    randomise(BertModel(config), "bert").save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=32).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in vocabulary), encoding="utf-8")
    save_json(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])
    save_json(folder / "sentence_bert_config.json", {"max_seq_length": 28, "do_lower_case": False})
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    for chosen, path in {"mean_tokens": "1_Pooling/config.json", "cls_token": "pooling_cls.json"}.items():
        pooling = {"word_embedding_dimension": 24} | {f"pooling_mode_{mode}": mode == chosen for mode in modes}
        save_json(folder / path, pooling | {"include_prompt": True})

    model = BertModel.from_pretrained(folder, **EAGER).eval()
    # sentence-transformers truncates to its own max_seq_length, below the model's 32 positions.
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=28, return_tensors="pt"
    )
    output = model(**tokens)
    mask = tokens["attention_mask"].unsqueeze(-1).float()
    mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    check_spread("bert", mean=mean, pooled=output.pooler_output)
    save_tensors(folder / "expected.safetensors", {
        "input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"],
        "last_hidden_state": output.last_hidden_state[:HIDDEN_TEXTS], "pooled": output.pooler_output,
        "mean_embeddings": normalise(mean), "class_embeddings": normalise(output.last_hidden_state[:, 0]),
    })
    save_json(folder / "inputs.json", {"texts": TEXTS})


@torch.no_grad()
def bert_masked():
    """BertForMaskedLM, cased, f16 file, tied output embedding: logits of sentences with a masked word."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizer
    from vocabularies import word_piece_vocabulary

    vocabulary = word_piece_vocabulary()
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=24, hidden_act="gelu_new", layer_norm_eps=1e-5,
    )
    folder = case_folder("bert-masked")
    randomise(BertForMaskedLM(config), "bert-masked").to(torch.float16).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, do_lower_case=False, model_max_length=24).save_pretrained(folder)
    texts = ["a photo of a [MASK]", "the red [MASK] is left of the blue [MASK].", "고양이 두 [MASK]"]
    model = BertForMaskedLM.from_pretrained(folder, **EAGER).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    logits = model(**tokens).logits
    masked = (tokens["input_ids"] == vocabulary["[MASK]"]).nonzero()
    check_spread("bert-masked", logits=logits[masked[:, 0], masked[:, 1]])
    save_tensors(folder / "expected.safetensors", {
        "input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"],
        "last_hidden_state": model.bert(**tokens).last_hidden_state,
        "masked_places": masked, "masked_logits": logits[masked[:, 0], masked[:, 1]],
    })
    save_json(folder / "inputs.json", {"texts": texts})


CASES = {
    "clip-openai": clip_openai,
    "clip-openai-bf16": clip_openai_bf16,
    "clip-laion": clip_laion,
    "vit": vit,
    "vit-pooler": vit_pooler,
    "bert": bert,
    "bert-masked": bert_masked,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=CASES, help="write this case alone")
    chosen = parser.parse_args().only
    torch.manual_seed(0)
    torch.set_num_threads(1)
    common.draw_pictures()
    for name, make in CASES.items():
        if chosen in (None, name):
            make()
            size = sum(file.stat().st_size for file in (common.ROOT / name).rglob("*") if file.is_file())
            print(f"{name}: {size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
