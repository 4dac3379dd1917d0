"""Causal language models as transformers saves them: tokens, logits, greedy and beam search, warpers, chats."""

import copy
import json
import unicodedata

import torch
from common import EAGER, TEXTS, case_folder, check_spread, noise, randomise, save_json, save_tensors
from vocabularies import byte_level_vocabulary, llama_vocabulary

PROMPTS = ["a fox", "고양이 두", unicodedata.normalize("NFD", "é") + " 한 42", " x 👍\n\n 's"]
LONG_PROMPTS = ["the two brown fox and a cat on the red chair left of it", " 고양이 두 마리"]  # for a sliding window
SHORT_TEXTS = TEXTS[:-1]  # the last one is long, and nothing cuts a text here
NEW_TOKENS = 24
BEAM_TOKENS = 16
BEAM = {"length_penalty": 1.0, "early_stopping": False}
BEAM_KINDS = {  # name: what is unlike BEAM
    "beam4": {}, "beam4_lp": {"length_penalty": 2.0}, "beam4_lp_negative": {"length_penalty": -0.5},
    "beam4_early": {"early_stopping": True}, "beam4_never": {"early_stopping": "never"},
}
END = -1  # what fills the rows of token tensors behind the end
WARPERS = {"temperature": 0.7, "top_k": 5, "top_p": 0.8, "min_p": 0.1}
WIDE_CHAIN = {"top_k": 12, "top_p": 0.95}  # where it is unlike WARPERS
REMOVED = -1e30  # a logit that a warper set to minus infinity


def rows_of_tokens(rows: list) -> torch.Tensor:
    """Lists of ids as one tensor, filled up with END."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[END] * (longest - len(row))] for row in rows])


def positions(mask: torch.Tensor) -> torch.Tensor:
    """The places as `generate` counts them: padding on the left counts for nothing, and stands at 0."""
    return (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)


class Speaker:
    """A checkpoint read back, and what `generate` makes of prompts."""

    def __init__(self, folder, model_class, tokenizer=None):
        from transformers import AutoTokenizer

        self.model = model_class.from_pretrained(folder, **EAGER).eval()
        self.tokenizer = tokenizer or AutoTokenizer.from_pretrained(folder)
        ends = self.model.generation_config.eos_token_id
        self.ends = ends if isinstance(ends, list) else [ends]
        self.pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.ends[0]
        self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.pad)

    def generate(self, inputs: dict, count: int, **options):
        return self.model.generate(
            **inputs, max_new_tokens=count, do_sample=False, pad_token_id=self.pad, return_dict_in_generate=True,
            output_logits=True, **options,
        )

    def new_tokens(self, inputs: dict, count: int, **options) -> list:
        """What is appended to a single prompt, with the token that ends it."""
        return self.generate(inputs, count, **options).sequences[0, inputs["input_ids"].shape[1] :].tolist()

    def encode(self, prompt: str) -> dict:
        return dict(self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False))

    def batch(self, prompts: list) -> dict:
        return dict(self.tokenizer(
            prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False
        ))

    def least_gap(self, inputs: dict, count: int) -> float:
        """How far apart the best two logits are where they are closest, along the greedy way."""
        best = torch.cat(self.generate(inputs, count).logits).topk(2).values
        return (best[:, 0] - best[:, 1]).min().item()


def cut(row: list, ends: list) -> list:
    """The row up to its first end token, that one included."""
    for place, token in enumerate(row):
        if token in ends:
            return row[: place + 1]
    return row


@torch.no_grad()
def language_reference(case: str, speaker: Speaker, prompts=PROMPTS) -> tuple[dict, dict]:
    """What the model makes of `prompts`: tensors for expected.safetensors, and fields for inputs.json."""
    batch = speaker.batch(prompts)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    logits = speaker.model(**batch, position_ids=positions(mask)).logits * mask.unsqueeze(-1)
    alone = [speaker.encode(prompt) for prompt in prompts]
    exact, drift = copy.copy(speaker), 0.0
    exact.model = copy.deepcopy(speaker.model).double()
    for row, inputs in zip(logits, alone):
        row = row[-inputs["input_ids"].shape[1] :]
        apart = (speaker.model(**inputs).logits[0] - row).abs().max().item()
        assert apart < 1e-4, f"{case}: a padded prompt's logits differ by {apart}"
        drift = max(drift, (exact.model(**inputs).logits[0] - row).abs().max().item())
    print(f"  {case}: logits of f32 and f64 differ by at most {drift:.1e}")
    check_spread(case, last_logits=logits[:, -1])

    greedy = [speaker.new_tokens(inputs, NEW_TOKENS) for inputs in alone]
    together = speaker.generate(batch, NEW_TOKENS).sequences[:, ids.shape[1] :]
    assert [cut(row, speaker.ends) for row in together.tolist()] == greedy, f"{case}: padding changes the greedy text"
    least = min(speaker.least_gap(inputs, NEW_TOKENS) for inputs in alone)
    kinds = [len(set(row)) for row in greedy]
    lengths = [len(row) for row in greedy]
    print(f"  {case}: greedy lengths {lengths}, different tokens {kinds}, least gap {least:.4f}")
    if least < 1e-3 or any(kind < 0.4 * length for kind, length in zip(kinds, lengths)) or min(lengths) < 5:
        raise SystemExit(f"{case}: a poor greedy text")

    found = {}
    for name, options in BEAM_KINDS.items():
        outputs, doubles = ([
            one.generate(inputs, BEAM_TOKENS, num_beams=4, output_scores=True, **BEAM | options) for inputs in alone
        ] for one in (speaker, exact))
        assert all(torch.equal(a.sequences, b.sequences) for a, b in zip(outputs, doubles)), f"{case}: {name} is a tie"
        rows = [
            cut(output.sequences[0, inputs["input_ids"].shape[1] :].tolist(), speaker.ends)
            for output, inputs in zip(outputs, alone)
        ]
        found[name] = rows_of_tokens(rows)
        found[f"{name}_scores"] = torch.cat([output.sequences_scores for output in outputs])
        print(f"  {case}: {name} lengths {[len(row) for row in rows]}")
    penalised = [speaker.new_tokens(inputs, NEW_TOKENS, repetition_penalty=1.3) for inputs in alone]
    penalised_together = speaker.generate(batch, NEW_TOKENS, repetition_penalty=1.3).sequences[:, ids.shape[1] :]
    assert [cut(row, speaker.ends) for row in penalised_together.tolist()] == penalised
    expected = {
        "input_ids": ids, "attention_mask": mask, "logits": logits,
        "greedy": rows_of_tokens(greedy), "greedy_batch": together,
        "greedy_penalty": rows_of_tokens(penalised), **found,
    }
    decode = speaker.tokenizer.decode
    about = {
        "prompts": prompts,
        "greedy_texts": [decode(row, skip_special_tokens=True) for row in greedy],
        "greedy_texts_with_specials": [decode(row) for row in greedy],
        "eos_token_ids": speaker.ends, "pad_token_id": speaker.pad,
    }
    return expected, about


@torch.no_grad()
def warped(rows: torch.Tensor) -> dict:
    """A row of logits behind each of the sampler's filters, and behind all of them in the order of `generate`.

    The row is the first one of which every filter of the wide chain takes something, doubled to be less even.
    """
    from transformers.generation.logits_process import (
        MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
    )

    kinds = {
        "temperature": TemperatureLogitsWarper, "top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }

    def chained(row, settings) -> list:
        behind = [row]
        for name, kind in kinds.items():
            behind.append(kind(settings[name])(None, behind[-1]))
        return behind

    def counts(results) -> list:
        return [result.isfinite().sum().item() for result in results]

    for row in 2 * rows[:, None]:
        chain, wide = chained(row, WARPERS), chained(row, WARPERS | WIDE_CHAIN)
        kept = counts(wide)
        if kept[2] > kept[3] > kept[4] > 1 and counts(chain)[3] > 1:
            break
    else:
        raise SystemExit("no row of logits of which every warper takes something")
    results = {"logits": row, **{name: kind(WARPERS[name])(None, row) for name, kind in kinds.items()}}
    print(f"  logits kept by warpers alone {counts(results.values())}, by chains {counts(chain)} and {kept}")
    results |= {"chain": chain[-1], "chain_wide": wide[-1]}
    return {f"warp_{name}": result[0].clamp(min=REMOVED) for name, result in results.items()}


def text_tokens(tokenizer) -> dict:
    """The tokens of the shared texts, one after the other, as the tokenizer gives them for one text at a time."""
    rows = [tokenizer(text)["input_ids"] for text in SHORT_TEXTS]
    return {"text_ids": torch.tensor(sum(rows, [])), "text_lengths": torch.tensor([len(row) for row in rows])}


def chat_reference(tokenizer, chats: list) -> tuple[dict, dict]:
    """What the chat template makes of `chats` without and with the start of an answer: tokens, and strings."""
    tokens, about = {}, {"chats": chats}
    for name, prompt in {"chat": False, "chat_prompt": True}.items():
        rendered = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt) for chat in chats]
        rows = [tokenizer.apply_chat_template(chat, add_generation_prompt=prompt)["input_ids"] for chat in chats]
        assert rows == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered]
        about[f"{name}_rendered"], tokens[f"{name}_ids"] = rendered, rows_of_tokens(rows)
    return tokens, about


def finish_language(case: str, folder, model_class, *, prompts=PROMPTS, chats=None, further=None) -> None:
    """Reads the checkpoint in `folder` back and writes what is expected of it; `further` gives more."""
    speaker = Speaker(folder, model_class)
    expected, about = language_reference(case, speaker, prompts)
    expected |= text_tokens(speaker.tokenizer)
    about["texts"] = SHORT_TEXTS
    if chats:
        tokens, fields = chat_reference(speaker.tokenizer, chats)
        expected, about = expected | tokens, about | fields
    if further:
        tensors, fields = further(speaker, expected)
        expected, about = expected | tensors, about | fields
    save_tensors(folder / "expected.safetensors", expected)
    save_json(folder / "inputs.json", about)


@torch.no_grad()
def speak_up(model, embedding, ends: list, factors: dict) -> None:
    """Makes end tokens likelier, and scales the linear layers whose names end so, lest a text repeats one token."""
    embedding.weight[ends] *= 2
    for name, module in model.named_modules():
        for ending, factor in factors.items():
            if name.endswith(ending):
                module.weight *= factor


def gpt2():
    """`GPT2LMHeadModel`: learned positions, gelu_new, Conv1D, tied output, GPT-2's byte-level BPE, no padding token."""
    from tokenizers import pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    vocabulary, merges = byte_level_vocabulary(
        pre_tokenizers.ByteLevel(add_prefix_space=False), 60, last=["<|endoftext|>"]
    )
    end = vocabulary["<|endoftext|>"]
    config = GPT2Config(
        vocab_size=len(vocabulary), n_embd=24, n_layer=2, n_head=3, n_positions=64, n_inner=48, bos_token_id=end,
        eos_token_id=end,
    )
    model = randomise(GPT2LMHeadModel(config), "gpt2/137")
    speak_up(model, model.transformer.wte, [end], {"c_attn": 1.5, "c_proj": 2})
    folder = case_folder("gpt2")
    model.to(torch.float16).save_pretrained(folder)
    GPT2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=64).save_pretrained(folder)

    def further(speaker, expected):
        about = {"warpers": WARPERS, "wide_chain": WARPERS | WIDE_CHAIN}
        return warped(expected["logits"][expected["attention_mask"] == 1]), about

    finish_language("gpt2", folder, GPT2LMHeadModel, further=further)


# Each message between marks, and a system message of the template's own where a chat begins without one.
CHAT_ML = """{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_start|>system\nSYSTEM<|im_end|>\n' }}
{%- endif -%}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}"""
CHATS = [
    [{"role": "user", "content": "3 cats & 42 dogs?"}],
    [{"role": "system", "content": "한국어로 짧게."}, {"role": "user", "content": "고양이?  "}],
    [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": " the red fox\n"},
        {"role": "user", "content": "<|im_end|> {{ x }} é"},
    ],
]
ROPE_LENGTH = 48
ROPE_PLACES = [20, 47]  # whose logits are kept
ROPES = {  # how config.json says it, and what else it says
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},  # as the oldest files do
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 32},
    "yarn": {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    },
    "longrope": {"rope_scaling": {
        "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.5], "long_factor": [1.0, 2.0, 3.5, 4.0],
        "original_max_position_embeddings": 32, "factor": 4.0,
    }},
}


@torch.no_grad()
def rope_reference(folder, ids: torch.Tensor) -> dict:
    """Logits of `ids` under every way of scaling rotary positions, with the weights in `folder`.

    Each way is written beside config.json as older hub files have it: `rope_theta` and `rope_scaling` apart. The greedy
    tokens start below the length where dynamic and longrope change their frequencies, and cross it: keys in
    the cache stay as they were turned.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    plain = json.loads((folder / "config.json").read_text())
    theta = plain.pop("rope_parameters")["rope_theta"]
    found = {}
    for kind, fields in ROPES.items():
        save_json(folder / f"rope_{kind}.json", plain | {"rope_theta": theta} | fields)
        config = LlamaConfig.from_json_file(folder / f"rope_{kind}.json")
        model = LlamaForCausalLM.from_pretrained(folder, config=config, **EAGER).eval()
        found[f"logits_rope_{kind}"] = model(ids[None]).logits[0, ROPE_PLACES]
        model = LlamaForCausalLM.from_pretrained(folder, config=config, **EAGER).eval()
        output = model.generate(
            ids[None, :28], max_new_tokens=12, do_sample=False, eos_token_id=None, return_dict_in_generate=True,
            output_logits=True,
        )
        best = torch.cat(output.logits).topk(2).values
        found[f"greedy_rope_{kind}"] = output.sequences[0, 28:]
        print(f"  rope {kind}: least gap {(best[:, 0] - best[:, 1]).min():.4f}, {output.sequences[0, 28:].tolist()}")
        if kind == "longrope":
            found["logits_rope_longrope_short"] = model(ids[None, :30]).logits[0, [29]]
    return found


def llama():
    """`LlamaForCausalLM` as SmolLM2 is: grouped keys, tied output, ChatML, digits apart; other rotary scalings."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    splitter = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary, merges = byte_level_vocabulary(splitter, 60, first=specials)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer, backend.decoder = splitter, decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=specials[1], eos_token=specials[2], pad_token=specials[2],
        unk_token=specials[0], model_max_length=128,
    )
    tokenizer.chat_template = CHAT_ML.replace("SYSTEM", "You are Dari, a small helper.")
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 100.0},
    )
    model = randomise(LlamaForCausalLM(config), "llama/23")
    speak_up(model, model.model.embed_tokens, [2], {
        "embed_tokens": 1.5, "o_proj": 2, "down_proj": 2.5, "q_proj": 1.5, "k_proj": 1.5,
    })
    folder = case_folder("llama")
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    def further(speaker, expected):
        order = noise("llama/rope", [len(vocabulary) - len(specials)]).argsort()
        ids = order[:ROPE_LENGTH] + len(specials)
        plain = speaker.model(ids[None]).logits[0, ROPE_PLACES]
        found = rope_reference(folder, ids)
        apart = {
            name: round((tensor - plain).abs().max().item(), 2) for name, tensor in found.items()
            if tensor.shape == plain.shape
        }
        print(f"  llama: how far a scaling moves a logit: {apart}")
        return {"rope_ids": ids, "logits_rope_none": plain, **found}, {"rope_places": ROPE_PLACES}

    finish_language("llama", folder, LlamaForCausalLM, chats=CHATS, further=torch.no_grad()(further))


# As LLaMA 2's: the system message inside the first instruction, turns between the tokens that begin and end a text.
INSTRUCTIONS = """{%- if messages[0]['role'] == 'system' -%}
{%- set system = '<<SYS>>\n' + messages[0]['content'] | trim + '\n<</SYS>>\n\n' -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('user and assistant must take turns') }}
{%- elif message.role == 'user' -%}
{{ bos_token ~ '[INST] ' ~ (system if loop.first else '') ~ message.content | trim ~ ' [/INST]' }}
{%- else -%}
{{ ' ' ~ message.content | trim ~ ' ' ~ eos_token }}
{%- endif -%}
{%- endfor -%}"""


def llama_rope3():
    """`LlamaForCausalLM` with LLaMA 3's rotary scaling, biases, a head width of its own, two end tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    vocabulary, merges = llama_vocabulary(40)
    vocabulary["<|eot_id|>"] = other_end = len(vocabulary)
    tokenizer = LlamaTokenizer(
        vocab=vocabulary, merges=merges, add_bos_token=True, extra_special_tokens=["<|eot_id|>"], model_max_length=256
    )
    tokenizer.chat_template = INSTRUCTIONS
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=12, max_position_embeddings=256, attention_bias=True, mlp_bias=True,
        bos_token_id=1, eos_token_id=[2, other_end], rope_parameters={
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        },
    )
    model = randomise(LlamaForCausalLM(config), "llama-rope3/42")
    speak_up(model, model.lm_head, [2, other_end], {
        "o_proj": 1.5, "down_proj": 2, "q_proj": 1.5, "k_proj": 1.5, "lm_head": 2,
    })
    folder = case_folder("llama-rope3")
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Of the six frequencies one stays, one lies between, the others are divided.
    plain = 500.0 ** -(torch.arange(0, 12, 2) / 12)
    print("  llama-rope3: frequencies over unscaled ones", (LlamaForCausalLM(config).model.rotary_emb.inv_freq / plain))
    finish_language("llama-rope3", folder, LlamaForCausalLM, chats=CHATS)


def spiece_like(vocabulary: dict, merges: list, **options):
    """A tokenizer.json as the hub has it for LLaMA 2 and Mistral: `▁` before every stretch between special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(
        vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    ))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **options
    )


def mistral():
    """`MistralForCausalLM`: each place sees itself and the seven before it; older tokenizer.json and config.json."""
    from transformers import MistralConfig, MistralForCausalLM

    vocabulary, merges = llama_vocabulary(40)
    tokenizer = spiece_like(vocabulary, merges, model_max_length=128)
    tokenizer.chat_template = INSTRUCTIONS
    config = MistralConfig(
        vocab_size=len(vocabulary), hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8, max_position_embeddings=128,
    )
    model = randomise(MistralForCausalLM(config), "mistral/22")
    speak_up(model, model.lm_head, [2], {
        "o_proj": 1.5, "down_proj": 2, "q_proj": 1.5, "k_proj": 1.5, "lm_head": 2,
    })
    folder = case_folder("mistral")
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # As old files are: nothing of rotary positions (theta is then 10000) or of the head's width.
    fields = json.loads((folder / "config.json").read_text())
    save_json(folder / "config.json", {
        name: value for name, value in fields.items() if name not in ("rope_parameters", "head_dim")
    })

    @torch.no_grad()
    def further(speaker, expected):
        ids = expected["input_ids"][:1]
        wide = MistralForCausalLM.from_pretrained(folder, sliding_window=None, **EAGER).eval()(ids).logits
        apart = (wide - expected["logits"][:1]).abs().amax(-1)[0]
        first = int((apart > 1e-3).nonzero()[0])
        print(f"  mistral: the window moves logits from place {first} on, the last by {apart[-1]:.2f}")
        return {}, {}

    finish_language("mistral", folder, MistralForCausalLM, prompts=LONG_PROMPTS, chats=CHATS, further=further)


def qwen2():
    """`Qwen2ForCausalLM`: biases on query, key and value, tied output of more rows than tokens, NFC, end tokens of
    generation_config.json's own."""
    from tokenizers import Regex, pre_tokenizers
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    splitter = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary, merges = byte_level_vocabulary(splitter, 60, last=specials)
    text_end, _, turn_end = (vocabulary[special] for special in specials)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, unk_token=None, eos_token=specials[2], pad_token=specials[0],
        extra_special_tokens=specials[1:], model_max_length=128,
    )
    tokenizer.chat_template = CHAT_ML.replace("SYSTEM", "You answer in few words.")
    config = Qwen2Config(
        vocab_size=len(vocabulary) + 5, hidden_size=32, intermediate_size=36, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
        use_sliding_window=False, bos_token_id=text_end, eos_token_id=turn_end,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )
    model = randomise(Qwen2ForCausalLM(config), "qwen2/28")
    speak_up(model, model.model.embed_tokens, [turn_end, text_end], {
        "embed_tokens": 1.5, "o_proj": 2, "down_proj": 2.5, "q_proj": 1.5, "k_proj": 1.5,
    })
    model.generation_config.update(
        eos_token_id=[turn_end, text_end], pad_token_id=text_end, do_sample=True, temperature=0.7, top_k=20, top_p=0.8
    )
    folder = case_folder("qwen2")
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    finish_language("qwen2", folder, Qwen2ForCausalLM, chats=CHATS)
