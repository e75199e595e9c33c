"""MODEL.SEM_SEG_HEAD, DEEPLAB, PANOPTIC_FPN, INPUT.SEMANTIC, TEST.SEMANTIC: semantic maps' part of the tree.

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

# META_ARCHITECTURE SemanticSegmentor, in place of MIN_SIZE and MAX_SIZE (new). Its images are tested in their own size.
INPUT_SEMANTIC = CN()
# Training images are scaled by a factor between these two, log-uniform, cut at random to (height, width), and padded to
# it, right and bottom. (1.0, 1.0) scales nothing, an empty list crops nothing.
INPUT_SEMANTIC.SCALE_RANGE_TRAIN = (0.5, 2.0)
INPUT_SEMANTIC.CROP_SIZE_TRAIN = (513, 513)
# Draw a crop again, up to ten times, while one class has more than this share of its labelled pixels; 1 = never.
INPUT_SEMANTIC.CROP_MAX_CLASS_SHARE = 1.0

# META_ARCHITECTURE SemanticSegmentor (new).
TEST_SEMANTIC = CN()
# "whole": an image at once. "slide": by windows. "auto": by windows from WHOLE_MAX_PIXELS on.
TEST_SEMANTIC.MODE = "auto"
TEST_SEMANTIC.WHOLE_MAX_PIXELS = 2_200_000
# Whole images are padded to at least (height, width), as in training; an empty list pads nothing.
TEST_SEMANTIC.PAD_TO = ()
# (height, width) of a window, and the share of it that neighbours have in common; there probabilities are averaged.
TEST_SEMANTIC.WINDOW = (513, 513)
TEST_SEMANTIC.OVERLAP = 1.0 / 3
# Probabilities are averaged over these scales of the image, and with H_FLIP over the image and its mirror image.
TEST_SEMANTIC.SCALES = (1.0,)
TEST_SEMANTIC.H_FLIP = False
# Boundary IoU (Cheng et al., CVPR 2021) of every class beside the IoU of its area.
TEST_SEMANTIC.BOUNDARY_IOU = False
# Write the classes found as palette PNG in the size of each image.
TEST_SEMANTIC.WRITE_MAPS = True
