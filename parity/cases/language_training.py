"""Training what speaks: a language model whole, a low-rank adapter beside it, and LLaVA's bridge alone."""

import copy
import json

import torch
from common import EAGER, ROOT, noise, save_json
from safetensors.torch import load_file

from cases import vlm
from cases.training import record

IGNORED = -100  # a label that no loss counts
LINES = ["the red fox", "고양이 두 마리", "3 cats & 42 dogs"]
UNLABELLED = 2  # how many tokens at the beginning of the last line have no label


def loss_of(model, inputs):
    """Cross-entropy of every labelled token given those before it: the mean over all of the batch together."""
    return model(**inputs).loss


def lines_of(tokenizer, end: int, pad: int) -> dict:
    """The lines, each with the end token behind it, padded on the right; labels everywhere but at padding."""
    rows = [[*tokenizer(line)["input_ids"], end] for line in LINES]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[-1, :UNLABELLED] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def whole_model(case: str, source: str, model_class, end: int, pad: int, small: int, **options) -> None:
    from transformers import AutoTokenizer

    inputs = lines_of(AutoTokenizer.from_pretrained(ROOT / source), end, pad)

    def start(dtype):
        return model_class.from_pretrained(ROOT / source, **EAGER | {"dtype": dtype}, **options).train(), inputs

    record(
        case, start, loss_of, {"model": source, "lines": LINES}, inputs, small=small, most_of_a_gradient=2048,
    )


def llama_training():
    """Every parameter of `llama`: the tied matrix gets gradients from both of its uses."""
    from transformers import LlamaForCausalLM

    whole_model("llama-training", "llama", LlamaForCausalLM, end=2, pad=2, small=32)


def gpt2_training():
    """Every parameter of `gpt2`, dropout off."""
    from transformers import GPT2LMHeadModel

    end = 316
    whole_model(
        "gpt2-training", "gpt2", GPT2LMHeadModel, end=end, pad=end, small=24,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )


def llama_lora():
    """A low-rank adapter for `llama` as PEFT saves it: what it computes, what it is once merged, and its training."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoTokenizer, LlamaForCausalLM

    case, source = "llama-lora", ROOT / "llama"
    settings = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    adapter = get_peft_model(LlamaForCausalLM.from_pretrained(source, **EAGER), settings)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "lora_" in name:
                parameter.copy_(noise(f"{case}/{name}", parameter.shape) * (0.25 if "lora_A" in name else 0.15))

    tokenizer = AutoTokenizer.from_pretrained(source)
    inputs = lines_of(tokenizer, end=2, pad=2)
    weights = {name: parameter.detach().clone() for name, parameter in adapter.named_parameters() if "lora_" in name}

    def start(dtype):
        model = get_peft_model(
            LlamaForCausalLM.from_pretrained(source, **EAGER | {"dtype": dtype}), copy.deepcopy(settings),
            autocast_adapter_dtype=False,
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        return model.to(dtype).train(), inputs

    names = {name: name.replace(".default.", ".") for name in weights}
    with torch.no_grad():
        plain = LlamaForCausalLM.from_pretrained(source, **EAGER).eval()
        ids = inputs["input_ids"][:1]
        logits = adapter.eval()(ids).logits[0]
        apart = (logits - plain(ids).logits[0]).abs().max().item()
        merged = copy.deepcopy(adapter).merge_and_unload()
        assert (merged(ids).logits[0] - logits).abs().max() < 1e-4
        kept = {
            f"merged.{name}": tensor for name, tensor in merged.state_dict().items()
            if name.endswith(("layers.0.self_attn.q_proj.weight", "layers.0.self_attn.v_proj.weight"))
        }
    print(f"  {case}: the adapter moves a logit by up to {apart:.2f}")
    record(
        case, start, loss_of, {"model": "llama", "lines": LINES}, inputs | {"logits": logits, **kept}, small=128,
        names=names,
    )
    folder = ROOT / case
    adapter.save_pretrained(folder)
    (folder / "README.md").unlink()
    fields = json.loads((folder / "adapter_config.json").read_text())
    save_json(folder / "adapter_config.json", fields | {
        "base_model_name_or_path": "../llama", "target_modules": sorted(fields["target_modules"]),
    })
    again = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(source, **EAGER), folder).eval()
    with torch.no_grad():
        assert torch.equal(again(ids).logits[0], logits)
    assert set(load_file(folder / "adapter_model.safetensors")) == set(names.values())


ANSWERS = {0: "a red circle", 1: "고양이", 4: "two words in one line"}  # to these of llava-clip's chats


def llava_training():
    """LLaVA's bridge alone, all else as it is: three chats of unequal length, labels on the answers."""
    from transformers import LlavaForConditionalGeneration

    case, source = "llava-training", ROOT / "llava-clip"
    onlooker = vlm.Onlooker(source, LlavaForConditionalGeneration)
    questions = [vlm.LLAVA_CHATS[number] for number in ANSWERS]
    rendered = [onlooker.render(chat) for chat in questions]
    texts = [f"{question} {answer}</s>" for question, answer in zip(rendered, ANSWERS.values())]
    inputs = dict(onlooker.processor(
        text=texts, images=[vlm.pictures_of(chat) for chat in questions], padding=True, padding_side="right",
        return_tensors="pt",
    ))
    inputs.pop("token_type_ids", None)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
    for row, chat in enumerate(questions):
        asked = onlooker.inputs_of([chat])["input_ids"][0]
        assert torch.equal(inputs["input_ids"][row, : len(asked)], asked)
        labels[row, : len(asked)] = IGNORED
    inputs["labels"] = labels

    def start(dtype):
        model = LlavaForConditionalGeneration.from_pretrained(source, **EAGER | {"dtype": dtype}).train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("multi_modal_projector" in name)
        return model, inputs | {"pixel_values": inputs["pixel_values"].to(dtype)}

    names = {
        name: name.removeprefix("model.") for name, _ in onlooker.model.named_parameters() if "multi_modal" in name
    }
    record(
        case, start, loss_of, {"model": "llava-clip", "chats": list(ANSWERS), "texts": texts},
        {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}, small=600, names=names,
    )
