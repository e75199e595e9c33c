"""Fused modules that replace plain ones in a copy for inference on a CPU: the same results in fewer passes.

Each is made from the plain module, keeps the names of its parts, and shows in `forward` what it fuses. `Substitution`
converts a model. SUBSTITUTES maps plain classes to fused ones.

Batch norms have been folded into the convolutions before them and replaced by nn.Identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.fast.fused import FusedConv2d, FusedLinear
from maskrcnn_benchmark.fast.hooks import has_hooks, has_hooks_inside
from maskrcnn_benchmark.fast.norms import NORMS, fold
from maskrcnn_benchmark.fast.winograd_conv import WinogradConv2d, winograd_chain
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.pooling import global_average_pool
from maskrcnn_benchmark.layers.winograd import suits
from maskrcnn_benchmark.modeling.backbone.fpn import FPN
from maskrcnn_benchmark.modeling.backbone.resnet import Bottleneck, Stem
from maskrcnn_benchmark.modeling.backbone.vovnet import ESE, OSABlock
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_feature_extractors import (
    FPN2MLPFeatureExtractor,
    FPNXconv1fcFeatureExtractor,
)
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.roi_keypoint_feature_extractors import (
    KeypointRCNNFeatureExtractor,
)
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_feature_extractors import MaskRCNNFPNFeatureExtractor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_predictors import MaskRCNNC4Predictor
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.maskiou_head import MaskIoUFeatureExtractor, join_masks
from maskrcnn_benchmark.modeling.rpn.rpn import RPNHead
from maskrcnn_benchmark.modeling.semantic.fpn_head import ConvNormReLU


class FusedStem(nn.Module):
    """ResNet's stem; the convolution applies the ReLU."""

    def __init__(self, stem: Stem, substitute: Substitution):
        super().__init__()
        self.conv1 = substitute.conv(stem.conv1, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(x), 3, 2, 1)


class FusedBottleneck(nn.Module):
    """ResNet's block; its convolutions apply the ReLUs, and the last one adds the shortcut.

    The result overwrites the shortcut if no other module uses it: a new map from `downsample`, or, with `owns_input`,
    the input.
    """

    def __init__(self, block: Bottleneck, substitute: Substitution):
        super().__init__()
        self.downsample = None if block.downsample is None else substitute(block.downsample)
        self.conv1 = substitute.conv(block.conv1, relu=True)
        self.conv2 = substitute.conv(block.conv2, relu=True)
        self.conv3 = FusedConv2d(block.conv3, relu=True)

    def forward(self, x: Tensor, owns_input: bool = False) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        owned = owns_input or self.downsample is not None
        return self.conv3(self.conv2(self.conv1(x)), plus=shortcut, overwrite=owned)


class FusedStage(nn.Sequential):
    """FusedBottleneck blocks, each of which overwrites the map of the block before."""

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self):
            x = block(x, owns_input=i > 0)
        return x


class FusedESE(nn.Module):
    """VoVNetV2's channel gate, in place: no other module uses the block's map."""

    def __init__(self, ese: ESE, substitute: Substitution):
        super().__init__()
        self.fc = substitute.conv(ese.fc)
        self.gate = ese.gate

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(self.fc(global_average_pool(x)))
        # torch.jit.trace compares a run with gradients to one without.
        return x * gate if torch.is_grad_enabled() or torch.jit.is_tracing() else x.mul_(gate)


class FusedOSABlock(nn.Module):
    """VoVNet's block; Winograd convolutions write into slices of the map that `concat` reduces."""

    def __init__(self, block: OSABlock, substitute: Substitution):
        super().__init__()
        self.conv_reduction = substitute(block.conv_reduction)
        self.layers = nn.ModuleList(substitute(layer) for layer in block.layers)
        self.concat = substitute(block.concat)
        self.ese = None if block.ese is None else substitute(block.ese)
        self.identity = block.identity
        self.chained = len(self.conv_reduction) == 0 and all(_is_winograd_relu(layer) for layer in self.layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.chained:
            joined = winograd_chain(x, [layer[0] for layer in self.layers])
        else:
            outputs = [x]
            last = self.conv_reduction(x)
            for layer in self.layers:
                last = layer(last)
                outputs.append(last)
            joined = torch.cat(outputs, dim=1)
        out = self.concat(joined)
        if self.ese is not None:
            out = self.ese(out)
        return out + x if self.identity else out


def _is_winograd_relu(layer: nn.Sequential) -> bool:
    convs = [part for part in layer if type(part) is not nn.Identity]
    return len(convs) == 1 and isinstance(convs[0], WinogradConv2d) and convs[0].relu and convs[0].dilation == 1


class FusedFPN(nn.Module):
    """FPN; its lateral convolutions add the coarser level."""

    def __init__(self, fpn: FPN, substitute: Substitution):
        super().__init__()
        self.levels = fpn.levels
        for k in self.levels:
            self.add_module(f"fpn_inner{k}", FusedConv2d(getattr(fpn, f"fpn_inner{k}")))
            self.add_module(f"fpn_layer{k}", substitute(getattr(fpn, f"fpn_layer{k}")))
        self.top_blocks = None if fpn.top_blocks is None else substitute(fpn.top_blocks)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        inner, results = None, []
        for k in reversed(self.levels):
            above = None if inner is None else F.interpolate(inner, maps[k - 1].shape[-2:], mode="nearest")
            inner = getattr(self, f"fpn_inner{k}")(maps[k - 1], plus=above, overwrite=True)
            results.insert(0, getattr(self, f"fpn_layer{k}")(inner))
        if self.top_blocks is not None:
            results.extend(self.top_blocks(maps[-1], results[-1]))
        return results


class FusedRPNHead(nn.Module):
    """RPN's head; the 3x3 convolution applies the ReLU."""

    def __init__(self, head: RPNHead, substitute: Substitution):
        super().__init__()
        self.conv = substitute.conv(head.conv, relu=True)
        self.cls_logits = substitute.conv(head.cls_logits)
        self.bbox_pred = substitute.conv(head.bbox_pred)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, codes = [], []
        for feature in features:  # by level, while the hidden map is in the cache
            hidden = self.conv(feature)
            logits.append(self.cls_logits(hidden))
            codes.append(self.bbox_pred(hidden))
        return logits, codes


class FusedFPN2MLP(nn.Module):
    """FPN2MLPFeatureExtractor; the linear layers apply the ReLUs."""

    def __init__(self, extractor: FPN2MLPFeatureExtractor, substitute: Substitution):
        super().__init__()
        self.pooler = extractor.pooler
        self.fc6 = substitute.linear(extractor.fc6, relu=True)
        self.fc7 = substitute.linear(extractor.fc7, relu=True)
        self.out_channels = extractor.out_channels

    def forward(self, features, proposals) -> Tensor:
        return self.fc7(self.fc6(self.pooler(features, proposals).flatten(start_dim=1)))


class FusedFPNXconv1fc(nn.Module):
    """FPNXconv1fcFeatureExtractor; convolutions and linear layer apply the ReLUs."""

    def __init__(self, extractor: FPNXconv1fcFeatureExtractor, substitute: Substitution):
        super().__init__()
        self.pooler = extractor.pooler
        self.xconvs = substitute(extractor.xconvs)
        self.fc6 = substitute.linear(extractor.fc6, relu=True)
        self.out_channels = extractor.out_channels

    def forward(self, features, proposals) -> Tensor:
        return self.fc6(self.xconvs(self.pooler(features, proposals)).flatten(start_dim=1))


class FusedConvExtractor(nn.Module):
    """The mask and keypoint extractors; their convolutions apply the ReLUs."""

    def __init__(self, extractor: MaskRCNNFPNFeatureExtractor | KeypointRCNNFeatureExtractor, substitute: Substitution):
        super().__init__()
        self.pooler = extractor.pooler
        self.names = extractor.names
        for name in self.names:
            self.add_module(name, substitute.conv(getattr(extractor, name), relu=True))
        attention = getattr(extractor, "spatialAtt", None)
        self.spatialAtt = None if attention is None else substitute(attention)
        self.out_channels = extractor.out_channels

    def forward(self, features, proposals) -> Tensor:
        return self.convolve(self.pooler(features, proposals))

    def convolve(self, pooled: Tensor) -> Tensor:
        x = pooled
        for name in self.names:
            x = getattr(self, name)(x)
        return x if self.spatialAtt is None else self.spatialAtt(x)


class FusedMaskIoUExtractor(nn.Module):
    """MaskIoUFeatureExtractor; convolutions and linear layers apply the ReLUs."""

    def __init__(self, extractor: MaskIoUFeatureExtractor, substitute: Substitution):
        super().__init__()
        self.convs = extractor.convs
        for name in self.convs:
            self.add_module(name, substitute.conv(getattr(extractor, name), relu=True))
        self.maskiou_fc1 = substitute.linear(extractor.maskiou_fc1, relu=True)
        self.maskiou_fc2 = substitute.linear(extractor.maskiou_fc2, relu=True)
        self.out_channels = extractor.out_channels

    def forward(self, pooled: Tensor, masks: Tensor) -> Tensor:
        x = join_masks(pooled, masks)
        for name in self.convs:
            x = getattr(self, name)(x)
        return self.maskiou_fc2(self.maskiou_fc1(x.flatten(start_dim=1)))


class FusedMaskPredictor(nn.Module):
    """MaskRCNNC4Predictor; its ReLU is in place."""

    def __init__(self, predictor: MaskRCNNC4Predictor, substitute: Substitution):
        super().__init__()
        self.conv5_mask = substitute(predictor.conv5_mask)
        self.mask_fcn_logits = substitute.conv(predictor.mask_fcn_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask_fcn_logits(F.relu_(self.conv5_mask(x)))


def fuse_conv_norm_relu(layer: ConvNormReLU, substitute: Substitution) -> nn.Module:
    """Split the semantic head's ConvNormReLU into convolution, norm and ReLU, and fuse what can be fused."""
    conv = Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, bias=layer.bias is not None, device="meta")
    conv.weight, conv.bias, norm = layer.weight, layer.bias, layer.norm
    if isinstance(norm, NORMS):
        fold(conv, norm)
        norm = nn.Identity()
    return substitute(nn.Sequential(conv, norm, nn.ReLU(inplace=True)))


SUBSTITUTES = {
    Stem: FusedStem,
    Bottleneck: FusedBottleneck,
    ESE: FusedESE,
    OSABlock: FusedOSABlock,
    FPN: FusedFPN,
    RPNHead: FusedRPNHead,
    FPN2MLPFeatureExtractor: FusedFPN2MLP,
    FPNXconv1fcFeatureExtractor: FusedFPNXconv1fc,
    MaskRCNNFPNFeatureExtractor: FusedConvExtractor,
    KeypointRCNNFeatureExtractor: FusedConvExtractor,
    MaskRCNNC4Predictor: FusedMaskPredictor,
    MaskIoUFeatureExtractor: FusedMaskIoUExtractor,
    ConvNormReLU: fuse_conv_norm_relu,
}


class Substitution:
    """Converts modules. A shared module is converted once. Modules with hooks, or with hooks inside, stay unchanged.

    Args:
        dtype: dtype of the model's computation.
        winograd: use the Winograd algorithm where `layers.winograd.suits`.
    """

    def __init__(self, dtype: torch.dtype, winograd: bool):
        self.dtype = dtype
        self.winograd = winograd
        self._made: dict[nn.Module, nn.Module] = {}

    def __call__(self, module: nn.Module) -> nn.Module:
        """Return the module's substitute, or the module itself with its children substituted."""
        if module not in self._made:
            self._made[module] = module  # while its children are converted, in case one of them contains it
            self._made[module] = self._convert(module)
        return self._made[module]

    def conv(self, conv: nn.Module, relu: bool = False) -> nn.Module:
        """Return a module that computes relu(conv(x)) or conv(x); `conv` may be any module."""
        if not _is_plain_conv(conv) or has_hooks(conv):
            return _then_relu(self(conv), relu)
        if not relu:
            return self(conv)
        return self._fused_conv(conv, relu=True)

    def linear(self, linear: nn.Module, relu: bool = False) -> nn.Module:
        """Return a module that computes relu(linear(x)) or linear(x); `linear` may be any module."""
        if type(linear) is not nn.Linear or has_hooks(linear):
            return _then_relu(self(linear), relu)
        return FusedLinear(linear, relu) if relu else self(linear)

    def _fused_conv(self, conv, relu=False):
        if self.winograd and suits(conv, self.dtype):
            return WinogradConv2d(conv, relu)
        return FusedConv2d(conv, relu)

    def _convert(self, module: nn.Module) -> nn.Module:
        if not has_hooks_inside(module):
            if _is_plain_conv(module):
                return self._fused_conv(module)
            if type(module) is nn.Linear:
                return FusedLinear(module)
            make = SUBSTITUTES.get(type(module))
            if make is not None and _norms_are_folded(module) and _convolutions_are_plain(module):
                return make(module, self)
        if type(module) is nn.Sequential:
            self._join_relus(module)
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = self(child)
        if type(module) is nn.Sequential and len(module) > 1 and all(type(part) is FusedBottleneck for part in module):
            return FusedStage(*module)
        return module

    def _join_relus(self, layers: nn.Sequential) -> None:
        """Fuse a ReLU of an nn.Sequential into the convolution before it, if only nn.Identity is in between."""
        names = list(layers._modules)
        for i, name in enumerate(names):
            conv = layers._modules[name]
            following = [other for other in names[i + 1 :] if type(layers._modules[other]) is not nn.Identity][:1]
            relu = layers._modules[following[0]] if following else None
            # A ReLU that is not in place must leave the convolution's result unchanged.
            if type(relu) is nn.ReLU and relu.inplace and _is_plain_conv(conv) and not has_hooks_inside(conv, relu):
                if any(has_hooks(layers._modules[between]) for between in names[i + 1 : names.index(following[0])]):
                    continue
                fused = layers._modules[name] = self._fused_conv(conv, relu=True)
                self._made[fused] = fused
                layers._modules[following[0]] = nn.Identity()


def _is_plain_conv(module: nn.Module) -> bool:
    plain = type(module) in (nn.Conv2d, Conv2d)
    return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _norms_are_folded(module: nn.Module) -> bool:
    norms = getattr(module, "norm_after", {}).values()
    return all(type(getattr(module, norm)) is nn.Identity for norm in norms)


def _convolutions_are_plain(module: nn.Module) -> bool:
    """Check the convolutions to which FusedBottleneck and FusedFPN pass a sum."""
    if type(module) is Bottleneck:
        return _is_plain_conv(module.conv3)
    if type(module) is FPN:
        return all(_is_plain_conv(getattr(module, f"fpn_inner{k}")) for k in module.levels)
    return True


def _then_relu(module: nn.Module, relu: bool) -> nn.Module:
    return nn.Sequential(module, nn.ReLU()) if relu else module
