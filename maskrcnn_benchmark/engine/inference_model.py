"""Prepare a model for tests and predictions."""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.engine.bbox_aug import make_bbox_aug
from maskrcnn_benchmark.engine.semantic_views import make_semantic_views
from maskrcnn_benchmark.fast.compiled import compile_dense_part
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.utils.compute_dtype import compute_dtype


def make_inference_model(cfg, model: nn.Module) -> tuple[nn.Module, torch.dtype]:
    """Fuse a copy of a model on MODEL.DEVICE, compile it and add test-time augmentation, as the config says.

    Args:
        cfg: DTYPE, WINOGRAD, TEST.COMPILE, TEST.BBOX_AUG, TEST.SEMANTIC and MODEL.META_ARCHITECTURE are used.
        model: detector or SemanticSegmentor; it stays unchanged.

    Returns:
        (the model, the dtype that it computes in).
    """
    dtype = compute_dtype(cfg.DTYPE, cfg.MODEL.DEVICE)
    model = for_inference(model, dtype, winograd=cfg.WINOGRAD)
    if cfg.TEST.COMPILE:
        compile_dense_part(model)
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return make_semantic_views(cfg, model), dtype  # which has its own scales and flips
    return (make_bbox_aug(cfg, model) if cfg.TEST.BBOX_AUG.ENABLED else model), dtype
