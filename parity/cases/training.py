"""One batch through a loss: the loss, every gradient, and some steps of AdamW."""

import copy
import math

import torch
from safetensors.torch import load_file

from common import EAGER, ROOT, case_folder, save_json, save_tensors

STEPS = 20
# Of the two oldest cases.
MORE_STEPS = {"clip-training": 50, "siglip-training": 50}
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.98), "eps": 1e-6}
WEIGHT_DECAY = 0.1
TEXT_ROWS = [0, 1, 2, 6]  # which of the case's texts go with its four pictures
PICTURE_INPUTS = ["pixel_values", "pixel_attention_mask", "spatial_shapes"]  # those that the model's family has
TEXT_INPUTS = ["input_ids", "attention_mask"]
RUNNING = ("running_mean", "running_var")


def training_case(case: str, source: str, model_class) -> None:
    """Trains `source`'s model on its own first four pictures; the weights stay in `source`'s folder."""
    expected = load_file(ROOT / source / "expected.safetensors")
    batch = {name: expected[name][: len(TEXT_ROWS)] for name in PICTURE_INPUTS if name in expected}
    batch |= {name: expected[name][TEXT_ROWS] for name in TEXT_INPUTS if name in expected}

    def start(dtype):
        model = model_class.from_pretrained(ROOT / source, **EAGER | {"dtype": dtype}).train()
        return model, batch | {"pixel_values": batch["pixel_values"].to(dtype)}

    def loss_of(model, inputs):
        return model(**inputs, return_loss=True).loss

    record(
        case, start, loss_of, {"model": source, "text_rows": TEXT_ROWS}, {"input_ids": batch["input_ids"]},
        input_ids=batch["input_ids"], steps=MORE_STEPS.get(case, STEPS),
    )


def record(
    case: str, start, loss_of, about: dict, tensors: dict, *, steps: int = STEPS, small: int = 16, input_ids=None,
    names=None, most_of_a_gradient=None, after=None,
) -> None:
    """Writes a case: `start(dtype)` gives a fresh model and its inputs, `loss_of(model, inputs)` the loss.

    `about` goes into inputs.json and `tensors` into expected.safetensors. Parameters of at most `small` numbers are
    written as they are after the steps, and the running statistics of batch norms. `names` tells a parameter's name
    in the file where the library's own is another. A gradient of more than `most_of_a_gradient` numbers is
    written in part. `after(model, inputs)` gives further tensors, computed after the steps.
    """
    names = names or {}
    model, inputs = start(torch.float32)
    loss_of(model, inputs).backward()
    gradients = dict(gradient_tensors(model, input_ids))
    gradients = {names.get(name, name): gradient for name, gradient in gradients.items()}
    steps_of_rows = thin_out(gradients, most_of_a_gradient) if most_of_a_gradient else {}

    losses, model = run_steps(*start(torch.float32), loss_of, steps)
    exact_losses, exact_model = run_steps(*start(torch.float64), loss_of, steps)
    drift = max(abs(a - b) for a, b in zip(losses, exact_losses))
    print(f"  {case}: loss {losses[0]:.4f} to {losses[-1]:.4f}; f32 and f64 differ by at most {drift:.1e}")

    folder = case_folder(case)
    decayed, _ = parameter_groups(model)
    save_tensors(folder / "expected_gradients.safetensors", gradients)
    # Softmax does not see a key's bias: its gradient is rounding noise, which Adam turns into steps.
    kept = {
        name: p for name, p in trainable(model)
        if p.numel() <= small and not name.endswith(("k_proj.bias", "key.bias"))
    }
    kept |= {name: buffer for name, buffer in model.named_buffers() if name.endswith(RUNNING)}
    further = after(model, inputs) if after else {}
    save_tensors(folder / "expected.safetensors", {
        "losses": torch.tensor(losses), **tensors, **further,
    } | {f"trained.{names.get(name, name)}": tensor for name, tensor in kept.items()})
    exact = dict(exact_model.named_parameters()) | dict(exact_model.named_buffers())
    apart = max((tensor.double() - exact[name]).abs().max().item() for name, tensor in kept.items())
    print(f"  {case}: after {steps} steps f32 and f64 parameters differ by at most {apart:.1e}")
    about = about | {
        "steps": steps, "lr": ADAMW["lr"], "betas": ADAMW["betas"],
        "eps": ADAMW["eps"], "weight_decay": WEIGHT_DECAY, "largest_f32_f64_difference_of_losses": drift,
        "with_weight_decay": [names.get(name, name) for name, _ in decayed],
    }
    save_json(folder / "inputs.json", about | ({"gradient_row_steps": steps_of_rows} if steps_of_rows else {}))


def gradient_tensors(model, input_ids):
    """Every gradient by name; of the token embedding only the rows that the batch uses, for size."""
    for name, parameter in trainable(model):
        gradient = parameter.grad
        if name.endswith("token_embedding.weight"):
            rows = input_ids.unique()
            unused = torch.ones(len(gradient), dtype=torch.bool)
            unused[rows] = False
            assert gradient[unused].abs().max() == 0
            yield "token_rows", rows
            gradient = gradient[rows]
        yield name, gradient


def thin_out(gradients: dict, most: int) -> dict:
    """Of a gradient of more than `most` numbers, only every nth row, and the norm of the whole as `norm.NAME`."""
    steps = {}
    for name, gradient in list(gradients.items()):
        if gradient.numel() > most:
            steps[name] = math.ceil(gradient.numel() / most)
            gradients[f"norm.{name}"] = gradient.double().norm().float()
            gradients[name] = gradient[:: steps[name]]
    return steps


def trainable(model) -> list:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def parameter_groups(model):
    """Weight decay for whatever has two dimensions or more; none for biases, norms, scales, single vectors."""
    named = trainable(model)
    return [pair for pair in named if pair[1].ndim >= 2], [pair for pair in named if pair[1].ndim < 2]


def run_steps(model, inputs, loss_of, steps: int):
    """The losses before each step and after the last one (`steps` + 1 numbers), and the model after the last step."""
    decayed, plain = parameter_groups(model)
    optimizer = torch.optim.AdamW([
        {"params": [parameter for _, parameter in decayed], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for _, parameter in plain], "weight_decay": 0.0},
    ], **ADAMW)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, inputs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        # A copy, so that no batch norm counts this batch as one more step.
        losses.append(loss_of(copy.deepcopy(model), inputs).item())
    return losses, model


def clip_training():
    """CLIP's loss: the mean of two cross-entropies over the similarity matrix."""
    from transformers import CLIPModel

    training_case("clip-training", "clip-laion", CLIPModel)


def siglip_training():
    """SigLIP's loss: log-sigmoid of every pair, summed over a row, averaged over rows."""
    from transformers import SiglipModel

    training_case("siglip-training", "siglip", SiglipModel)


def siglip2_naflex_training():
    """SigLIP's loss where each picture has a shape of its own: gradients through resized positions and padding."""
    from transformers import Siglip2Model

    training_case("siglip2-naflex-training", "siglip2-naflex", Siglip2Model)


def clip_resnet_training():
    """CLIP's loss for a ModifiedResNet whose batch norms are in training mode."""
    import open_clip

    source = "clip-resnet-openai"
    expected = load_file(ROOT / source / "expected.safetensors")
    pixels, ids = expected["pixel_values"], expected["input_ids"][TEXT_ROWS]
    loss = open_clip.ClipLoss()

    def start(dtype):
        model = open_clip.create_model(f"local-dir:{ROOT / source}", precision="fp32").to(dtype).train()
        return model, {"image": pixels.to(dtype), "text": ids}

    def loss_of(model, inputs):
        return loss(*model(**inputs))

    @torch.no_grad()
    def after(model, inputs):
        return {"trained_image_embeddings": copy.deepcopy(model).eval().encode_image(inputs["image"], normalize=True)}

    record(
        "clip-resnet-training", start, loss_of, {"model": source, "text_rows": TEXT_ROWS}, {"input_ids": ids},
        input_ids=ids, most_of_a_gradient=2048, after=after,
    )


CLASSIFIER_STEPS = 10
SMOOTHING = 0.1
CLASSES = [2, 0, 4, 1]  # the four pictures' labels; they say nothing of what is seen


def classifier_training():
    """Cross-entropy with smoothed labels: the classifiers of the cases vit and resnet, batch norms in training mode."""
    from transformers import ResNetForImageClassification, ViTForImageClassification

    labels = torch.tensor(CLASSES)
    plain, smoothed = torch.nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)

    def loss_of(model, inputs):
        return smoothed(model(inputs["pixel_values"]).logits, labels)

    @torch.no_grad()
    def after(model, inputs):
        return {"trained_logits": copy.deepcopy(model).eval()(inputs["pixel_values"]).logits}

    for source, model_class in {"vit": ViTForImageClassification, "resnet": ResNetForImageClassification}.items():
        pixels = load_file(ROOT / source / "expected.safetensors")["pixel_values"]

        def start(dtype):
            model = model_class.from_pretrained(ROOT / source, **EAGER | {"dtype": dtype}).train()
            return model, {"pixel_values": pixels.to(dtype)}

        model, inputs = start(torch.float32)
        with torch.no_grad():
            first = plain(model(**inputs).logits, labels)
        record(
            f"classifier-training/{source}", start, loss_of,
            {"model": source, "labels": CLASSES, "label_smoothing": SMOOTHING},
            {"labels": labels, "first_loss_without_smoothing": first}, steps=CLASSIFIER_STEPS, small=40,
            names=saved_names(start(torch.float32)[0], ROOT / source / "model.safetensors"), after=after,
        )


def saved_names(model, file) -> dict:
    """What each parameter is called in the file, found by its numbers: transformers 5 renames ViT's in memory."""
    stored = {name: tensor.float() for name, tensor in load_file(file).items()}
    names = {}
    for name, parameter in model.named_parameters():
        [names[name]] = [
            other for other, tensor in stored.items()
            if tensor.shape == parameter.shape and torch.equal(tensor, parameter.detach())
        ]
    return names
