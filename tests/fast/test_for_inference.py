"""Test the copy for inference: equal outputs, and no batch norms."""

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.fast.norms import NORMS, fold
from maskrcnn_benchmark.fast.winograd_conv import WinogradConv2d
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.layers.winograd import suits
from maskrcnn_benchmark.modeling import backbone as _  # noqa: F401  fills the registry
from maskrcnn_benchmark.modeling import registry


def with_random_statistics(model):
    for module in model.modules():
        if isinstance(module, NORMS):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False), FrozenBatchNorm2d(8, eps=1e-5)])
def test_a_folded_convolution_equals_convolution_and_norm(rng_seed, bias, norm):
    conv = nn.Conv2d(4, 8, 3, bias=bias).double()
    norm = norm.double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 2)
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    expected = norm(conv(x))
    fold(conv, norm)
    torch.testing.assert_close(conv(x), expected)


def test_layers_with_hooks_are_kept_and_hooks_are_called(rng_seed):
    model = registry.BODIES["V-27"](norm=FrozenBatchNorm2d)
    block = model.stage2.OSA2_1
    called = []
    for module in (block.layers[1], block.layers[2][0], block.layers[3][1], model.stem[3]):
        module.register_forward_hook(lambda module, inputs, output: called.append(type(module)))
    with torch.no_grad():
        for_inference(with_random_statistics(model))(torch.randn(1, 3, 64, 64))
    assert called == [Conv2d, type(block.layers[1]), Conv2d, FrozenBatchNorm2d]


def test_non_finite_weights_are_named_in_a_warning(caplog):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))
    for_inference(model)
    assert not caplog.text
    model[0].weight.data[1, 1] = float("nan")
    model[2].bias.data[0] = float("inf")
    for_inference(model)
    assert "2 weights are not finite (0.weight, 2.bias)" in caplog.text


def test_folding_a_norm_without_statistics_is_refused():
    with pytest.raises(ValueError, match="without running statistics"):
        fold(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))


@pytest.mark.parametrize(
    "body", ["R-50-FPN", "R-50-C4", "V-27-FPN", "V2-19-slim-dw-mmdet-FPNLite", "MNV2-FPN-RETINANET"]
)
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_no_batch_norm_is_left_in_a_body_and_maps_are_equal(rng_seed, body, norm):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", body, "MODEL.BACKBONE.NORM", norm])
    backbone = with_random_statistics(registry.BACKBONES[body](cfg)).double().eval()
    copy = for_inference(backbone)
    assert not any(isinstance(module, NORMS) for module in copy.modules())
    assert any(isinstance(module, NORMS) for module in backbone.modules())
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        for folded, expected in zip(copy(x), backbone(x), strict=True):
            assert (folded - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.parametrize("body", ["R-50-FPN", "V-27-FPN", "V2-19-slim-FPN", "V2-19-slim-dw-FPNLite"])
def test_faster_convolutions_give_equal_maps(rng_seed, body):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", body])
    backbone = with_random_statistics(registry.BACKBONES[body](cfg)).eval()
    x = torch.randn(1, 3, 96, 64)
    plain = for_inference(backbone, winograd=False)
    fast = for_inference(backbone)
    assert not any(isinstance(module, WinogradConv2d) for module in plain.modules())
    if not any(isinstance(module, Conv2d) and suits(module) for module in backbone.modules()):
        pytest.skip("nothing to replace on this machine")
    assert any(isinstance(module, WinogradConv2d) for module in fast.modules())
    with torch.inference_mode():
        for result, expected in zip(fast(x), plain(x), strict=True):
            assert (result - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_shared_convolution_is_replaced_once():
    shared = nn.Conv2d(16, 16, 3, padding=1)
    if not suits(shared):
        pytest.skip("nothing to replace on this machine")
    model = for_inference(nn.ModuleList([nn.Sequential(shared, nn.ReLU()), shared]))
    assert isinstance(model[1], WinogradConv2d) and model[0][0] is model[1]


def test_other_neighbors_are_unchanged(rng_seed):
    class BeforeIt(nn.Module):
        """Defines its modules in the order of the pair, but computes them in the other."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.conv(self.norm(x))

    model = with_random_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.GroupNorm(2, 4), BeforeIt())).eval()
    x = torch.randn(1, 3, 8, 8)
    copy = for_inference(model)
    assert isinstance(copy[3].norm, nn.BatchNorm2d)
    torch.testing.assert_close(copy(x), model(x))


def test_weights_are_stored_in_half_precision_except_norms():
    convolutions = (nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    model = nn.Sequential(*convolutions, nn.Linear(4, 4))
    copy = for_inference(model, torch.bfloat16)
    dtypes = [{parameter.dtype for parameter in layer.parameters()} for layer in copy]
    assert dtypes == [{torch.bfloat16}, {torch.float32}, {torch.bfloat16}, set(), {torch.bfloat16}]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert copy[:4](torch.randn(1, 3, 8, 8)).dtype == torch.bfloat16
