"""BERT: sentence embeddings and masked words."""

import torch
from common import (
    EAGER, HIDDEN_TEXTS, TEXTS, case_folder, check_spread, normalise, randomise, save_json, save_tensors,
)
from vocabularies import word_piece_vocabulary


@torch.no_grad()
def bert():
    """BertModel as sentence-transformers lays it out; mean pooling, class pooling, and the pooler."""
    from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizer

    vocabulary = word_piece_vocabulary()
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=32,
    )
    folder = case_folder("bert")
    randomise(BertModel(config), "bert").to(torch.bfloat16).save_pretrained(folder)
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
