"""Test fused modules: equal outputs, and modules with hooks stay unchanged."""

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.fast.fused import FusedConv2d, FusedLinear, has_fused_ops
from maskrcnn_benchmark.fast.norms import NORMS
from maskrcnn_benchmark.fast.substitutes import SUBSTITUTES, FusedBottleneck, FusedOSABlock
from maskrcnn_benchmark.fast.winograd_conv import WinogradConv2d
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d, group_norm
from maskrcnn_benchmark.layers.winograd import suits
from maskrcnn_benchmark.modeling.backbone.fpn import FPN, LastLevelMaxPool
from maskrcnn_benchmark.modeling.backbone.resnet import Stem, make_stage
from maskrcnn_benchmark.modeling.backbone.vovnet import ESE, OSABlock
from maskrcnn_benchmark.modeling.make_layers import conv_with_kaiming_uniform
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_feature_extractors import (
    FPN2MLPFeatureExtractor,
    FPNXconv1fcFeatureExtractor,
)
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.roi_keypoint_feature_extractors import (
    KeypointRCNNFeatureExtractor,
)
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_feature_extractors import MaskRCNNFPNFeatureExtractor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_predictors import MaskRCNNC4Predictor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.spatial_attention import SpatialAttention
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.maskiou_head import MaskIoUFeatureExtractor
from maskrcnn_benchmark.modeling.rpn.rpn import RPNHead
from maskrcnn_benchmark.modeling.semantic.fpn_head import ConvNormReLU

pytestmark = pytest.mark.skipif(not has_fused_ops(), reason="this torch has no fused oneDNN ops")


class FirstMap(nn.Module):
    """Replaces a pooler."""

    def forward(self, features, proposals):
        return features[0]


def maps(*channels, side=32):
    return [torch.randn(2, width, side >> i, side >> i) for i, width in enumerate(channels)]


def norm(channels):
    frozen = FrozenBatchNorm2d(channels)
    frozen.weight.uniform_(0.5, 1.5)
    frozen.bias.normal_()
    return frozen


def fpn(use_gn):
    return FPN((16, 32, 48), 16, conv_with_kaiming_uniform(use_gn, num_groups=4), LastLevelMaxPool())


CASES = {
    "stem": (lambda: Stem(16, norm), lambda: maps(3)),
    "stage": (lambda: make_stage(16, 16, 32, 3, norm, stride=2), lambda: maps(16)),
    "stage of equal widths": (lambda: make_stage(32, 16, 32, 2, norm, stride=1), lambda: maps(32)),
    "stage with GroupNorm": (
        lambda: make_stage(16, 16, 32, 2, lambda channels: group_norm(channels, num_groups=4), stride=1),
        lambda: maps(16),
    ),
    "OSA": (lambda: OSABlock("a", 16, 32, 48, 3, norm), lambda: maps(16)),
    "OSA with ESE and identity": (
        lambda: OSABlock("a", 32, 16, 32, 3, norm, ese=ESE(32), identity=True),
        lambda: maps(32),
    ),
    "depthwise OSA": (lambda: OSABlock("a", 16, 32, 48, 3, norm, depthwise=True, bias=True), lambda: maps(16)),
    "FPN": (lambda: fpn(False), lambda: [maps(16, 32, 48)]),
    "FPN with GroupNorm": (lambda: fpn(True), lambda: [maps(16, 32, 48)]),
    "RPN head": (lambda: RPNHead(16, 3), lambda: [maps(16, 16)]),
    "two linear layers": (lambda: FPN2MLPFeatureExtractor(FirstMap(), 16 * 49, 24), lambda: [maps(16, side=7), None]),
    "convolutions and a linear layer": (
        lambda: FPNXconv1fcFeatureExtractor(FirstMap(), 16, 7, 2, 32, 24),
        lambda: [maps(16, side=7), None],
    ),
    "mask extractor": (lambda: MaskRCNNFPNFeatureExtractor(FirstMap(), 16, (16, 32)), lambda: [maps(16), None]),
    "mask extractor with GroupNorm": (
        lambda: MaskRCNNFPNFeatureExtractor(FirstMap(), 16, (16, 32), use_gn=True, num_groups=4),
        lambda: [maps(16), None],
    ),
    "mask extractor with attention": (
        lambda: MaskRCNNFPNFeatureExtractor(FirstMap(), 16, (16, 32), attention=SpatialAttention()),
        lambda: [maps(16), None],
    ),
    "MaskIoU extractor": (
        lambda: MaskIoUFeatureExtractor(16, 14, (16, 32), hidden=24),
        lambda: [*maps(16, side=14), torch.rand(2, 1, 28, 28)],
    ),
    "keypoint extractor": (lambda: KeypointRCNNFeatureExtractor(FirstMap(), 16, (16, 32)), lambda: [maps(16), None]),
    "mask predictor": (lambda: MaskRCNNC4Predictor(16, 16, 5), lambda: maps(16)),
    "semantic layer": (lambda: ConvNormReLU(16, 16, norm), lambda: maps(16)),
    "semantic layer with GroupNorm": (
        lambda: ConvNormReLU(16, 16, lambda channels: group_norm(channels, num_groups=4)),
        lambda: maps(16),
    ),
}


def flat(outputs):
    return [outputs] if torch.is_tensor(outputs) else [tensor for part in outputs for tensor in flat(part)]


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_substitutes_equal_the_plain_modules(rng_seed, name, winograd):
    make, inputs = CASES[name]
    plain = nn.ModuleList([make()]).eval()  # as part of a model
    fast = for_inference(plain, winograd=winograd)
    assert not any(isinstance(module, NORMS) for module in fast.modules())
    given = inputs()
    kept = [tensor.clone() for tensor in flat([x for x in given if x is not None])]
    with torch.inference_mode():
        for result, expected in zip(flat(fast[0](*given)), flat(plain[0](*given)), strict=True):
            assert (result - expected).abs().max() <= 1e-4 * expected.abs().max()
    for tensor, before in zip(flat([x for x in given if x is not None]), kept, strict=True):
        assert torch.equal(tensor, before), "an input was overwritten"


def test_every_substitute_is_used(rng_seed):
    makers = [nn.ModuleList([make()]) for make, _ in CASES.values()]
    assert {type(module) for maker in makers for module in maker.modules()} >= set(SUBSTITUTES)
    left = {type(module) for maker in makers for module in for_inference(maker).modules()} & set(SUBSTITUTES)
    # left: the block with GroupNorm, and FPNs whose lateral layers are not plain convolutions
    assert left <= {type(make_stage(16, 16, 32, 1, norm, stride=1)[0]), FPN}


@pytest.mark.parametrize("hooked", ["0", "0.conv2", "1.bn1", "1.downsample.0", "2"])
def test_tensors_kept_by_hooks_are_not_overwritten(rng_seed, hooked):
    stage = make_stage(32, 16, 32, 3, norm, stride=1).eval()
    stage[1].downsample = nn.Sequential(nn.Conv2d(32, 32, 1))
    kept = []
    stage.get_submodule(hooked).register_forward_hook(lambda module, inputs, output: kept.append(output.clone()))
    fast = for_inference(nn.ModuleList([stage]))[0]
    seen = []
    fast.get_submodule(hooked)._forward_hooks.clear()
    fast.get_submodule(hooked).register_forward_hook(lambda module, inputs, output: seen.append((output, output + 0)))
    with torch.inference_mode():
        x = torch.randn(1, 32, 8, 8)
        result, expected = fast(x), stage(x)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    if hooked != "1.bn1":  # there the plain block's own ReLU is in place, as in the original
        (output, copied), *_ = seen
        assert torch.equal(output, copied)
    assert len(kept) == 1 and len(seen) == 1


def test_blocks_with_hooks_are_kept_and_others_are_fused(rng_seed):
    stage = make_stage(16, 16, 32, 3, norm, stride=1)
    kind = type(stage[1])
    stage[1].register_forward_hook(lambda *_: None)
    fast = for_inference(nn.ModuleList([stage]))[0]
    assert [type(block) for block in fast] == [FusedBottleneck, kind, FusedBottleneck]
    assert type(fast) is nn.Sequential


def test_chain_requires_winograd_in_every_convolution(rng_seed):
    if not suits(Conv2d(16, 16, 3, padding=1)):
        pytest.skip("this CPU has no AVX2")
    blocks = [OSABlock("a", 16, 32, 48, 3, norm), OSABlock("a", 16, 32, 48, 3, norm, depthwise=True, bias=True)]
    fast = for_inference(nn.ModuleList([*blocks, OSABlock("a", 16, 24, 48, 3, norm)]))
    assert [block.chained for block in fast if isinstance(block, FusedOSABlock)] == [True, False, False]


def test_only_in_place_relus_are_fused(rng_seed):
    sequence = [Conv2d(8, 8, 3), nn.ReLU(), Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.Linear(8, 8)]
    layers = for_inference(nn.Sequential(*sequence))
    assert [type(layer) for layer in layers] == [FusedConv2d, nn.ReLU, FusedConv2d, nn.Identity, FusedLinear]
    assert [layers[0].relu, layers[2].relu] == [False, True]


def test_a_shared_module_is_converted_once():
    shared = make_stage(16, 16, 32, 1, norm, stride=1)
    model = for_inference(nn.ModuleDict({"box": nn.Sequential(shared), "mask": nn.Sequential(shared)}))
    assert model["box"][0] is model["mask"][0] and isinstance(model["box"][0][0], FusedBottleneck)


def test_a_detector_keeps_the_names_of_its_modules():
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "V-27-FPN", "MODEL.RPN.USE_FPN", True])
    from maskrcnn_benchmark.modeling import registry

    plain = registry.BACKBONES["V-27-FPN"](cfg)
    fast = for_inference(plain)
    names = {name for name, _ in plain.named_modules()}
    assert {"body.stage2.OSA2_1.layers.0", "body.stage5.OSA5_1.concat", "fpn.fpn_inner2"} <= names
    assert {"body.stage2.OSA2_1.layers.0", "body.stage5.OSA5_1.concat", "fpn.fpn_inner2"} <= {
        name for name, _ in fast.named_modules()
    }
    assert any(isinstance(module, (WinogradConv2d, FusedConv2d)) for module in fast.modules())
