"""ResNet as transformers, timm and torchvision save it."""

import torch
from common import (
    EAGER, PICTURES, case_folder, check_spread, load_pictures, randomise, save_json, save_tensors,
)

LABELS = ["cat", "dog", "Siamese cat, Siamese", "고양이", "tabby", "red fox", "boat"]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def convnext_processor(**options):
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    return ConvNextImageProcessorPil(**options)


@torch.no_grad()
def resnet():
    """ResNetForImageClassification with bottlenecks, as microsoft/resnet-50 is."""
    from transformers import ResNetConfig, ResNetForImageClassification

    labels = dict(enumerate(LABELS))
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 32, 48, 64], depths=[1, 2, 1, 1], layer_type="bottleneck",
        hidden_act="relu", downsample_in_first_stage=False,
        id2label=labels, label2id={name: number for number, name in labels.items()},
    )
    folder = case_folder("resnet")
    randomise(ResNetForImageClassification(config), "resnet").to(torch.float16).save_pretrained(folder)
    # The shorter edge goes to int(33 / 0.875) = 37; the rests to be cropped are even and odd.
    processor = convnext_processor(size={"shortest_edge": 33}, crop_pct=0.875, resample=3, **IMAGENET)
    processor.save_pretrained(folder)
    # What microsoft/resnet-50 itself has: a size that is a number, and the old class's name.
    old = {
        "crop_pct": 0.875, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "ConvNextFeatureExtractor", "resample": 3, "size": 33, **IMAGENET,
    }
    save_json(folder / "preprocessor_old.json", old)
    model = ResNetForImageClassification.from_pretrained(folder, **EAGER).eval()
    pixels = processor(load_pictures(), return_tensors="pt")["pixel_values"].float()
    same = type(processor).from_dict(old)(load_pictures(), return_tensors="pt")["pixel_values"].float()
    assert torch.equal(pixels, same)
    features = model.resnet(pixels)
    logits = model(pixels).logits
    check_spread("resnet", pooled=features.pooler_output.flatten(1), logits=logits)
    save_tensors(folder / "expected.safetensors", {
        "pixel_values": pixels, "last_hidden_state": features.last_hidden_state,
        "pooled": features.pooler_output.flatten(1), "logits": logits, "probabilities": logits.softmax(-1),
    })
    save_json(folder / "inputs.json", {"pictures": PICTURES})


@torch.no_grad()
def resnet_basic():
    """ResNetModel with basic layers, three stages, and a stride in the first one too; no labels."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 20], depths=[1, 2, 1], layer_type="basic", hidden_act="relu",
        downsample_in_first_stage=True,
    )
    folder = case_folder("resnet-basic")
    randomise(ResNetModel(config), "resnet-basic").to(torch.float16).save_pretrained(folder)
    processor = convnext_processor(size={"shortest_edge": 33}, crop_pct=0.9, resample=2)
    processor.save_pretrained(folder)
    model = ResNetModel.from_pretrained(folder, **EAGER).eval()
    pixels = processor(load_pictures(), return_tensors="pt")["pixel_values"].float()
    features = model(pixels)
    pooled = features.pooler_output.flatten(1)
    check_spread("resnet-basic", pooled=pooled)
    save_tensors(folder / "expected.safetensors", {
        "pixel_values": pixels, "last_hidden_state": features.last_hidden_state, "pooled": pooled,
    })
    save_json(folder / "inputs.json", {"pictures": PICTURES})


def let_differences_count(net):
    """Behind a ReLU all is positive, so random kernels mostly see the mean: take each kernel's own mean away."""
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight -= module.weight.double().mean(dim=(1, 2, 3), keepdim=True).float()
    return net


@torch.no_grad()
def resnet_timm():
    """timm's ResNet in its hub layout: config.json names an architecture, and how pictures are prepared."""
    import timm

    case = "resnet-timm"
    # timm's plain stem is 64 wide, whatever the rest is.
    net = timm.create_model("resnet50", layers=[1, 2, 1, 1], channels=[4, 8, 16, 32], num_classes=len(LABELS))
    folder = case_folder(case)
    # Mean, deviation and filter are not timm's defaults; floor(33 / 0.9) = 36 leaves an odd rest.
    prepared = {
        "input_size": (3, 33, 33), "crop_pct": 0.9, "interpolation": "bilinear",
        "mean": (0.5, 0.4, 0.45), "std": (0.5, 0.55, 0.6),
    }
    let_differences_count(randomise(net, case)).to(torch.float16)
    timm.models.save_for_hf(
        net, folder, safe_serialization=True, data_config=prepared,
        model_config={"label_names": LABELS, "label_descriptions": {name: f"a {name}" for name in LABELS[:2]}},
    )
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).float().eval()
    settings = timm.data.resolve_model_data_config(net)
    assert settings["input_size"] == (3, 33, 33), settings
    transform = timm.data.create_transform(**settings, is_training=False)
    pixels = torch.stack([transform(picture) for picture in load_pictures()])
    features = net.forward_features(pixels)
    logits = net(pixels)
    pooled = net.forward_head(features, pre_logits=True)
    check_spread(case, pooled=pooled, logits=logits)
    save_tensors(folder / "expected.safetensors", {
        "pixel_values": pixels, "last_hidden_state": features, "pooled": pooled, "logits": logits,
        "probabilities": logits.softmax(-1),
    })
    save_json(folder / "inputs.json", {"pictures": PICTURES})


def small_torchvision_net(classes: int):
    """torchvision's ResNet with its own blocks and forward, but narrow: its constructor knows only wide ones."""
    from torchvision.models.resnet import BasicBlock, ResNet

    net = ResNet(BasicBlock, [1, 1, 1, 1])
    net.inplanes = 8
    net.conv1 = torch.nn.Conv2d(3, 8, kernel_size=7, stride=2, padding=3, bias=False)
    net.bn1 = torch.nn.BatchNorm2d(8)
    for stage, (width, depth) in enumerate([(8, 1), (8, 2), (12, 1), (16, 2)]):
        made = net._make_layer(BasicBlock, width, depth, stride=1 if stage == 0 else 2)
        setattr(net, f"layer{stage + 1}", made)
    net.fc = torch.nn.Linear(16, classes)
    return net


@torch.no_grad()
def resnet_torchvision():
    """torchvision's ResNet as a state dict alone: what the net is, its tensors' names and shapes must say."""
    from safetensors.torch import load_file, save_file
    from torchvision.transforms._presets import ImageClassification

    case = "resnet-torchvision"
    folder = case_folder(case)
    save_file(randomise(small_torchvision_net(5), case).state_dict(), folder / "model.safetensors")
    net = small_torchvision_net(5)
    net.load_state_dict(load_file(folder / "model.safetensors"))
    net.eval()
    read_pooled = []
    net.avgpool.register_forward_hook(lambda module, inputs, output: read_pooled.append((inputs[0], output.flatten(1))))
    # IMAGENET1K_V1's recipe (256 to 224, bilinear) at a small size, and at its own without the pixels.
    pixels = torch.stack(list(map(ImageClassification(crop_size=33, resize_size=38), load_pictures())))
    logits = net(pixels)
    full = torch.stack(list(map(ImageClassification(crop_size=224), load_pictures())))
    full_logits = net(full)
    (features, pooled), (_, full_pooled) = read_pooled
    check_spread(case, pooled=pooled, logits=logits, full_logits=full_logits)
    save_tensors(folder / "expected.safetensors", {
        "pixel_values": pixels, "last_hidden_state": features, "pooled": pooled, "logits": logits,
        "probabilities": logits.softmax(-1), "pooled_224": full_pooled, "logits_224": full_logits,
    })
    save_json(folder / "inputs.json", {"pictures": PICTURES})
