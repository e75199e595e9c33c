"""Published results of the original systems, from the tables of their READMEs.

Times are those of the hardware named there. mmdetection's VoVNet has no results, only configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """Row of a table.

    Args:
        network: name in the table.
        milliseconds: time per image.
        accuracy: accuracy in percent, see Table.
        config: name of our config file, see `config_name`; "" if there is none.
    """

    network: str
    milliseconds: float
    accuracy: float
    config: str = ""


@dataclass(frozen=True)
class Table:
    """Results of one detector of one system.

    Args:
        system, detector: names of the system and the detector.
        hardware: GPU on which the times were measured.
        metric: "box AP" (COCO, AP averaged over IoU 0.50:0.95; val2017 or minival) or "mIoU" (VOC 2012).
        rows: results, from fast to slow.
    """

    system: str
    detector: str
    hardware: str
    metric: str
    rows: tuple[Published, ...]


TABLES = (
    Table(
        "maskrcnn-benchmark + VoVNet",
        "Faster R-CNN",
        "TITAN Xp",
        "box AP",
        (
            Published("R-50", 78, 37.5, "e2e_faster_rcnn_R_50_FPN_2x"),
            Published("V-39", 78, 39.8, "e2e_faster_rcnn_V_39_FPN_2x"),
            Published("V-57", 87, 40.8, "e2e_faster_rcnn_V_57_FPN_2x"),
            Published("R-101", 97, 39.6, "e2e_faster_rcnn_R_101_FPN_2x"),
        ),
    ),
    Table(
        "maskrcnn-benchmark + VoVNet",
        "Mask R-CNN",
        "TITAN Xp",
        "box AP",
        (
            Published("V-39", 81, 41.0, "e2e_mask_rcnn_V_39_FPN_2x"),
            Published("R-50", 83, 38.6, "e2e_mask_rcnn_R_50_FPN_2x"),
            Published("V-57", 90, 42.0, "e2e_mask_rcnn_V_57_FPN_2x"),
            Published("R-101", 102, 40.8, "e2e_mask_rcnn_R_101_FPN_2x"),
        ),
    ),
    Table(
        "FCOS + VoVNet",
        "FCOS",
        "TITAN Xp",
        "box AP",
        (
            Published("V-39", 82, 37.7, "fcos_V_39_FPN_1x"),
            Published("R-50", 84, 37.5, "fcos_R_50_FPN_1x"),
            Published("V-57", 91, 41.6, "fcos_V_57_FPN_2x_ms"),
            Published("R-101", 104, 41.3, "fcos_R_101_FPN_2x"),
            Published("V-93", 113, 42.1, "fcos_V_93_FPN_2x_ms"),
            Published("X-101", 171, 42.5, "fcos_X_101_32x8d_FPN_2x"),
        ),
    ),
    Table(
        "detectron2 + VoVNetV2",
        "Faster R-CNN, FPNLite",
        "V100",
        "box AP",
        (
            Published("V2-19-slim-dw", 22, 32.4, "faster_rcnn_V_19_slim_dw_FPNLite_3x"),
            Published("MobileNetV2", 22, 33.0, "faster_rcnn_Mv2_FPNLite_3x"),
            Published("V2-19-slim", 23, 35.2, "faster_rcnn_V_19_slim_FPNLite_3x"),
            Published("V2-19-dw", 27, 36.7, "faster_rcnn_V_19_dw_FPNLite_3x"),
            Published("V2-19", 34, 38.9, "faster_rcnn_V_19_FPNLite_3x"),
        ),
    ),
    Table(
        "detectron2 + VoVNetV2",
        "Faster R-CNN",
        "V100",
        "box AP",
        (
            Published("V2-19", 40, 38.9, "faster_rcnn_V_19_FPN_3x"),
            Published("R-50", 47, 40.2),
            Published("V2-39", 47, 42.7, "faster_rcnn_V_39_FPN_3x"),
            Published("V2-57", 54, 43.3, "faster_rcnn_V_57_FPN_3x"),
            Published("R-101", 63, 42.0),
            Published("V2-99", 73, 44.1, "faster_rcnn_V_99_FPN_3x"),
            Published("X-101", 120, 43.0),
        ),
    ),
    Table(
        "detectron2 + VoVNetV2",
        "Mask R-CNN",
        "V100",
        "box AP",
        (
            Published("V2-19-FPNLite", 36, 39.7, "mask_rcnn_V_19_FPNLite_3x"),
            Published("V2-19", 44, 40.1, "mask_rcnn_V_19_FPN_3x"),
            Published("V2-39", 52, 43.8, "mask_rcnn_V_39_FPN_3x"),
            Published("R-50", 55, 41.0),
            Published("V2-57", 58, 44.2, "mask_rcnn_V_57_FPN_3x"),
            Published("R-101", 70, 42.9),
            Published("V2-99", 76, 44.9, "mask_rcnn_V_99_FPN_3x"),
            Published("X-101", 129, 44.3),
        ),
    ),
    Table(
        "detectron2 + VoVNetV2",
        "Panoptic FPN",
        "V100",
        "box AP",
        (
            Published("R-50", 63, 40.0),
            Published("V2-39", 63, 42.8, "panoptic_fpn_V_39_FPN_3x"),
            Published("V2-57", 70, 43.4, "panoptic_fpn_V_57_FPN_3x"),
            Published("R-101", 78, 42.4),
        ),
    ),
    Table(
        "CenterMask2",
        "CenterMask-Lite",
        "TITAN Xp",
        "box AP",
        (
            Published("V2-19-slim-dw", 20, 29.5, "v2/centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x"),
            Published("MobileNetV2", 21, 29.8, "v2/centermask_lite_Mv2_FPN_ms_4x"),
            Published("V2-19-slim", 21, 32.5, "v2/centermask_lite_V_19_slim_eSE_FPN_ms_4x"),
            Published("V2-19", 23, 35.9, "v2/centermask_lite_V_19_eSE_FPN_ms_4x"),
            Published("V2-39", 28, 40.9, "v2/centermask_lite_V_39_eSE_FPN_ms_4x"),
        ),
    ),
    Table(
        "CenterMask2",
        "CenterMask",
        "V100",
        "box AP",
        (
            Published("V2-39", 50, 44.2, "v2/centermask_V_39_eSE_FPN_ms_3x"),
            Published("V2-57", 58, 45.1, "v2/centermask_V_57_eSE_FPN_ms_3x"),
            Published("V2-39-DCN", 61, 45.1, "v2/centermask_V_39_eSE_dcn_FPN_ms_3x"),
            Published("V2-57-DCN", 71, 45.5, "v2/centermask_V_57_eSE_dcn_FPN_ms_3x"),
            Published("V2-99", 77, 46.0, "v2/centermask_V_99_eSE_FPN_ms_3x"),
            Published("V2-99-DCN", 110, 46.9, "v2/centermask_V_99_eSE_dcn_FPN_ms_3x"),
        ),
    ),
    Table(
        "CenterMask2",
        "Panoptic CenterMask",
        "V100",
        "box AP",
        (
            Published("R-50", 63, 41.4, "v2/panoptic_centermask_R_50_FPN_ms_3x"),
            Published("V2-39", 66, 43.4, "v2/panoptic_centermask_V_39_eSE_FPN_ms_3x"),
            Published("V2-57", 71, 43.9, "v2/panoptic_centermask_V_57_eSE_FPN_ms_3x"),
            Published("R-101", 76, 43.5, "v2/panoptic_centermask_R_101_FPN_ms_3x"),
            Published("V2-99", 91, 45.1, "v2/panoptic_centermask_V_99_eSE_FPN_ms_3x"),
        ),
    ),
    Table(
        "CenterMask",
        "CenterMask",
        "TITAN Xp",
        "box AP",
        (
            Published("MobileNetV2", 56, 35.5, "v1/centermask_M_v2_FPN_ms_3x"),
            Published("V2-19", 59, 39.7, "v1/centermask_V_19_eSE_FPN_ms_3x"),
            Published("V2-39", 70, 43.5, "v1/centermask_V_39_eSE_FPN_ms_3x"),
            Published("R-50", 72, 41.7, "v1/centermask_R_50_FPN_ms_3x"),
            Published("V2-57", 76, 44.6, "v1/centermask_V_57_eSE_FPN_ms_3x"),
            Published("R-101", 91, 43.7, "v1/centermask_R_101_FPN_ms_3x"),
            Published("V2-99", 106, 45.6, "v1/centermask_V_99_eSE_FPN_ms_3x"),
            Published("X-101", 157, 44.4, "v1/centermask_X_101_FPN_ms_3x"),
        ),
    ),
    Table(
        "DeepLabV3 + VoVNet",
        "DeepLabV3",
        "V100",
        "mIoU",
        (
            Published("V-39", 19, 75.71, "deeplabv3_V_39_voc"),
            Published("R-50", 24, 74.27, "deeplabv3_R_50_voc"),
            Published("V-57", 25, 77.40, "deeplabv3_V_57_voc"),
            Published("R-101", 32, 76.81, "deeplabv3_R_101_voc"),
            Published("DenseNet-161", 49, 76.13, "deeplabv3_D_161_voc"),
            Published("DenseNet-201", 50, 75.63, "deeplabv3_D_201_voc"),
        ),
    ),
)


def config_name(file) -> str:
    """Return a config file's name without folder and extension.

    CenterMask's configs are v1/NAME and v2/NAME, because their names repeat.

    >>> config_name("configs/vovnet/centermask/v2/centermask_V_39_eSE_FPN_ms_3x.yaml")
    'v2/centermask_V_39_eSE_FPN_ms_3x'
    """
    path = Path(file)
    version = path.parent.name
    return f"{version}/{path.stem}" if version in ("v1", "v2") and path.parts[-3:-2] == ("centermask",) else path.stem


def published_accuracy(config: str) -> tuple[str, float] | None:
    """Return (metric, accuracy) published for a config file name (`config_name`); None if there is none."""
    for table in TABLES:
        for row in table.rows:
            if config and row.config == config:
                return table.metric, row.accuracy
    return None
