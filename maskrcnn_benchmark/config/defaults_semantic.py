"""MODEL.SEM_SEG_HEAD, DEEPLAB and PANOPTIC_FPN: semantic maps' part of the configuration tree.

All are new; the names and defaults of SEM_SEG_HEAD and PANOPTIC_FPN are detectron2's.
"""

from __future__ import annotations

from .loading import CfgNode as CN

SEM_SEG_HEAD = CN()
# Classes of the semantic map; in a panoptic model class 0 is all things. -1 = take it from the training data.
SEM_SEG_HEAD.NUM_CLASSES = 54
# Panoptic FPN: channels of its convolutions, and their norm: "GN", "BN", "SyncBN" or "" for none.
SEM_SEG_HEAD.CONVS_DIM = 128
SEM_SEG_HEAD.NORM = "GN"
SEM_SEG_HEAD.LOSS_WEIGHT = 1.0
# SemanticSegmentor: "cross_entropy", "dice", "cross_entropy_dice" (their sum) or "hard_examples"; see semantic/loss.py.
SEM_SEG_HEAD.LOSS = "cross_entropy"
# A factor for every class in the cross entropy; () = 1 each.
SEM_SEG_HEAD.CLASS_WEIGHTS = ()
# "hard_examples": pixels whose class has less than this probability count, and in any case this part of all.
SEM_SEG_HEAD.HARD_PROBABILITY = 0.7
SEM_SEG_HEAD.HARD_FRACTION = 0.0625

# DeepLabV3's head, of META_ARCHITECTURE SemanticSegmentor (new). The body's stride is BACKBONE.OUTPUT_STRIDE.
DEEPLAB = CN()
# Channels of every branch of the spatial pyramid pooling, and dilations of its 3x3 convolutions: 6, 12, 18 at output
# stride 16, twice that at 8.
DEEPLAB.CHANNELS = 256
DEEPLAB.RATES = (6, 12, 18)
# Probability of dropping a value after it.
DEEPLAB.DROPOUT = 0.0
# "FrozenBN", "BN", "SyncBN" or "GN"; what it adds to the variance (not GN, see GROUP_NORM), weight of a batch's
# statistics.
DEEPLAB.NORM = "BN"
DEEPLAB.NORM_EPS = 1e-5
DEEPLAB.NORM_MOMENTUM = 0.1
# Another 3x3 convolution, norm and ReLU before the classifier (torchvision's).
DEEPLAB.EXTRA_CONV = False
# Upsampling takes the corner points, not the corners of the outer points, for the corners of the image.
DEEPLAB.ALIGN_CORNERS = True
# DeepLabV3+: join the body's map of stride 4, reduced to so many channels, before the classifier.
DEEPLAB.DECODER = False
DEEPLAB.DECODER_LOW_LEVEL_CHANNELS = 48

# Panoptic FPN: things and stuff in one map (new).
PANOPTIC_FPN = CN()
# Factor of the losses of box and mask head.
PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT = 1.0
# Left out, in the original picture: instances below this score, or of which surer ones cover more than OVERLAP_THRESH,
# and stuff of fewer pixels.
PANOPTIC_FPN.COMBINE = CN()
PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.5
PANOPTIC_FPN.COMBINE.OVERLAP_THRESH = 0.5
PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 4096
