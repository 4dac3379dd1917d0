"""One batch through the two contrastive losses: the loss, every gradient, and twenty steps of AdamW."""

import torch
from safetensors.torch import load_file

from common import EAGER, ROOT, case_folder, save_json, save_tensors

STEPS = 20
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.98), "eps": 1e-6}
WEIGHT_DECAY = 0.1
TEXT_ROWS = [0, 1, 2, 6]  # which of the case's texts go with its four pictures


def training_case(case: str, source: str, model_class) -> None:
    """Trains `source`'s model on its own four pictures; the weights stay in `source`'s folder."""
    expected = load_file(ROOT / source / "expected.safetensors")
    batch = {"pixel_values": expected["pixel_values"], "input_ids": expected["input_ids"][TEXT_ROWS]}
    if "attention_mask" in expected:
        batch["attention_mask"] = expected["attention_mask"][TEXT_ROWS]

    def start(dtype):
        model = model_class.from_pretrained(ROOT / source, **EAGER | {"dtype": dtype}).train()
        return model, batch | {"pixel_values": batch["pixel_values"].to(dtype)}

    model, inputs = start(torch.float32)
    model(**inputs, return_loss=True).loss.backward()
    gradients = dict(gradient_tensors(model, batch["input_ids"]))

    losses, model = run_steps(*start(torch.float32))
    exact_losses, exact_model = run_steps(*start(torch.float64))
    drift = max(abs(a - b) for a, b in zip(losses, exact_losses))
    print(f"  {case}: loss {losses[0]:.4f} to {losses[-1]:.4f}; f32 and f64 differ by at most {drift:.1e}")

    folder = case_folder(case)
    decayed, _ = parameter_groups(model)
    save_tensors(folder / "expected_gradients.safetensors", gradients)
    # Softmax does not see a key's bias: its gradient is rounding noise, which Adam turns into steps.
    small = {name: p for name, p in model.named_parameters() if p.numel() <= 16 and not name.endswith("k_proj.bias")}
    save_tensors(folder / "expected.safetensors", {
        "losses": torch.tensor(losses), "input_ids": batch["input_ids"],
    } | {f"trained.{name}": parameter for name, parameter in small.items()})
    exact = dict(exact_model.named_parameters())
    apart = max((parameter.double() - exact[name]).abs().max().item() for name, parameter in small.items())
    print(f"  {case}: after {STEPS} steps f32 and f64 parameters differ by at most {apart:.1e}")
    save_json(folder / "inputs.json", {
        "model": source, "text_rows": TEXT_ROWS, "steps": STEPS, "lr": ADAMW["lr"], "betas": ADAMW["betas"],
        "eps": ADAMW["eps"], "weight_decay": WEIGHT_DECAY, "largest_f32_f64_difference_of_losses": drift,
        "with_weight_decay": [name for name, _ in decayed],
    })


def gradient_tensors(model, input_ids):
    """Every gradient by name; of the token embedding only the rows that the batch uses, for size."""
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if name.endswith("token_embedding.weight"):
            rows = input_ids.unique()
            unused = torch.ones(len(gradient), dtype=torch.bool)
            unused[rows] = False
            assert gradient[unused].abs().max() == 0
            yield "token_rows", rows
            gradient = gradient[rows]
        yield name, gradient


def parameter_groups(model):
    """Weight decay for whatever has two dimensions or more; none for biases, norms, scales, single vectors."""
    named = list(model.named_parameters())
    return [pair for pair in named if pair[1].ndim >= 2], [pair for pair in named if pair[1].ndim < 2]


def run_steps(model, inputs):
    """The losses before each step and after the last one (STEPS + 1 numbers)."""
    decayed, plain = parameter_groups(model)
    optimizer = torch.optim.AdamW([
        {"params": [parameter for _, parameter in decayed], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for _, parameter in plain], "weight_decay": 0.0},
    ], **ADAMW)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**inputs, return_loss=True).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        losses.append(model(**inputs, return_loss=True).loss.item())
    return losses, model


def clip_training():
    """CLIP's loss: the mean of two cross-entropies over the similarity matrix."""
    from transformers import CLIPModel

    training_case("clip-training", "clip-laion", CLIPModel)


def siglip_training():
    """SigLIP's loss: log-sigmoid of every pair, summed over a row, averaged over rows."""
    from transformers import SiglipModel

    training_case("siglip-training", "siglip", SiglipModel)
