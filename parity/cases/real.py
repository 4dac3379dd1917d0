"""Models that learned something: `mini`, which the repository carries, and MiniLM and ResNet-50, which it fetches."""

import os
import unicodedata
from pathlib import Path

import torch
from check_layout import load_image_processor, load_model
from common import EAGER, PICTURES, case_folder, check_spread, load_pictures, normalise, save_json, save_tensors
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent.parent

MINI = REPOSITORY / "models" / "mini"
SAMPLES = ["red-apple.png", "orange-cat.png", "three-blue-stars.png", "red-star-above-blue-circle.png"]
MINI_TEXTS = [
    "red apple",
    "an orange cat",
    "three blue stars",
    "a red star above a blue circle",
    "빨간 사과",
    "주황색 고양이 그림",
    unicodedata.normalize("NFD", "파란 별 세 개"),
    "",
    "👩‍👩‍👧 <|endoftext|> ＡＢＣ\u0000 café",
    "파란 원 위에 있는 빨간 별 " * 6,
]

MINILM_FOLDER = "all-MiniLM-L6-v2"
MINILM_TOKENS = 256  # max_seq_length of sentence_bert_config.json
MINILM_TEXTS = [
    "A cat sleeps on the sofa.",
    "A kitten is napping on a couch.",
    "The central bank raised interest rates by half a point.",
    "How do I read a file line by line in Rust?",
    "고양이가 소파에서 자고 있다.",
    unicodedata.normalize("NFD", "한국은행이 금리를 올렸다."),
    "",
    "  \t two \n\n words \u3000 ",
    "Don't they've 3 cats, 42 dogs & 1,000 birds?! it's_a_[MASK] [SEP] </s>",
    "naïve ﬁnd ① Ⅳ １２３ ½ ＡＢＣ Straße ΟΔΟΣ İstanbul 漢字かな",
    "👩‍👩‍👧‍👦 🇰🇷 👍🏽 \u202eabc\u202c zero\u200bwidth\u00ad \ufeffe\u0301\u0327 nul\u0000 \ufffd \U0010ffff",
    "x" * 101,  # longer than a word may be, so one unknown
    "The quick brown fox jumps over the lazy dog. " * 40,
]

RESNET50_FOLDER = "resnet-50-augnet"
RESNET50_SAMPLES = ["red-apple.png", "red-flower.png", "blue-car.png"]


@torch.no_grad()
def mini():
    """models/mini as `CLIPModel` reads it, texts padded to the whole context as Dari pads CLIP's."""
    from transformers import AutoTokenizer

    model = load_model(MINI)
    pictures = load_pictures() + [Image.open(REPOSITORY / "samples" / name).convert("RGB") for name in SAMPLES]
    pixels = load_image_processor(MINI)(pictures, return_tensors="pt")["pixel_values"].float()
    context = model.config.text_config.max_position_embeddings
    tokens = AutoTokenizer.from_pretrained(MINI)(
        MINI_TEXTS, padding="max_length", truncation=True, max_length=context, return_tensors="pt"
    )
    output = model(pixel_values=pixels, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    check_spread("mini", image_embeddings=output.image_embeds, text_embeddings=output.text_embeds)
    folder = case_folder("mini")
    save_tensors(folder / "expected.safetensors", {
        "input_ids": tokens["input_ids"], "image_embeddings": output.image_embeds,
        "text_embeddings": output.text_embeds, "logits_per_image": output.logits_per_image,
    })
    save_json(folder / "inputs.json", {"pictures": PICTURES, "samples": SAMPLES, "texts": MINI_TEXTS})


def fetched(case: str, folder: str) -> Path:
    """Where scripts/fetch_weights.py puts the model of `case`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(os.environ.get("DARI_WEIGHTS") or Path(cache) / "dari" / "weights") / folder
    if not (place / "model.safetensors").is_file():
        raise SystemExit(
            f"{case}: no weights in {place}: fetch them with `python scripts/fetch_weights.py {case}`, "
            "or say with DARI_WEIGHTS where they are"
        )
    return place


@torch.no_grad()
def minilm():
    """all-MiniLM-L6-v2: the mean of the tokens that are not padding, normalised, as sentence-transformers does."""
    from transformers import AutoTokenizer, BertModel

    source = fetched("minilm", MINILM_FOLDER)
    model, report = BertModel.from_pretrained(source, **EAGER, output_loading_info=True)
    if faults := {name: values for name, values in report.items() if values}:
        raise SystemExit(f"minilm: transformers reads the weights in part only: {faults}")
    tokens = AutoTokenizer.from_pretrained(source)(
        MINILM_TEXTS, padding=True, truncation=True, max_length=MINILM_TOKENS, return_tensors="pt"
    )
    mask = tokens["attention_mask"].unsqueeze(-1).float()
    states = model.eval()(**tokens).last_hidden_state
    embeddings = normalise((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9))
    check_spread("minilm", embeddings=embeddings)
    cat, kitten, bank = embeddings[:3]
    if not cat @ kitten > cat @ bank + 0.3:
        raise SystemExit("minilm: a cat is not nearer to a kitten than to a bank: not the weights of this case")
    folder = case_folder("minilm")
    save_tensors(folder / "expected.safetensors", {
        "input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], "embeddings": embeddings,
    })
    save_json(folder / "inputs.json", {"texts": MINILM_TEXTS})


@torch.no_grad()
def resnet50():
    """A ResNet-50 that learned which pictures are alike: torchvision's net and its recipe for 224 pixels.

    The package itself puts a tanh behind `fc`, and pictures of 350 pixels in front, uncropped.
    """
    from safetensors.torch import load_file
    from torchvision.models import resnet50 as net_of_torchvision
    from torchvision.transforms._presets import ImageClassification

    weights = load_file(fetched("resnet50", RESNET50_FOLDER) / "model.safetensors")
    net = net_of_torchvision(num_classes=len(weights["fc.bias"]))
    net.load_state_dict(weights)
    pooled = []
    net.eval().avgpool.register_forward_hook(lambda module, inputs, output: pooled.append(output.flatten(1)))
    pictures = [Image.open(REPOSITORY / "samples" / name).convert("RGB") for name in RESNET50_SAMPLES]
    logits = net(torch.stack([ImageClassification(crop_size=224)(picture) for picture in pictures]))
    check_spread("resnet50", pooled=pooled[0], logits=logits)
    apple, flower, car = normalise(pooled[0])
    if not apple @ flower > apple @ car + 0.1:
        raise SystemExit("resnet50: what is red is not nearer to red than to a blue car: not the weights of this case")
    folder = case_folder("resnet50")
    save_tensors(folder / "expected.safetensors", {"pooled": pooled[0], "logits": logits})
    save_json(folder / "inputs.json", {"samples": RESNET50_SAMPLES})
