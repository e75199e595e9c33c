"""Defaults for semantic maps: MODEL.SEM_SEG_HEAD, DEEPLAB and PANOPTIC_FPN, INPUT.SEMANTIC, TEST.SEMANTIC.

All keys are new. SEM_SEG_HEAD and PANOPTIC_FPN have detectron2's names and defaults.
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
# Weight of every class in the cross entropy; () = 1 each.
SEM_SEG_HEAD.CLASS_WEIGHTS = ()
# "hard_examples": the loss uses pixels with a class probability below HARD_PROBABILITY, and at least HARD_FRACTION of
# all pixels.
SEM_SEG_HEAD.HARD_PROBABILITY = 0.7
SEM_SEG_HEAD.HARD_FRACTION = 0.0625

# DeepLabV3's head, for META_ARCHITECTURE SemanticSegmentor (new). The stride of the body is BACKBONE.OUTPUT_STRIDE.
DEEPLAB = CN()
# Channels of every branch of the spatial pyramid pooling, and dilations of its 3x3 convolutions: 6, 12, 18 for output
# stride 16, twice that for 8.
DEEPLAB.CHANNELS = 256
DEEPLAB.RATES = (6, 12, 18)
# Dropout probability after the pyramid pooling.
DEEPLAB.DROPOUT = 0.0
# "FrozenBN", "BN", "SyncBN" or "GN", with eps (for GN see GROUP_NORM) and momentum.
DEEPLAB.NORM = "BN"
DEEPLAB.NORM_EPS = 1e-5
DEEPLAB.NORM_MOMENTUM = 0.1
# Add a 3x3 convolution, norm and ReLU before the classifier, as in torchvision.
DEEPLAB.EXTRA_CONV = False
# align_corners of the upsampling.
DEEPLAB.ALIGN_CORNERS = True
# DeepLabV3+: concatenate the body's map of stride 4, reduced to this many channels, before the classifier.
DEEPLAB.DECODER = False
DEEPLAB.DECODER_LOW_LEVEL_CHANNELS = 48

# Panoptic FPN: things and stuff in one map (new).
PANOPTIC_FPN = CN()
# Weight of the losses of box and mask head.
PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT = 1.0
# Dropped are instances below this score, instances that better ones cover by more than the fraction OVERLAP_THRESH, and
# stuff with fewer than STUFF_AREA_LIMIT pixels of the original image.
PANOPTIC_FPN.COMBINE = CN()
PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.5
PANOPTIC_FPN.COMBINE.OVERLAP_THRESH = 0.5
PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 4096

# For META_ARCHITECTURE SemanticSegmentor, instead of MIN_SIZE and MAX_SIZE (new). Images are tested at their own size.
INPUT_SEMANTIC = CN()
# Training images are scaled by a log-uniform factor between these two, cropped at random to (height, width), and padded
# to that size at the right and bottom. (1.0, 1.0) disables scaling, an empty list disables cropping.
INPUT_SEMANTIC.SCALE_RANGE_TRAIN = (0.5, 2.0)
INPUT_SEMANTIC.CROP_SIZE_TRAIN = (513, 513)
# Redraw a crop, up to ten times, if one class has more than this share of its labelled pixels; 1 = never.
INPUT_SEMANTIC.CROP_MAX_CLASS_SHARE = 1.0

# For META_ARCHITECTURE SemanticSegmentor (new).
TEST_SEMANTIC = CN()
# "whole": whole images. "slide": sliding windows. "auto": sliding windows for images over WHOLE_MAX_PIXELS.
TEST_SEMANTIC.MODE = "auto"
TEST_SEMANTIC.WHOLE_MAX_PIXELS = 2_200_000
# Pad whole images to at least (height, width), as in training; an empty list disables padding.
TEST_SEMANTIC.PAD_TO = ()
# (height, width) of a window, and overlap of neighbouring windows as a share of it. Probabilities are averaged there.
TEST_SEMANTIC.WINDOW = (513, 513)
TEST_SEMANTIC.OVERLAP = 1.0 / 3
# Probabilities are averaged over these scales of the image, and with H_FLIP over the image and its mirror image.
TEST_SEMANTIC.SCALES = (1.0,)
TEST_SEMANTIC.H_FLIP = False
# Also compute the boundary IoU (Cheng et al., CVPR 2021) of every class.
TEST_SEMANTIC.BOUNDARY_IOU = False
# Write the predicted classes as palette PNG in the size of each image.
TEST_SEMANTIC.WRITE_MAPS = True
