"""Tensor names of other programs: one table per dialect, in the notation of key_tables.

Several tables may apply to a file, such as one for its body and one for the detector; they are applied in sequence.
Files whose names end like the model's (the forks' detectors, VoVNet's ImageNet files, CenterMask's and DeepLab's
bodies, torchvision's and timm's ResNets, converted Caffe2 files) need no table: `matching` compares the ends of names.
"""

from __future__ import annotations

from dataclasses import dataclass

from .key_tables import Row


@dataclass(frozen=True)
class Dialect:
    """Names of one program.

    Attributes:
        name: name shown in reports.
        theirs: regular expression; the table applies to a file if it is found in one of the keys, as renamed by the
            tables before this one.
        rows: (theirs, ours), see key_tables; the first matching row renames a key.
        ours: regular expression for the reverse direction; the table applies to a model if it is found in one of the
            keys. "" if the table is only for reading.
        class_rows: order of the classes' rows, a key of class_rows.CLASS_ROWS.
        sizes_outside: anchors of a cell are numbered sizes outside, ratios inside, see anchor_rows.
        beside: if not "", a key is renamed to ours only if the file also has the key in which this replaces everything
            from the last slash on.
        convention: MODEL.CONVENTION of models in these files, if there is only one.
    """

    name: str
    theirs: str
    rows: tuple[Row, ...]
    ours: str = ""
    class_rows: str = "ours"
    sizes_outside: bool = False
    beside: str = ""
    convention: str | None = None


# Norm layers are named "norm"; early files have "bn".
VOVNET_BN = Dialect("VoVNet with norm layers named bn", r"/bn\.", (("/bn.", "/norm."),))

# Camera backbone in 3D projects.
IMAGE_BACKBONE = Dialect("body under img_backbone", r"^img_backbone\.", (("^img_backbone.", "backbone.body."),))

# torchvision nests convolution, norm and ReLU6 of a step in a Sequential; in the forks they are one flat list. Block 1
# has no expansion step, so its projection is one step earlier.
TORCHVISION_MOBILENET = Dialect(
    "torchvision MobileNetV2",
    r"features\.\d+\.conv\.\d\.\d\.",
    (
        ("features.1.conv.1.", "features.1.conv.3."),
        ("features.1.conv.2.", "features.1.conv.4."),
        ("features.{i}.conv.0.0.", "features.{i}.conv.0."),
        ("features.{i}.conv.0.1.", "features.{i}.conv.1."),
        ("features.{i}.conv.1.0.", "features.{i}.conv.3."),
        ("features.{i}.conv.1.1.", "features.{i}.conv.4."),
        ("features.{i}.conv.2.", "features.{i}.conv.6."),
        ("features.{i}.conv.3.", "features.{i}.conv.7."),
    ),
    ours=r"(^|\.)features\.1\.conv\.4\.",
)

# timm's ResNets have the same names.
TORCHVISION_RESNET = Dialect(
    "torchvision ResNet",
    r"^bn1\.running_mean",
    (("^conv1.", "stem.conv1."), ("^bn1.", "stem.bn1.")),
    ours=r"(^|\.)layer1\.0\.conv1\.",
)

TORCHVISION_DETECTOR = Dialect(
    "torchvision detector",
    r"^backbone\.fpn\.(inner|layer)_blocks\.|^roi_heads\.box_head\.fc6\.",
    (
        ("backbone.body.conv1.", "backbone.body.stem.conv1."),
        ("backbone.body.bn1.", "backbone.body.stem.bn1."),
        ("backbone.fpn.inner_blocks.{i}.0.", "backbone.fpn.fpn_inner{i+1}."),
        ("backbone.fpn.layer_blocks.{i}.0.", "backbone.fpn.fpn_layer{i+1}."),
        ("backbone.fpn.inner_blocks.{i}.", "backbone.fpn.fpn_inner{i+1}."),  # before torchvision 0.13
        ("backbone.fpn.layer_blocks.{i}.", "backbone.fpn.fpn_layer{i+1}."),
        ("rpn.head.conv.0.0.", "rpn.head.conv."),
        ("roi_heads.box_head.", "roi_heads.box.feature_extractor."),
        ("roi_heads.box_predictor.", "roi_heads.box.predictor."),
        ("roi_heads.mask_head.mask_fcn{i}.", "roi_heads.mask.feature_extractor.mask_fcn{i}."),  # before 0.13
        ("roi_heads.mask_head.{i}.0.", "roi_heads.mask.feature_extractor.mask_fcn{i+1}."),
        ("roi_heads.mask_predictor.", "roi_heads.mask.predictor."),
    ),
)


def _timm_vovnet(conv: tuple[Row, ...], norm: str) -> tuple[Row, ...]:
    """Return the rows of a VoVNet. `conv` lists the modules (theirs, ours) of a 3x3 convolution, `norm` is its norm."""
    layer = "stage{s+2}.OSA{s+2}_{b+1}.layers.{i}.OSA{s+2}_{b+1}_{i}"
    block, ours = "stages.{s}.blocks.{b}", "stage{s+2}.OSA{s+2}_{b+1}"
    return (
        ("stem.0.conv.", "stem.stem_1/conv."),
        ("stem.0.bn.", "stem.stem_1/norm."),
        *((f"stem.{{i}}.{a}.", f"stem.stem_{{i+1}}/{b}.") for a, b in (*conv, ("bn", norm))),
        *((f"{block}.conv_mid.{{i}}.{a}.", f"{layer}/{b}.") for a, b in (*conv, ("bn", norm))),
        (f"{block}.conv_reduction.conv.", f"{ours}.conv_reduction.OSA{{s+2}}_{{b+1}}_reduction_0/conv."),
        (f"{block}.conv_reduction.bn.", f"{ours}.conv_reduction.OSA{{s+2}}_{{b+1}}_reduction_0/norm."),
        (f"{block}.conv_concat.conv.", f"{ours}.concat.OSA{{s+2}}_{{b+1}}_concat/conv."),
        (f"{block}.conv_concat.bn.", f"{ours}.concat.OSA{{s+2}}_{{b+1}}_concat/norm."),
        (f"{block}.attn.fc.", f"{ours}.ese.fc."),
    )


_PLAIN_OSA = r"OSA\d_1_0/conv\."
_DEPTHWISE_OSA = r"OSA\d_1_0/dw_conv3x3\."

TIMM = Dialect(
    "timm VoVNet",
    r"(^|\.)stages\.\d\.blocks\.\d+\.conv_mid\.\d\.conv\.",
    _timm_vovnet((("conv", "conv"),), "norm"),
    ours=_PLAIN_OSA,
)
TIMM_DEPTHWISE = Dialect(
    "timm depthwise VoVNet",
    r"(^|\.)stages\.\d\.blocks\.\d+\.conv_mid\.\d\.conv_dw\.",
    _timm_vovnet((("conv_dw", "dw_conv3x3"), ("conv_pw", "pw_conv1x1")), "pw_norm"),
    ours=_DEPTHWISE_OSA,
)


def _mmdetection_vovnet(step: tuple[str, ...]) -> tuple[Row, ...]:
    """Return the rows of a VoVNet with numbered layers.

    Args:
        step: our names of the layers with tensors of a 3x3 step. The ReLU at its end also has a number in the stem.
    """
    layer = "body.stage{s}.OSA{s}_{b}.layers.{i}.OSA{s}_{b}_{i}"
    block, ours = "model.OSA_{s}.OSA{s}_{b}", "body.stage{s}.OSA{s}_{b}"
    steps = ((1, ("conv", "norm"), 0), (2, step, 3), (3, step, 4 + len(step)))
    return (
        *(
            (f"model.stem.{first + i}.", f"body.stem.stem_{k}/{name}.")
            for k, names, first in steps
            for i, name in enumerate(names)
        ),
        *((f"{block}.layers.{{i}}.{i}.", f"{layer}/{name}.") for i, name in enumerate(step)),
        (f"{block}.conv_reduction.0.", f"{ours}.conv_reduction.OSA{{s}}_{{b}}_reduction_0/conv."),
        (f"{block}.conv_reduction.1.", f"{ours}.conv_reduction.OSA{{s}}_{{b}}_reduction_0/norm."),
        (f"{block}.concat.0.", f"{ours}.concat.OSA{{s}}_{{b}}_concat/conv."),
        (f"{block}.concat.1.", f"{ours}.concat.OSA{{s}}_{{b}}_concat/norm."),
        (f"{block}.ese.fc.", f"{ours}.ese.fc."),
    )


# Depthwise steps have a layer 2, their norm; other steps end with layer 1.
MMDETECTION_VOVNET = Dialect(
    "mmdetection-vovnet body",
    # \A, so that the text is searched only once, not from every name
    r"\A(?![\s\S]*\.OSA2_1\.layers\.0\.2\.)[\s\S]*?model\.OSA_2\.OSA2_1\.layers\.0\.1\.weight",
    _mmdetection_vovnet(("conv", "norm")),
    ours=_PLAIN_OSA,
)
MMDETECTION_DEPTHWISE_VOVNET = Dialect(
    "mmdetection-vovnet depthwise body",
    r"model\.OSA_2\.OSA2_1\.layers\.0\.2\.weight",
    _mmdetection_vovnet(("dw_conv3x3", "pw_conv1x1", "pw_norm")),
    ours=_DEPTHWISE_OSA,
)

_MMDETECTION_BOX = (
    ("shared_fcs.0.", "feature_extractor.fc6."),
    ("shared_fcs.1.", "feature_extractor.fc7."),
    ("fc_cls.", "predictor.cls_score."),
    ("fc_reg.", "predictor.bbox_pred."),
)
_MMDETECTION_MASK = (
    ("convs.{i}.conv.", "feature_extractor.mask_fcn{i+1}."),
    ("upsample.", "predictor.conv5_mask."),
    ("conv_logits.", "predictor.mask_fcn_logits."),
)
MMDETECTION_DETECTOR = Dialect(
    "mmdetection 1.x detector",
    r"^neck\.(lateral|fpn)_convs\.|^rpn_head\.rpn_conv\.|^bbox_head\.(\d\.)?fc_cls\.",
    (
        ("backbone.conv1.", "backbone.body.stem.conv1."),  # a ResNet
        ("backbone.bn1.", "backbone.body.stem.bn1."),
        ("backbone.layer{i}.", "backbone.body.layer{i}."),
        ("neck.lateral_convs.{i}.conv.", "backbone.fpn.fpn_inner{i+1}."),
        ("neck.fpn_convs.{i}.conv.", "backbone.fpn.fpn_layer{i+1}."),
        ("rpn_head.rpn_conv.", "rpn.head.conv."),
        ("rpn_head.rpn_cls.", "rpn.head.cls_logits."),
        ("rpn_head.rpn_reg.", "rpn.head.bbox_pred."),
        *((f"bbox_head.{theirs}", f"roi_heads.box.{ours}") for theirs, ours in _MMDETECTION_BOX),
        *((f"mask_head.{theirs}", f"roi_heads.mask.{ours}") for theirs, ours in _MMDETECTION_MASK),
        # a cascade: the stage comes first
        *((f"bbox_head.{{n}}.{theirs}", f"roi_heads.box.{{n}}.{ours}") for theirs, ours in _MMDETECTION_BOX),
        *((f"mask_head.{{n}}.{theirs}", f"roi_heads.mask.{{n}}.{ours}") for theirs, ours in _MMDETECTION_MASK),
    ),
    ours=r"^backbone\.fpn\.|^rpn\.head\.|^roi_heads\.",
    class_rows="shared boxes",
    convention="mmdetection",
)

DETECTRON2_RESNET = Dialect(
    "detectron2 ResNet",
    r"(^|\.)res[2-5]\.\d+\.(conv1|shortcut)\.",
    (
        ("stem.conv1.norm.", "stem.bn1."),
        ("res{s}.{b}.shortcut.norm.", "layer{s-1}.{b}.downsample.1."),
        ("res{s}.{b}.shortcut.", "layer{s-1}.{b}.downsample.0."),
        ("res{s}.{b}.conv{c}.norm.", "layer{s-1}.{b}.bn{c}."),
        ("res{s}.{b}.conv{c}.", "layer{s-1}.{b}.conv{c}."),
    ),
    ours=r"(^|\.)layer1\.0\.conv1\.",
)

DETECTRON2_DETECTOR = Dialect(
    "detectron2 detector",
    r"(^|\.)bottom_up\.|^backbone\.fpn_lateral\d|^proposal_generator\.rpn_head\.|^roi_heads\.box_(head|predictor)\.",
    (
        ("backbone.bottom_up.", "backbone.body."),
        ("backbone.fpn_lateral{k}.", "backbone.fpn.fpn_inner{k-1}."),
        ("backbone.fpn_output{k}.", "backbone.fpn.fpn_layer{k-1}."),
        ("backbone.top_block.", "backbone.fpn.top_blocks."),
        ("proposal_generator.rpn_head.conv.", "rpn.head.conv."),
        ("proposal_generator.rpn_head.objectness_logits.", "rpn.head.cls_logits."),
        ("proposal_generator.rpn_head.anchor_deltas.", "rpn.head.bbox_pred."),
        ("roi_heads.box_head.fc1.", "roi_heads.box.feature_extractor.fc6."),
        ("roi_heads.box_head.fc2.", "roi_heads.box.feature_extractor.fc7."),
        ("roi_heads.box_head.{n}.fc1.", "roi_heads.box.{n}.feature_extractor.fc6."),  # a cascade
        ("roi_heads.box_head.{n}.fc2.", "roi_heads.box.{n}.feature_extractor.fc7."),
        ("roi_heads.box_predictor.{n}.", "roi_heads.box.{n}.predictor."),
        ("roi_heads.box_predictor.", "roi_heads.box.predictor."),
        ("roi_heads.mask_head.mask_fcn{i}.", "roi_heads.mask.feature_extractor.mask_fcn{i}."),
        ("roi_heads.mask_head.deconv.", "roi_heads.mask.predictor.conv5_mask."),
        ("roi_heads.mask_head.predictor.", "roi_heads.mask.predictor.mask_fcn_logits."),
        ("roi_heads.keypoint_head.conv_fcn{i}.", "roi_heads.keypoint.feature_extractor.conv_fcn{i}."),
        ("roi_heads.keypoint_head.score_lowres.", "roi_heads.keypoint.predictor.kps_score_lowres."),
    ),
    ours=r"^backbone\.",
    class_rows="background last",
    sizes_outside=True,
    convention="detectron2",
)

# Without an FPN detectron2 has the body directly under "backbone", and C4's last layer separately. (The ResNet's table
# before this one has renamed res5 to layer4.)
DETECTRON2_C4 = Dialect(
    "detectron2 C4 detector",
    r"^backbone\.((layer|stage)\d|features)\.",
    (
        ("^backbone.stem.", "backbone.body.stem."),
        ("^backbone.layer{i}.", "backbone.body.layer{i}."),
        ("^backbone.stage{i}.", "backbone.body.stage{i}."),
        ("^backbone.features.", "backbone.body.features."),
        ("roi_heads.layer{i}.", "roi_heads.box.feature_extractor.head.layer{i}."),
    ),
    ours=r"feature_extractor\.head\.layer4\.|\A(?![\s\S]*^backbone\.fpn\.)[\s\S]*^rpn\.head\.",
)

DETECTRON2_RETINANET = Dialect(
    "detectron2 RetinaNet",
    r"^head\.(cls|bbox)_subnet\.",
    (
        ("^head.cls_subnet.", "rpn.head.cls_tower."),
        ("^head.bbox_subnet.", "rpn.head.bbox_tower."),
        ("^head.cls_score.", "rpn.head.cls_logits."),
        ("^head.bbox_pred.", "rpn.head.bbox_pred."),
    ),
    ours=r"\A(?![\s\S]*^rpn\.head\.centerness\.)[\s\S]*^rpn\.head\.cls_tower\.",
    sizes_outside=True,
    convention="detectron2",
)

# FCOS of AdelaiDet and CenterMask2, in the place of detectron2's RPN.
DETECTRON2_FCOS = Dialect(
    "detectron2 FCOS",
    r"^proposal_generator\.fcos_head\.",
    (
        ("proposal_generator.fcos_head.ctrness.", "rpn.head.centerness."),
        ("proposal_generator.fcos_head.", "rpn.head."),
    ),
    ours=r"^rpn\.head\.centerness\.",
)

# CenterMask2's heads beside detectron2's. CenterMask's own names are ours.
CENTERMASK2 = Dialect(
    "CenterMask2",
    r"^roi_heads\.(mask_head\.spatialAtt|maskiou_head)\.",
    (
        ("roi_heads.mask_head.spatialAtt.", "roi_heads.mask.feature_extractor.spatialAtt."),
        ("roi_heads.maskiou_head.maskiou_f", "roi_heads.maskiou.feature_extractor.maskiou_f"),
        ("roi_heads.maskiou_head.maskiou.", "roi_heads.maskiou.predictor.maskiou."),
    ),
    ours=r"^roi_heads\.(mask\.feature_extractor\.spatialAtt|maskiou)\.",
    class_rows="background last",
    convention="centermask2",
)
# Its deformable layers in a VoVNet: offsets beside the convolution, not inside.
CENTERMASK2_DEFORMABLE = Dialect(
    "CenterMask2's deformable VoVNet",
    r"/conv_offset\.",
    (("/conv_offset.", "/conv.offset."), ("/conv.", "/conv.conv.")),
    ours=r"/conv\.offset\.",
    beside="/conv_offset.weight",
)

# Files from before torchvision 0.3, such as those of its model zoo.
OLD_DENSENET = Dialect(
    "DenseNet with dotted layer names",
    r"\.denselayer\d+\.norm\.1\.",
    (
        ("denselayer{i}.norm.{k}.", "denselayer{i}.norm{k}."),
        ("denselayer{i}.conv.{k}.", "denselayer{i}.conv{k}."),
    ),
)

# The body's names have no prefix; the head's are ours. (A ResNet's are torchvision's.)
DEEPLAB = Dialect(
    "VoVNet-DeepLabV3",
    r"\A(?![\s\S]*^backbone\.)[\s\S]*^aspp\.",
    (
        ("^conv1.", "backbone.body.stem.conv1."),
        ("^bn1.", "backbone.body.stem.bn1."),
        ("^layer{i}.", "backbone.body.layer{i}."),
        ("^stem.", "backbone.body.stem."),
        ("^stage{s}.", "backbone.body.stage{s}."),
        ("^features.", "backbone.body.features."),
    ),
    ours=r"^backbone\.body\.",
)
# The auxiliary classifier has no counterpart here.
TORCHVISION_DEEPLAB = Dialect(
    "torchvision DeepLabV3",
    r"^classifier\.0\.convs\.0\.0\.",
    (
        ("^backbone.conv1.", "backbone.body.stem.conv1."),
        ("^backbone.bn1.", "backbone.body.stem.bn1."),
        ("^backbone.layer{i}.", "backbone.body.layer{i}."),
        ("^classifier.0.convs.4.1.", "aspp.aspp5."),
        ("^classifier.0.convs.4.2.", "aspp.aspp5_bn."),
        ("^classifier.0.convs.{k}.0.", "aspp.aspp{k+1}."),
        ("^classifier.0.convs.{k}.1.", "aspp.aspp{k+1}_bn."),
        ("^classifier.0.project.0.", "aspp.conv2."),
        ("^classifier.0.project.1.", "aspp.bn2."),
        ("^classifier.1.", "aspp.extra_conv."),
        ("^classifier.2.", "aspp.extra_bn."),
        ("^classifier.4.", "aspp.conv3."),
    ),
)

# In the order in which they are applied to a file; the reverse direction applies them from last to first.
DIALECTS = (
    IMAGE_BACKBONE,
    VOVNET_BN,
    OLD_DENSENET,
    DEEPLAB,
    TORCHVISION_DEEPLAB,
    TORCHVISION_RESNET,
    TORCHVISION_MOBILENET,
    TORCHVISION_DETECTOR,
    TIMM,
    TIMM_DEPTHWISE,
    MMDETECTION_VOVNET,
    MMDETECTION_DEPTHWISE_VOVNET,
    MMDETECTION_DETECTOR,
    DETECTRON2_RESNET,
    DETECTRON2_DETECTOR,
    DETECTRON2_C4,
    DETECTRON2_RETINANET,
    DETECTRON2_FCOS,
    CENTERMASK2,
    CENTERMASK2_DEFORMABLE,
)
