"""Writes fixtures/parity: tiny checkpoints as the reference libraries save them, and what those libraries compute.

    python parity/make_fixtures.py                  # every case but minilm and resnet50
    python parity/make_fixtures.py --only vit       # one case
    python parity/make_fixtures.py --only mini      # whenever models/mini has changed
    python parity/make_fixtures.py --only minilm    # needs the weights that scripts/fetch_weights.py fetches
    python parity/make_fixtures.py --only resnet50  # so does this

Every checkpoint is written first and then read back by the library, so that what is expected is what the
files say. All references are computed at f32 on the CPU with the Pillow image processors.
"""

import argparse

import common
import torch
from cases import (
    bert, clip, language, language_gguf, language_training, naflex, open_clip, real, resnet, siglip, training, vit, vlm,
)

CASES = {
    "clip-openai": clip.clip_openai,
    "clip-openai-bf16": clip.clip_openai_bf16,
    "clip-laion": clip.clip_laion,
    "open-clip": open_clip.open_clip_vit,
    "open-clip-custom": open_clip.open_clip_custom,
    "clip-resnet-openai": open_clip.clip_resnet_openai,
    "siglip": siglip.siglip,
    "siglip2": siglip.siglip2,
    "siglip2-naflex": naflex.siglip2_naflex,
    "vit": vit.vit,
    "vit-pooler": vit.vit_pooler,
    "resnet": resnet.resnet,
    "resnet-basic": resnet.resnet_basic,
    "resnet-timm": resnet.resnet_timm,
    "resnet-torchvision": resnet.resnet_torchvision,
    "bert": bert.bert,
    "bert-masked": bert.bert_masked,
    "clip-training": training.clip_training,  # reads clip-laion
    "siglip-training": training.siglip_training,  # reads siglip
    "siglip2-naflex-training": training.siglip2_naflex_training,  # reads siglip2-naflex
    "clip-resnet-training": training.clip_resnet_training,  # reads clip-resnet-openai
    "classifier-training": training.classifier_training,  # reads vit and resnet
    "gpt2": language.gpt2,
    "llama": language.llama,
    "llama-rope3": language.llama_rope3,
    "mistral": language.mistral,
    "qwen2": language.qwen2,
    "gguf-llama": language_gguf.gguf_llama,  # reads llama
    "gguf-qwen2": language_gguf.gguf_qwen2,  # so does this
    "llava-clip": vlm.llava_clip,
    "llava-siglip": vlm.llava_siglip,
    "idefics3": vlm.idefics3,
    "smolvlm": vlm.smolvlm,
    "llama-training": language_training.llama_training,  # reads llama
    "gpt2-training": language_training.gpt2_training,  # reads gpt2
    "llama-lora": language_training.llama_lora,  # reads llama
    "llava-training": language_training.llava_training,  # reads llava-clip
    "mini": real.mini,  # reads models/mini and samples
}

ON_DEMAND = {"minilm": real.minilm, "resnet50": real.resnet50}  # read weights that are not in the repository

SIBLINGS = {"clip-openai-bf16": ["clip-openai-sharded", "clip-openai-bin"]}  # written by the same function


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*CASES, *ON_DEMAND], help="write this case alone")
    chosen = parser.parse_args().only
    torch.set_num_threads(1)
    common.draw_pictures()
    for name, make in {**CASES, **ON_DEMAND}.items():
        if name == chosen or (chosen is None and name in CASES):
            torch.manual_seed(0)
            make()
            for folder in [name, *SIBLINGS.get(name, [])]:
                print(f"{folder}: {common.finish_case(common.ROOT / folder) / 1024:.0f} KB")


if __name__ == "__main__":
    main()
