"""Defaults of images and datasets: INPUT, DATASETS and DATALOADER."""

from __future__ import annotations

from .defaults_semantic import INPUT_SEMANTIC
from .loading import CfgNode as CN

# Sizes in pixels: the shorter side is resized to MIN_SIZE unless the longer one would exceed MAX_SIZE.
INPUT = CN()
# One of these is drawn per image.
INPUT.MIN_SIZE_TRAIN = (800,)
# (lo, hi): draw any integer from lo to hi instead; (-1, -1) = use MIN_SIZE_TRAIN.
INPUT.MIN_SIZE_RANGE_TRAIN = (-1, -1)
INPUT.MAX_SIZE_TRAIN = 1333
INPUT.MIN_SIZE_TEST = 800
INPUT.MAX_SIZE_TEST = 1333
# In the channel order and range of the network input: BGR 0..255 with TO_BGR255, else RGB 0..1.
INPUT.PIXEL_MEAN = [102.9801, 115.9465, 122.7717]
INPUT.PIXEL_STD = [1.0, 1.0, 1.0]
INPUT.TO_BGR255 = True
# (lowest, highest) values mapped to 0 and 255 in images of more than 8 bits (new). () = 0..65535 for integers, 0..1 for
# floats if no value of the image exceeds 1, else 0..255.
INPUT.VALUE_RANGE = ()
# Colour jitter; 0 = off.
INPUT.BRIGHTNESS = 0.0
INPUT.CONTRAST = 0.0
INPUT.SATURATION = 0.0
INPUT.HUE = 0.0
# Probabilities.
INPUT.HORIZONTAL_FLIP_PROB_TRAIN = 0.5
INPUT.VERTICAL_FLIP_PROB_TRAIN = 0.0
# Pairs of keypoints to swap in a mirrored image (new), by names or numbers from 0; [] for none. None pairs the names
# that differ by "left" and "right". Training requires the pairs if names are missing or mark sides in another way, and
# does not flip images if no name has a side.
INPUT.KEYPOINT_FLIP_PAIRS = None

INPUT.SEMANTIC = INPUT_SEMANTIC

DATASETS = CN()
# Each entry is a catalog name ("coco_2014_train") or an inline block
#   {FORMAT: coco, IMAGES: folder or "shards/{000..127}.tar", ANNOTATIONS: file, NAME: optional}
#   {FORMAT: coco_panoptic, IMAGES: folder, ANNOTATIONS: file, SEGMENTS: folder of png, INSTANCES: optional file}
#   {FORMAT: semantic, IMAGES: folder, ANNOTATIONS: folder of index png, CLASSES: names or file, SPLIT: optional list,
#    IGNORE: pixel values or "others", VALUES: optional pixel value per class, IMAGE_SUFFIX, MAP_SUFFIX: optional}
#   {FORMAT: coco_semantic, IMAGES: folder, ANNOTATIONS: file}
#   {FORMAT: lvis, IMAGES: COCO's folder, ANNOTATIONS: file}
#   {FORMAT: yolo, DATA: data.yaml, SPLIT: train}
#   {FORMAT: openimages, IMAGES: folder, ANNOTATIONS: csv, CLASSES: optional csv, SPLIT: optional list,
#    MASKS: optional csv, MASK_IMAGES: folder of png, HIERARCHY: optional json}
#   {FORMAT: labelme, ANNOTATIONS: folder of json, IMAGES: optional, CLASSES: optional names, SPLIT: optional list}
#   {FORMAT: cityscapes_semantic, IMAGES: leftImg8bit, ANNOTATIONS: gtFine, SPLIT: train, LABELS: optional}
# A single entry does not need a list. Training sets are concatenated, test sets are evaluated one by one.
DATASETS.TRAIN = ()
DATASETS.TEST = ()
# Folder for catalog names and relative paths of blocks (new); "" = $MB_DATASETS, else "datasets".
DATASETS.ROOT = ""
# Also train on images without any annotation (new).
DATASETS.KEEP_EMPTY_IMAGES = False
# Read annotations with iscrowd 1 as ordinary objects, in training and evaluation (new). CVAT exports brush masks with
# iscrowd 1.
DATASETS.CROWD_AS_OBJECTS = False
# Keep unused categories that name the project (Roboflow's category 0) or the background (new).
DATASETS.KEEP_PLACEHOLDER_CATEGORIES = False
# Models with keypoints train only on images with at least this many visible keypoints (new). 0 = no limit; -1 = 10 for
# the catalog's keypoints_coco_*, as in the forks, no limit for others.
DATASETS.MIN_VISIBLE_KEYPOINTS = -1
# Sigmas of the object keypoint similarity: standard deviation of annotators relative to the object's size, one per
# keypoint or one for all (new). () = COCO's for 17 person keypoints; other keypoints require a value.
DATASETS.KEYPOINT_SIGMAS = ()

# EXIF rotation and mirroring (new). "stored": ignored; "upright": applied; "auto": applied if the annotations have the
# rotated size. Where sizes do not decide (square images, half turns, no annotated size), an image is rotated if
# all other sizes and boxes of the dataset agree with rotation.
DATASETS.EXIF_ROTATION = "auto"
# Images whose size differs from the annotated one (new). "error" raises; "scale" scales boxes, masks and keypoints by
# one factor common to all images; "scale_each" by a factor per image; "keep" leaves them unchanged.
DATASETS.SIZE_MISMATCH = "error"
# Cache parsed COCO annotations and image headers in a file that later runs and all processes map into memory (new; see
# docs/data.md). "auto": for annotation files of 4 MB or more; "always"; "never".
DATASETS.TABLE = "auto"
# Folder of the cache (new); "" = .mb_tables beside the annotations, or ~/.cache/maskrcnn_benchmark/tables.
DATASETS.TABLE_DIR = ""

DATALOADER = CN()
# Worker processes per training process; 0 = load in the process itself.
DATALOADER.NUM_WORKERS = 4
# Seconds to wait for a batch before an error that names worker and image (new); 0 = no limit.
DATALOADER.TIMEOUT = 600
# Pad batches to a multiple of this many pixels; 0 = only to the largest image.
DATALOADER.SIZE_DIVISIBILITY = 0
# Do not mix wide and tall images in a batch.
DATALOADER.ASPECT_RATIO_GROUPING = True
