"""Test frozen norms folded into convolutions: equal outputs, gradients, parameters and keys."""

import copy

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.fast.for_training import AppliedNorm, NormedConv2d, for_training, plain_layers
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.detector import build_detection_model


def with_random_statistics(model):
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return model


def layers(dtype=torch.float32):
    model = nn.Sequential(Conv2d(8, 8, 3, bias=False), FrozenBatchNorm2d(8), nn.ReLU(inplace=True), Conv2d(8, 4, 1))
    return with_random_statistics(model).to(dtype)


def test_results_and_gradients_equal_the_plain_layers(rng_seed):
    model = layers(torch.float64)
    converted = for_training(copy.deepcopy(model))
    assert [type(layer) for layer in converted[:2]] == [NormedConv2d, AppliedNorm]
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64, requires_grad=True)
    result, expected = converted(x), model(x)
    torch.testing.assert_close(result, expected)
    direction = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(result, (x, *converted.parameters()), direction),
        torch.autograd.grad(expected, (x, *model.parameters()), direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        assert torch.equal(converted(x), model(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_every_dtype_is_kept(rng_seed, dtype):
    model = layers()
    model[0], model[3] = model[0].to(dtype), model[3].to(dtype)
    x = torch.randn(2, 8, 9, 7).to(dtype)
    expected = model(x)
    result = for_training(model)(x)
    assert result.dtype == dtype
    assert (result - expected).abs().max() <= 2e-2 * expected.abs().max()


@pytest.mark.parametrize("body", ["R-50-FPN", "V-27-FPN"])
def test_keys_parameters_and_buffers_are_unchanged(body):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", body, "MODEL.RPN_ONLY", True, "MODEL.RPN.USE_FPN", True])
    cfg.merge_from_list(["MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64)])
    model = build_detection_model(cfg)
    keys, parameters = list(model.state_dict()), dict(model.named_parameters())
    for_training(for_training(model))
    assert sum(type(module) is NormedConv2d for module in model.modules()) > 10
    assert list(model.state_dict()) == keys
    assert {name: id(value) for name, value in model.named_parameters()} == {
        name: id(value) for name, value in parameters.items()
    }
    plain_layers(model)
    assert list(model.state_dict()) == keys
    assert not any(type(module) in (NormedConv2d, AppliedNorm) for module in model.modules())


def test_a_copy_of_a_converted_model_is_independent(rng_seed):
    model = for_training(layers())
    copied = copy.deepcopy(model)
    assert copied[0].norm_behind[0] is copied[1] and copied[1] is not model[1]
    copied[1].bias.add_(1)
    x = torch.randn(1, 8, 5, 5)
    assert not torch.equal(copied(x), model(x))


def test_layers_with_hooks_and_other_norms_are_unchanged(rng_seed):
    model = nn.Sequential(*layers()[:2], Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
    model[1].register_forward_hook(lambda *_: None)
    kinds = [type(layer) for layer in model]
    for_training(model)
    assert [type(layer) for layer in model] == kinds


def test_inference_of_a_converted_model_equals_the_plain_one(rng_seed):
    model, x = layers(), torch.randn(1, 8, 9, 9)
    plain = for_inference(model)
    converted = for_inference(for_training(model))
    with torch.inference_mode():
        assert torch.equal(plain(x), converted(x))
