"""Build equal detectors of this package and of torchvision, with weights that give about a hundred detections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops.misc import FrozenBatchNorm2d as TheirFrozenBatchNorm2d

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.detector import build_detection_model

CONFIGS = Path(__file__).parent.parent / "configs"
CLASSES = 80  # classes of COCO, for both packages
CANDIDATES = 400  # (location, class) pairs per image above the score threshold

# name: our config, torchvision's function and its num_classes
PAIRS = {
    "fcos": ("fcos/fcos_R_50_FPN_1x.yaml", detection.fcos_resnet50_fpn, CLASSES),
    "faster": ("e2e_faster_rcnn_R_50_FPN_1x.yaml", detection.fasterrcnn_resnet50_fpn, CLASSES + 1),
    "mask": ("e2e_mask_rcnn_R_50_FPN_1x.yaml", detection.maskrcnn_resnet50_fpn, CLASSES + 1),
}


def config(file: str, *options):
    cfg = defaults.clone()
    cfg.merge_from_file(str(CONFIGS / file))
    cfg.merge_from_list(list(options))
    return cfg


def ours(file: str, *options) -> nn.Module:
    return build_detection_model(config(file, *options))


def theirs(name: str) -> nn.Module:
    """Build torchvision's detector with frozen norms and frozen first stages, as with pretrained weights."""
    _, build, num_classes = PAIRS[name]
    model = build(weights=None, weights_backbone=None, num_classes=num_classes)
    body = model.backbone.body
    for module in list(body.modules()):
        for child_name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, child_name, TheirFrozenBatchNorm2d(child.num_features))
    for part in (body.conv1, body.layer1):
        part.requires_grad_(False)
    return model


@torch.no_grad()
def settle(model: nn.Module, run: Callable[[], object]) -> None:
    """Set the statistics of frozen norms to those of their inputs in `run()`.

    As with trained weights, activations then neither grow nor vanish from layer to layer.
    """

    def normalise(norm, inputs):
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    frozen = (FrozenBatchNorm2d, TheirFrozenBatchNorm2d)
    hooks = [norm.register_forward_pre_hook(normalise) for norm in model.modules() if isinstance(norm, frozen)]
    run()
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def find_objects(model: nn.Module, run: Callable[[], object], scores: str, probability: float) -> None:
    """Change the layer of class logits so that CANDIDATES of its outputs for one image exceed `probability`.

    Args:
        model: model in eval mode.
        run: function that predicts one image with the model.
        scores: name of the layer. Its outputs are (R, K) for a softmax with the background first, or (N, K, H, W) for
            sigmoids.
        probability: probability to exceed.
    """
    outputs: list[Tensor] = []
    layer = model.get_submodule(scores)
    hook = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    run()
    hook.remove()
    if isinstance(layer, nn.Linear):
        centred = outputs[0] - layer.bias
        factor = 2 / centred.std()
        layer.weight.mul_(factor)
        layer.bias.zero_()
        logits, low, high = centred * factor, 0.0, 50.0
        for _ in range(40):
            layer.bias[0] = (low + high) / 2
            found = ((logits + layer.bias).softmax(1)[:, 1:] > probability).sum()
            low, high = (layer.bias[0].item(), high) if found > CANDIDATES else (low, layer.bias[0].item())
    else:
        flat = torch.cat([(output - layer.bias[:, None, None]).flatten() for output in outputs])
        factor = 2 / flat.std()
        layer.weight.mul_(factor)
        last = flat.topk(CANDIDATES + 1).values[-1] * factor
        layer.bias.fill_(torch.logit(torch.tensor(probability)) - last)
