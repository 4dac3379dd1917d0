"""SigLIP, and SigLIP 2 at fixed resolution, as transformers saves them."""

import json
import string

import torch

from common import (
    EAGER, HIDDEN_TEXTS, PICTURES, TEXTS, case_folder, check_spread, load_pictures, randomise, save_json, save_tensors,
)
from vocabularies import gemma_vocabulary, train_sentencepiece

CONTEXT = 64  # SigLIP always pads to its whole context: the last place is the one that is pooled.


def siglip_processor(side: int):
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return SiglipImageProcessorPil(size={"height": side, "width": side})


@torch.no_grad()
def siglip_reference(case: str, folder, processor, tokenizer) -> dict:
    """What `SiglipModel` computes; no attention mask is given, as the released processors give none."""
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(folder, **EAGER).eval()
    pixels = processor(load_pictures(), return_tensors="pt")["pixel_values"].float()
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")["input_ids"]
    output = model(pixel_values=pixels, input_ids=ids)
    vision = model.vision_model(pixel_values=pixels)
    text = model.text_model(input_ids=ids)
    check_spread(case, image_embeddings=output.image_embeds, text_embeddings=output.text_embeds)
    return {
        "pixel_values": pixels,
        "input_ids": ids,
        "vision_last_hidden_state": vision.last_hidden_state,
        "vision_pooled": vision.pooler_output,
        "text_last_hidden_state": text.last_hidden_state[:HIDDEN_TEXTS],
        "text_pooled": text.pooler_output,
        "image_embeddings": output.image_embeds,
        "text_embeddings": output.text_embeds,
        "logits_per_image": output.logits_per_image,
    }


@torch.no_grad()
def let_words_count(model, pad: int):
    """Most of SigLIP's 64 places are padding, and the last one is pooled: make the words weigh more than that."""
    text = model.text_model
    text.embeddings.position_embedding.weight *= 0.3
    text.embeddings.token_embedding.weight *= 3
    text.embeddings.token_embedding.weight[pad] *= 0.05
    for layer in text.encoder.layers:
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.out_proj):
            linear.weight *= 1.8
    return model


def siglip_model(vocabulary_size: int):
    from transformers import SiglipConfig, SiglipModel

    config = SiglipConfig(
        text_config=dict(
            vocab_size=vocabulary_size, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=CONTEXT, pad_token_id=1, bos_token_id=None, eos_token_id=1,
        ),
        vision_config=dict(
            hidden_size=16, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4, image_size=16,
            patch_size=4,
        ),
    )
    model = randomise(SiglipModel(config), "siglip", logit_scale=2.2, logit_bias=-3.1)
    return let_words_count(model, pad=1)


def siglip():
    """SiglipModel with its own tokenizer: a Unigram model behind lower-casing and the removal of punctuation."""
    from transformers import SiglipTokenizer

    folder = case_folder("siglip")
    train_sentencepiece(folder / "spiece.model")
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_input_names=["input_ids"])
    tokenizer.save_pretrained(folder)
    siglip_model(tokenizer.vocab_size).to(torch.float16).save_pretrained(folder)
    processor = siglip_processor(16)
    processor.save_pretrained(folder)
    tokenizer = SiglipTokenizer.from_pretrained(folder)
    expected = siglip_reference("siglip", folder, processor, tokenizer)

    fast = fast_siglip_tokenizer(folder / "spiece.model")
    fast.save(str(folder / "tokenizer.json"))
    rows = torch.tensor([encoding.ids for encoding in fast.encode_batch(TEXTS)])
    differing = [number for number, row in enumerate(rows) if not torch.equal(row, expected["input_ids"][number])]
    print("  siglip: texts where tokenizer.json and spiece.model differ:", [TEXTS[number] for number in differing])
    save_tensors(folder / "expected.safetensors", expected)
    save_json(
        folder / "inputs.json", {"pictures": PICTURES, "texts": TEXTS, "texts_where_tokenizer_json_differs": differing}
    )


def fast_siglip_tokenizer(spiece):
    """The same pipeline for the tokenizers library: today's transformers saves spiece.model alone."""
    import sentencepiece.sentencepiece_model_pb2 as schema
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    proto = schema.ModelProto.FromString(spiece.read_bytes())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    punctuation = "[" + "".join("\\" + c if c in "\\]^-[" else c for c in string.punctuation) + "]"
    steps = [
        normalizers.Lowercase(), normalizers.Replace(Regex(punctuation), ""),
        normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(),
    ]
    if charsmap := proto.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.add_special_tokens([
        AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True) for token in ("</s>", "<unk>")
    ])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(pad_id=1, pad_token="</s>", length=CONTEXT)
    return tokenizer


def siglip2():
    """SigLIP 2 at fixed resolution: model_type `siglip`, Gemma's tokenizer, sparse config.json, bf16 file."""
    from transformers import AutoTokenizer, GemmaTokenizer, SiglipConfig, SiglipModel, SiglipProcessor

    folder = case_folder("siglip2")
    vocabulary, merges = gemma_vocabulary()
    tokenizer = GemmaTokenizer(
        vocab=vocabulary, merges=merges, add_bos_token=False, add_eos_token=True, padding_side="right",
        model_max_length=CONTEXT, model_input_names=["input_ids"],
    )
    config = SiglipConfig(
        text_config=dict(
            vocab_size=len(vocabulary), hidden_size=12, intermediate_size=20, num_hidden_layers=2,
            num_attention_heads=3, max_position_embeddings=CONTEXT, projection_size=16,
            pad_token_id=0, bos_token_id=None, eos_token_id=1,
        ),
        vision_config=dict(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=18,
            patch_size=4,
        ),
    )
    model = randomise(SiglipModel(config), "siglip2", logit_scale=2.6, logit_bias=-4.5)
    let_words_count(model, pad=0)
    model.to(torch.bfloat16).save_pretrained(folder)
    leave_out_defaults(folder / "config.json")
    # As in so400m-patch14-384, the side is no multiple of the patch: the last pixels fall away.
    processor = siglip_processor(18)
    SiglipProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    save_tensors(folder / "expected.safetensors", siglip_reference("siglip2", folder, processor, tokenizer))
    save_json(folder / "inputs.json", {"pictures": PICTURES, "texts": TEXTS})


def leave_out_defaults(path, text_kind=None, vision_kind=None) -> None:
    """Drops every field that equals its class's default: published configs leave them out."""
    from transformers import SiglipTextConfig, SiglipVisionConfig

    config = json.loads(path.read_text())
    kinds = {"text_config": text_kind or SiglipTextConfig, "vision_config": vision_kind or SiglipVisionConfig}
    for part, kind in kinds.items():
        defaults = kind().to_dict()
        kept = {key: value for key, value in config[part].items() if defaults.get(key, ...) != value}
        config[part] = {key: value for key, value in kept.items() if not key.endswith("_token_id")}
        config[part]["model_type"] = kind.model_type
    save_json(path, config)
