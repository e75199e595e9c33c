"""Keys that are accepted so that other projects' files merge, and that have no effect; each with the reason."""

from __future__ import annotations

from .loading import CfgNode

# FBNet's layers are not in this package.
FBNET = {
    "ARCH": "default",
    "ARCH_DEF": "",
    "BN_TYPE": "bn",
    "SCALE_FACTOR": 1.0,
    "WIDTH_DIVISOR": 1,
    "DW_CONV_SKIP_BN": True,
    "DW_CONV_SKIP_RELU": True,
    "DET_HEAD_LAST_SCALE": 1.0,
    "DET_HEAD_BLOCKS": [],
    "DET_HEAD_STRIDE": 0,
    "KPTS_HEAD_LAST_SCALE": 0.0,
    "KPTS_HEAD_BLOCKS": [],
    "KPTS_HEAD_STRIDE": 0,
    "MASK_HEAD_LAST_SCALE": 0.0,
    "MASK_HEAD_BLOCKS": [],
    "MASK_HEAD_STRIDE": 0,
    "RPN_HEAD_BLOCKS": 0,
    "RPN_BN_TYPE": "",
}

WITHOUT_EFFECT = {
    "AMP_VERBOSE": "torch.amp, in place of apex, prints nothing",
    "PATHS_CATALOG": "catalogs in Python are never executed; any other value is refused when it is merged",
    "MODEL.BACKBONE.USE_GN": "FCOS's code never read it; BACKBONE.NORM, RESNETS.TRANS_FUNC and VOVNET.USE_GN decide",
    "MODEL.RETINANET.STRADDLE_THRESH": "as in the forks, RetinaNet trains all anchors, also those across the border",
    "MODEL.ROI_HEADS.USE_FPN": "the forks' code never read it; the POOLER_SCALES of the heads decide",
    "MODEL.ROI_KEYPOINT_HEAD.MLP_HEAD_DIM": "the head has convolutions only, see CONV_LAYERS",
    "MODEL.ROI_MASK_HEAD.MLP_HEAD_DIM": "the head has convolutions only, see CONV_LAYERS",
    "MODEL.VOVNET.OUT_CHANNELS": "the body tells FPN its channels; another number than the body's is logged",
    "MODEL.VOVNET.PRETRAINED": "the forks' code never read it; MODEL.WEIGHT names the weights",
    **{f"MODEL.FBNET.{key}": "FBNet's layers are not in this package" for key in FBNET},
}


def add_fbnet(model: CfgNode) -> None:
    """Add the section FBNET with its defaults to MODEL."""
    model.FBNET = CfgNode(FBNET)
