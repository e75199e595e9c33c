"""Deterministic weights from key names: those of the goldens in golden/d2 (golden/'s other files have fill.py's).

One draw a tensor from numpy's RandomState(crc32(key)), key being the original program's own name:
  * weights of two or more dimensions: standard_normal * sqrt(1 / fan_in) * gain, fan_in = product(shape[1:]) (also for
    transposed and depthwise convolutions), gain = the first rule found in the key, else sqrt(2)
  * weights of one dimension and running_var: uniform(0.8, 1.2)
  * biases and running_mean: standard_normal * 0.05
  * everything else (num_batches_tracked, pixel_mean, ...): left alone
All arithmetic in float64, cast to float32 at the end.
"""

from __future__ import annotations

import math
import re
import zlib

import numpy as np

R2 = math.sqrt(2)
# (regular expression searched in the key, gain)
RULES = [
    # first convolution of networks fed with 0..255 pixels
    (r"^backbone\.bottom_up\.(stem\.stem_1/conv|stem\.conv1)\.weight$", R2 / 25),
    (r"^backbone\.bottom_up\.features\.0\.0\.weight$", R2 / 50),
    (r"ese\.fc\.weight$|attn\.fc\.weight$", 3.0),
    # VoVNet's blocks with a shortcut
    (r"OSA\d_[2-9]\.concat\.(.*conv|0)\.weight$|blocks\.[1-9]\.conv_concat\.conv\.weight$", 0.7),
    (r"(layer|res)\d\.\d+\.conv3\.weight$", 0.3),
    (r"(downsample\.0|shortcut)\.weight$", 1.0),
    (r"features\.\d+\.conv\.6\.weight$", 1.0),
    (r"dw_conv3x3\.weight$|conv_dw\.weight$", 1.0),
    (r"fpn_lateral\d|fpn_output\d", 1.0),
    (r"rpn_head\.objectness_logits\.weight$", 1.0),
    (r"rpn_head\.anchor_deltas\.weight$", 0.2),
    (r"box_predictor\.cls_score\.weight$", 1.0),
    (r"box_predictor\.bbox_pred\.weight$", 1.0),
    (r"mask_head\.deconv\.weight$", 2 * R2),
    (r"mask_head\.predictor\.weight$", 1.0),
    (r"sem_seg_head\.predictor\.weight$", 1.0),
    (r"aspp\.conv3\.weight$", 1.0),
    (r"^(head\.fc|classifier)\.weight$", 1.0),
]
# of mmdetection's detectors, tried before RULES
MMDETECTION_RULES = [
    (r"^neck\.", 1.0),
    (r"^rpn_head\.rpn_cls\.weight$", 1.0),
    (r"^rpn_head\.rpn_reg\.weight$", 0.2),
    (r"^bbox_head\..*fc_cls\.weight$", 2.0),
    (r"^bbox_head\..*fc_reg\.weight$", 1.0),
    (r"^mask_head\..*upsample\.weight$", 2 * R2),
    (r"^mask_head\..*conv_logits\.weight$", 3.0),
]


def value(key, shape, rules=()):
    """float32 array for the original's key, or None where the tensor is left alone; `rules` come before RULES."""
    random = np.random.RandomState(zlib.crc32(key.encode()))
    last = key.rpartition(".")[2]
    if last == "running_var" or (last == "weight" and len(shape) == 1):
        drawn = random.uniform(0.8, 1.2, shape)
    elif last in ("running_mean", "bias"):
        drawn = random.standard_normal(shape) * 0.05
    elif last == "weight":
        gain = next((gain for pattern, gain in [*rules, *RULES] if re.search(pattern, key)), R2)
        drawn = random.standard_normal(shape) * math.sqrt(1.0 / math.prod(shape[1:])) * gain
    else:
        return None
    return drawn.astype(np.float32)


def pick(numel, count=64):
    """Flat (C order) indices of the recorded values."""
    return np.random.RandomState(numel % 2**32).randint(0, numel, count)
