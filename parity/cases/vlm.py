"""Models that look at pictures and answer, as transformers saves them: LLaVA, Idefics 3, SmolVLM."""

import torch
from common import case_folder, check_spread, load_pictures, randomise, save_json, save_tensors
from vocabularies import CORPUS, byte_level_vocabulary, llama_vocabulary

from cases.language import Speaker, cut, speak_up

ANSWER_TOKENS = 16
SPEECH = {"o_proj": 1.5, "down_proj": 2, "q_proj": 1.5, "k_proj": 1.5}  # see speak_up
LAST_PLACES = 3  # of all prompts but the first, logits are kept for so many places at the end, for size


def user(*parts: str) -> dict:
    """A user's message; whatever names a PNG is a picture."""
    return {"role": "user", "content": [
        {"type": "image", "picture": part} if part.endswith(".png") else {"type": "text", "text": part}
        for part in parts
    ]}


def said(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def pictures_of(chat: list) -> list:
    return load_pictures([
        part["picture"] for message in chat for part in message["content"] if part["type"] == "image"
    ])


class Onlooker(Speaker):
    """A checkpoint and its processor, and what they make of chats with pictures."""

    def __init__(self, folder, model_class):
        from transformers import AutoImageProcessor, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(folder)
        self.processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        super().__init__(folder, model_class, self.processor.tokenizer)

    def render(self, chat: list) -> str:
        return self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)

    def inputs_of(self, chats: list, **options) -> dict:
        """The chats' tokens and pixels, padded on the left where there are several."""
        rendered = [self.render(chat) for chat in chats]
        pictures = [pictures_of(chat) for chat in chats]
        starts = self.tokenizer.bos_token is not None and rendered[0].startswith(self.tokenizer.bos_token)
        inputs = self.processor(
            text=rendered, images=pictures if any(pictures) else None, padding=len(chats) > 1, padding_side="left",
            return_tensors="pt", add_special_tokens=not starts,  # as apply_chat_template decides it
            **options,
        )
        return {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}

    def answer(self, inputs: dict):
        return self.generate(inputs, ANSWER_TOKENS).sequences[:, inputs["input_ids"].shape[1] :]

    def towers(self, inputs: dict) -> tuple:
        """What the bridge is given and what it makes of it: one row for each picture or tile."""
        seen = {}
        bridge = next(
            module for name, module in self.model.named_modules()
            if name.endswith(("multi_modal_projector", "connector"))
        )
        hook = bridge.register_forward_hook(lambda module, given, made: seen.update(given=given[0], made=made))
        pixels = {name: tensor for name, tensor in inputs.items() if name.startswith("pixel")}
        self.model.get_image_features(**pixels)
        hook.remove()
        return seen["given"], seen["made"]


@torch.no_grad()
def finish_onlooker(case: str, folder, model_class, chats: list, *, whole=None, pixels_of=None, unsplit=None) -> None:
    """Reads the checkpoint back and writes what is expected of it.

    For size, pixels are kept for the chats `pixels_of` alone (None: for all), and logits of all places for the chat
    `whole`. The chat `unsplit` is asked once more with its pictures in one piece.
    """
    onlooker = Onlooker(folder, model_class)
    expected, answers, last, least, texts = {}, [], [], [], []
    for number, chat in enumerate(chats):
        inputs = onlooker.inputs_of([chat])
        # Masks of a chat alone are all ones: tiles have one size.
        assert all(tensor.min() == 1 for name, tensor in inputs.items() if name.endswith("attention_mask"))
        expected[f"input_ids_{number}"] = inputs["input_ids"][0]
        if "pixel_values" in inputs and (pixels_of is None or number in pixels_of):
            expected[f"pixel_values_{number}"] = inputs["pixel_values"].flatten(0, -4)
        if "pixel_values" in inputs:
            given, made = onlooker.towers(inputs)
            expected |= {f"vision_hidden_{number}": given, f"image_features_{number}": made}
        logits = onlooker.model(**inputs).logits[0]
        expected[f"logits_{number}"] = logits if number == whole else logits[-LAST_PLACES:]
        last.append(logits[-1])
        if "pixel_values" in inputs:
            other = onlooker.model(**inputs | {"pixel_values": -inputs["pixel_values"]}).logits[0, -1]
            moved = (other - logits[-1]).abs().max().item()
            assert moved > 0.05, f"{case}: the negative of a picture moves no logit by more than {moved}"
        answers.append(onlooker.answer(inputs)[0].tolist())
        expected[f"greedy_{number}"] = torch.tensor(answers[-1])
        least.append(onlooker.least_gap(inputs, ANSWER_TOKENS))
        texts.append(onlooker.tokenizer.decode(answers[-1], skip_special_tokens=True))
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        kinds = len(set(answers[-1]))
        print(f"  {case} {number}: {shapes}, {len(answers[-1])} tokens, {kinds} kinds, gap {least[-1]:.4f}")
        if least[-1] < 1e-3 or kinds < 0.4 * len(answers[-1]) or len(answers[-1]) < 4:
            raise SystemExit(f"{case}: a poor answer")
    check_spread(case, last_logits=torch.stack(last))
    batch = onlooker.inputs_of(chats)
    together = onlooker.answer(batch)
    assert [cut(row, onlooker.ends) for row in together.tolist()] == answers, f"{case}: padding changes an answer"
    expected["batch_greedy"] = together
    if unsplit is not None:
        inputs = onlooker.inputs_of([chats[unsplit]], do_image_splitting=False)
        given, made = onlooker.towers(inputs)
        expected |= {
            "unsplit_input_ids": inputs["input_ids"][0], "unsplit_pixel_values": inputs["pixel_values"].flatten(0, -4),
            "unsplit_vision_hidden": given, "unsplit_image_features": made,
            "unsplit_logits": onlooker.model(**inputs).logits[0, -LAST_PLACES:],
        }
        print(f"  {case} {unsplit} in one piece: {tuple(inputs['pixel_values'].shape)}")
    save_tensors(folder / "expected.safetensors", expected)
    save_json(folder / "inputs.json", {
        "chats": chats, "rendered": [onlooker.render(chat) for chat in chats], "greedy_texts": texts,
        "eos_token_ids": onlooker.ends, "pad_token_id": onlooker.pad,
    })


# As LLaVA 1.5's: a message's pictures first, then its texts; `generation` marks what an assistant said.
VICUNA = """{%- for message in messages -%}
{%- if message['role'] != 'system' -%}
{{ message['role'].upper() + ': ' }}
{%- endif -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}
{{ '<image>\\n' }}
{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}
{%- if message['role'] == 'assistant' -%}
{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}
{%- else -%}
{{ part['text'] + ' ' }}
{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT:' }}
{%- endif -%}"""
LLAVA_CHATS = [
    [user("landscape.png", "a cat?")],
    [user("그리고?", "portrait.png")],
    [said("system", "Say little."), user("sliver.png", "the fox")],
    [user("tall.png", "red?"), said("assistant", "It's blue."), user("and the dog?")],
    [user("wide.png", "two words on", "square.png")],
    [user("no picture")],
]


def llava_clip():
    """`LlavaForConditionalGeneration` as LLaVA 1.5: CLIP's last layer but one without the class token, then LLaMA."""
    from transformers import LlamaTokenizer, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    case = "llava-clip"
    vocabulary, merges = llama_vocabulary(40)
    tokenizer = LlamaTokenizer(
        vocab=vocabulary, merges=merges, add_bos_token=True, pad_token="<pad>", extra_special_tokens=["<image>"],
        model_max_length=256,
    )
    picture, pad = tokenizer.convert_tokens_to_ids(["<image>", "<pad>"])
    config = LlavaConfig(
        vision_config=dict(
            model_type="clip_vision_model", hidden_size=16, intermediate_size=24, num_hidden_layers=3,
            num_attention_heads=2, image_size=24, patch_size=8, projection_dim=12, hidden_act="quick_gelu",
        ),
        text_config=dict(
            model_type="llama", vocab_size=len(tokenizer) + 5, hidden_size=24, intermediate_size=36,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            rms_norm_eps=1e-5, pad_token_id=pad, bos_token_id=1, eos_token_id=2,
        ),
        image_token_index=picture, image_seq_length=9, pad_token_id=pad,
    )
    model = randomise(LlavaForConditionalGeneration(config), "llava-clip/25")
    speak_up(model.model.language_model, model.model.language_model.embed_tokens, [2], SPEECH)
    folder = case_folder(case)
    model.to(torch.float16).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
        tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=VICUNA,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    finish_onlooker(case, folder, LlavaForConditionalGeneration, LLAVA_CHATS, whole=0)


# ChatML in which pictures stand where the message has them, and a content may also be a plain string.
PICTURE_ML = """{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_start|>system\nLook well.<|im_end|>\n' }}
{%- endif -%}
{{ '<|im_start|>' ~ message['role'] ~ '\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{ '<image>\n' }}
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}"""


def llava_siglip():
    """`LlavaForConditionalGeneration` with SigLIP's last two layers side by side, then Qwen 2."""
    from tokenizers import Regex, pre_tokenizers
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    case = "llava-siglip"
    splitter = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    vocabulary, merges = byte_level_vocabulary(splitter, 60, last=specials)
    text_end, _, turn_end, picture = (vocabulary[special] for special in specials)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, unk_token=None, eos_token=specials[2], pad_token=specials[0],
        extra_special_tokens=specials[1:], model_max_length=256,
    )
    config = LlavaConfig(
        vision_config=dict(
            model_type="siglip_vision_model", hidden_size=12, intermediate_size=20, num_hidden_layers=3,
            num_attention_heads=2, image_size=18, patch_size=6,
        ),
        text_config=dict(
            model_type="qwen2", vocab_size=len(vocabulary) + 1, hidden_size=24, intermediate_size=36,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            tie_word_embeddings=True, pad_token_id=text_end, bos_token_id=text_end, eos_token_id=turn_end,
        ),
        image_token_index=picture, image_seq_length=9, vision_feature_select_strategy="full",
        vision_feature_layer=[-2, -1], projector_hidden_act="gelu_pytorch_tanh", multimodal_projector_bias=False,
    )
    model = randomise(LlavaForConditionalGeneration(config), "llava-siglip/4")
    speaking = model.model.language_model
    speak_up(speaking, speaking.embed_tokens, [turn_end], SPEECH | {"embed_tokens": 2})
    folder = case_folder(case)
    model.to(torch.float16).save_pretrained(folder)
    LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": 18, "width": 18}), tokenizer=tokenizer, patch_size=6,
        vision_feature_select_strategy="full", chat_template=PICTURE_ML,
    ).save_pretrained(folder)
    finish_onlooker(case, folder, LlavaForConditionalGeneration, LLAVA_CHATS, whole=0)


# As Idefics 3's: no blank before a picture that begins a message, and START once, before everything.
UTTERANCES = """{{ 'START' }}
{%- for message in messages -%}
{{ message['role'] | capitalize }}
{%- if message['content'][0]['type'] == 'image' -%}{{ ':' }}{%- else -%}{{ ': ' }}{%- endif -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{ part['text'] }}
{%- elif part['type'] == 'image' -%}
{{ '<image>' }}
{%- endif -%}
{%- endfor -%}
{{ '<end_of_utterance>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'Assistant:' }}
{%- endif -%}"""
IDEFICS_CHATS = [
    *LLAVA_CHATS[:4],
    [user("wide.png", "two words on", "tiny.png")],
    [user("no picture")],
]
# Tiles of 16 x 16, of 4 x 4 patches, four by four of which become one token: four tokens a tile.
TILES = {"size": {"longest_edge": 40}, "max_image_size": {"longest_edge": 16}}
TILE_TOKENS = 4
EYE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 4,
}
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def idefics3():
    """`Idefics3ForConditionalGeneration`: tiles and the whole, LLaMA 3's tokens, rows and columns in plain text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import (
        Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast,
    )
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    case = "idefics3"
    splitter = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    # So that `row`, `col` and two line ends are tokens, as in LLaMA 3's vocabulary.
    corpus = [*CORPUS, *["<row_1_col_2> row\n\n"] * 4]
    vocabulary, merges = byte_level_vocabulary(splitter, 60, last=specials, corpus=corpus)
    start, text_end, _, picture, turn_end = (vocabulary[special] for special in specials)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    backend.pre_tokenizer, backend.decoder = splitter, decoders.ByteLevel()
    backend.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single=f"{specials[0]} $A", pair=f"{specials[0]} $A {specials[0]}:1 $B:1",
            special_tokens=[(specials[0], start)],
        ),
    ])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=specials[0], eos_token=specials[4], pad_token=specials[1],
        extra_special_tokens=specials[2:4], model_max_length=1024,
    )
    config = Idefics3Config(
        vision_config=EYE,
        text_config=dict(
            model_type="llama", vocab_size=len(vocabulary), hidden_size=24, intermediate_size=36, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, rms_norm_eps=1e-5,
            pad_token_id=text_end, bos_token_id=start, eos_token_id=turn_end,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
        image_token_id=picture, scale_factor=2, pad_token_id=text_end,
    )
    model = randomise(Idefics3ForConditionalGeneration(config), "idefics3/7")
    speak_up(model.model.text_model, model.model.text_model.embed_tokens, [turn_end], SPEECH)
    folder = case_folder(case)
    model.to(torch.float16).save_pretrained(folder)
    Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(**TILES), tokenizer=tokenizer, image_seq_len=TILE_TOKENS,
        chat_template=UTTERANCES.replace("START", specials[0]),
    ).save_pretrained(folder)
    finish_onlooker(case, folder, Idefics3ForConditionalGeneration, IDEFICS_CHATS, pixels_of=[1, 4], unsplit=4)


def smolvlm():
    """`SmolVLMForConditionalGeneration`: the same tiles, each row and column a token, SmolLM2's tokens, tied output."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    case = "smolvlm"
    splitter = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    last = [
        "<global-img>", *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
        "<fake_token_around_image>", "<image>", "<end_of_utterance>",
    ]
    vocabulary, merges = byte_level_vocabulary(splitter, 60, first=first, last=last)
    picture, turn_end = vocabulary["<image>"], vocabulary["<end_of_utterance>"]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer, backend.decoder = splitter, decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=first[1], eos_token=last[-1], pad_token=first[2], unk_token=first[0],
        extra_special_tokens=last[:-1], model_max_length=1024,
    )
    config = SmolVLMConfig(
        vision_config=EYE,
        text_config=dict(
            model_type="llama", vocab_size=len(vocabulary), hidden_size=24, intermediate_size=36, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, rms_norm_eps=1e-5,
            pad_token_id=2, bos_token_id=1, eos_token_id=turn_end, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        ),
        image_token_id=picture, scale_factor=2, pad_token_id=2, tie_word_embeddings=True,
    )
    model = randomise(SmolVLMForConditionalGeneration(config), "smolvlm/2")
    speak_up(model.model.text_model, model.model.text_model.embed_tokens, [turn_end], SPEECH | {"embed_tokens": 2})
    folder = case_folder(case)
    model.to(torch.float16).save_pretrained(folder)
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessorPil(**TILES), tokenizer=tokenizer, video_processor=SmolVLMVideoProcessor(),
        image_seq_len=TILE_TOKENS, chat_template=UTTERANCES.replace("START", first[1]),
    ).save_pretrained(folder)
    finish_onlooker(case, folder, SmolVLMForConditionalGeneration, IDEFICS_CHATS, pixels_of=[1, 4], unsplit=4)
