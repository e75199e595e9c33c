"""Check combinations of keys. Each check covers the parts that the config uses, and returns the problem or None."""

from __future__ import annotations

from maskrcnn_benchmark.utils.comm import get_world_size

from .stages import has_box_head, has_roi_heads

# (head, extractor, predictor) -> side of the predicted masks or heat maps per pooled bin; others are not checked.
_SCALES_OF_MAPS = {
    ("MASK", "MaskRCNNFPNFeatureExtractor", "MaskRCNNC4Predictor"): 2,
    ("MASK", "MaskRCNNFPNFeatureExtractor", "MaskRCNNConv1x1Predictor"): 1,
    ("MASK", "MaskRCNNFPNSpatialAttentionFeatureExtractor", "MaskRCNNC4Predictor"): 2,
    ("MASK", "MaskRCNNFPNSpatialAttentionFeatureExtractor", "MaskRCNNConv1x1Predictor"): 1,
    ("KEYPOINT", "KeypointRCNNFeatureExtractor", "KeypointRCNNPredictor"): 4,
}


def dense_heads(cfg) -> str | None:
    model = cfg.MODEL
    if model.FCOS_ON and model.RETINANET_ON:
        return "MODEL.FCOS_ON and MODEL.RETINANET_ON are both True; a model has one dense head. Set one to False."
    if model.FCOS_MASK and not model.FCOS_ON:
        return "MODEL.FCOS_MASK is True and MODEL.FCOS_ON False: the detections are FCOS's. Set both to True."
    return None


def heads_of_regions(cfg) -> str | None:
    model = cfg.MODEL
    unused = [key for key in ("MASK_ON", "KEYPOINT_ON", "CASCADE_ON") if model[key]]
    if model.RETINANET_ON and unused:
        return (
            f"MODEL.{unused[0]} and MODEL.RETINANET_ON are both True, but a dense detector has no second stage, so no "
            "such head. Set one of them to False."
        )
    if model.FCOS_ON and model.RPN_ONLY and unused and not model.FCOS_MASK:
        return (
            f"MODEL.{unused[0]} is True and MODEL.FCOS_ON and RPN_ONLY too: that model has no second stage, so no such "
            "head. Set it to False; or set FCOS_MASK True for masks of FCOS's detections (CenterMask), or RPN_ONLY "
            "False for a box head on them."
        )
    if model.CASCADE_ON and model.FCOS_MASK:
        return "MODEL.CASCADE_ON and MODEL.FCOS_MASK are True, but CenterMask has no box heads; set one to False."
    if model.CASCADE_ON and model.KEYPOINT_ON:
        return (
            "MODEL.CASCADE_ON and MODEL.KEYPOINT_ON are both True, but a cascade has no keypoint head. Set one of them "
            "to False."
        )
    return None


def mask_scoring(cfg) -> str | None:
    model, mask = cfg.MODEL, cfg.MODEL.ROI_MASK_HEAD
    if not model.MASKIOU_ON:
        return None
    if not model.MASK_ON:
        return "MODEL.MASKIOU_ON is True and MODEL.MASK_ON False: there is no mask to score. Set both to the same."
    if model.CASCADE_ON:
        return "MODEL.MASKIOU_ON and MODEL.CASCADE_ON are True, but a cascade's masks are not scored; set one to False."
    shares = mask.SHARE_BOX_FEATURE_EXTRACTOR and has_box_head(model)
    if shares or mask.FEATURE_EXTRACTOR == "ResNet50Conv5ROIFeatureExtractor":
        return (
            "MODEL.MASKIOU_ON is True, but the mask head has no pooled features of its own. Set "
            "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR False and FEATURE_EXTRACTOR to "
            "MaskRCNNFPNFeatureExtractor or MaskRCNNFPNSpatialAttentionFeatureExtractor."
        )
    return None


def regions_without_box_head(cfg) -> str | None:
    """Check that CenterMask's mask head does not use a box head's feature extractor: there is no box head."""
    model = cfg.MODEL
    if model.FCOS_MASK and model.MASK_ON and model.ROI_MASK_HEAD.FEATURE_EXTRACTOR.startswith("ResNet50Conv5"):
        return (
            "MODEL.FCOS_MASK is True and MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR "
            f"{model.ROI_MASK_HEAD.FEATURE_EXTRACTOR!r} is a box head's. Set it to "
            "MaskRCNNFPNSpatialAttentionFeatureExtractor or MaskRCNNFPNFeatureExtractor."
        )
    return None


def anchors(cfg) -> str | None:
    if cfg.MODEL.FCOS_ON:
        return _lengths(cfg, "MODEL.FCOS.FPN_STRIDES", "MODEL.FCOS.SIZES_OF_INTEREST", "one size fewer than strides", 1)
    if cfg.MODEL.RETINANET_ON:
        return _lengths(cfg, "MODEL.RETINANET.ANCHOR_SIZES", "MODEL.RETINANET.ANCHOR_STRIDES", "one entry per level")
    if cfg.MODEL.RPN.USE_FPN:
        wanted = "with MODEL.RPN.USE_FPN, one entry per level"
        return _lengths(cfg, "MODEL.RPN.ANCHOR_SIZES", "MODEL.RPN.ANCHOR_STRIDE", wanted)
    if len(cfg.MODEL.RPN.ANCHOR_STRIDE) != 1:
        return (
            f"MODEL.RPN.ANCHOR_STRIDE is {tuple(cfg.MODEL.RPN.ANCHOR_STRIDE)}, but without MODEL.RPN.USE_FPN there is "
            "only one map with one stride. Set USE_FPN True, or give one stride."
        )
    return None


def _lengths(cfg, first: str, second: str, wanted: str, more: int = 0) -> str | None:
    """Check that the first list has `more` entries more than the second."""
    one, other = (list(value_of(cfg, key)) for key in (first, second))
    if len(one) == len(other) + more:
        return None
    return f"{first} is {one} and {second} {other}: {len(one)} and {len(other)} entries; expected {wanted}. Set both."


def thresholds(cfg) -> str | None:
    model = cfg.MODEL
    sections = ["RETINANET"] if model.RETINANET_ON else [] if model.FCOS_ON else ["RPN"]
    sections += ["ROI_HEADS"] if has_roi_heads(model) else []
    for name in sections:
        low, high = model[name].BG_IOU_THRESHOLD, model[name].FG_IOU_THRESHOLD
        if low > high:
            return (
                f"MODEL.{name}.BG_IOU_THRESHOLD is {low} and FG_IOU_THRESHOLD {high}, but boxes with an IoU below the "
                "former are background and boxes with at least the latter are foreground. Set BG_IOU_THRESHOLD to at "
                "most FG_IOU_THRESHOLD."
            )
    return None


def cascade(cfg) -> str | None:
    node = cfg.MODEL.CASCADE
    lengths = [len(node.IOU_THRESHOLDS), len(node.BBOX_REG_WEIGHTS), len(node.LOSS_WEIGHTS)]
    if cfg.MODEL.CASCADE_ON and len(set(lengths)) > 1:
        return (
            f"MODEL.CASCADE has {lengths[0]} IOU_THRESHOLDS, {lengths[1]} BBOX_REG_WEIGHTS and {lengths[2]} "
            "LOSS_WEIGHTS; expected one of each per stage. Give them the same length."
        )
    return None


def group_norm(cfg) -> str | None:
    node = cfg.MODEL.GROUP_NORM
    if (node.DIM_PER_GP == -1) == (node.NUM_GROUPS == -1):
        return (
            f"MODEL.GROUP_NORM.DIM_PER_GP is {node.DIM_PER_GP} and NUM_GROUPS {node.NUM_GROUPS}; exactly one of them "
            "must be -1."
        )
    return None


def sizes_of_maps(cfg) -> str | None:
    model = cfg.MODEL
    for name in ("MASK", "KEYPOINT"):
        node = model[f"ROI_{name}_HEAD"]
        scale = _SCALES_OF_MAPS.get((name, node.FEATURE_EXTRACTOR, node.PREDICTOR))
        shares = node.SHARE_BOX_FEATURE_EXTRACTOR and not model.FCOS_MASK
        if not model[f"{name}_ON"] or scale is None or shares:
            continue
        if node.RESOLUTION != scale * node.POOLER_RESOLUTION:
            return (
                f"MODEL.ROI_{name}_HEAD.RESOLUTION is {node.RESOLUTION}, but {node.FEATURE_EXTRACTOR} and "
                f"{node.PREDICTOR} produce maps with a side of {scale} x POOLER_RESOLUTION {node.POOLER_RESOLUTION}. "
                f"Set RESOLUTION to {scale * node.POOLER_RESOLUTION}."
            )
    return None


def test_time_augmentation(cfg) -> str | None:
    aug, model = cfg.TEST.BBOX_AUG, cfg.MODEL
    if not aug.ENABLED:
        return None
    if model.META_ARCHITECTURE != "GeneralizedRCNN":
        return (
            f"TEST.BBOX_AUG.ENABLED is True and MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE!r}, but BBOX_AUG "
            "merges detections, not semantic maps. Set ENABLED to False; for a SemanticSegmentor use "
            "TEST.SEMANTIC.SCALES and H_FLIP."
        )
    if model.RPN_ONLY and not (model.RETINANET_ON or model.FCOS_ON):
        return (
            "TEST.BBOX_AUG.ENABLED and MODEL.RPN_ONLY are both True, but BBOX_AUG merges detections, not proposals. "
            "Set one of them to False."
        )
    return None


def images_per_batch_norm(cfg) -> str | None:
    """Check that DeepLabV3's batch norm over image means, one value per channel and image, gets several images."""
    if cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor" or cfg.MODEL.DEEPLAB.NORM not in ("BN", "SyncBN"):
        return None
    solver, norm = cfg.SOLVER, cfg.MODEL.DEEPLAB.NORM
    processes = 1 if norm == "SyncBN" else get_world_size()
    if solver.IMS_PER_BATCH // (solver.ACCUMULATION_STEPS * processes) > 1:
        return None
    where = "" if processes == 1 else f" of each of the {processes} processes"
    return (
        f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH} and ACCUMULATION_STEPS {solver.ACCUMULATION_STEPS}: one image "
        f"per step{where}, but MODEL.DEEPLAB.NORM {norm!r} cannot compute a variance over the mean of one image. Use "
        "two or more images, or set MODEL.DEEPLAB.NORM to 'GN' or 'FrozenBN'."
    )


COMBINATIONS = (
    dense_heads,
    heads_of_regions,
    mask_scoring,
    regions_without_box_head,
    anchors,
    thresholds,
    cascade,
    group_norm,
    test_time_augmentation,
)
# Keys that only training uses.
OF_TRAINING = (sizes_of_maps, images_per_batch_norm)


def value_of(cfg, key: str):
    """Return the value of a dotted key."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
