"""Keys without effect, accepted so that other projects' files merge; each with the reason."""

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
    "AMP_VERBOSE": "torch.amp replaces apex and prints nothing",
    "PATHS_CATALOG": "catalogs in Python are never executed; merging any other value is an error",
    "MODEL.BACKBONE.USE_GN": "FCOS's code never read it; use BACKBONE.NORM, RESNETS.TRANS_FUNC and VOVNET.USE_GN",
    "MODEL.RETINANET.STRADDLE_THRESH": "RetinaNet trains all anchors, also those across the border, as in the forks",
    "MODEL.ROI_HEADS.USE_FPN": "the forks' code never read it; use the POOLER_SCALES of the heads",
    "MODEL.ROI_KEYPOINT_HEAD.MLP_HEAD_DIM": "the head has only convolutions, see CONV_LAYERS",
    "MODEL.ROI_MASK_HEAD.MLP_HEAD_DIM": "the head has only convolutions, see CONV_LAYERS",
    "MODEL.VOVNET.OUT_CHANNELS": "FPN gets its channels from the body; a different number is logged",
    "MODEL.VOVNET.PRETRAINED": "the forks' code never read it; use MODEL.WEIGHT",
    **{f"MODEL.FBNET.{key}": "FBNet's layers are not in this package" for key in FBNET},
}


def add_fbnet(model: CfgNode) -> None:
    """Add the section FBNET with its defaults to MODEL."""
    model.FBNET = CfgNode(FBNET)
