"""Settings for reading image files, shared by training, testing and drawing."""

from __future__ import annotations

from dataclasses import dataclass, replace

EXIF_ROTATIONS = ("auto", "stored", "upright")
SIZE_MISMATCHES = ("error", "scale", "scale_each", "keep")


@dataclass(frozen=True)
class ImageSettings:
    """Validated settings for reading images.

    Args:
        exif_rotation: DATASETS.EXIF_ROTATION, one of EXIF_ROTATIONS. "stored" uses the pixels as in the file;
            "upright" rotates and mirrors by the EXIF orientation; "auto" follows the sizes in the annotations.
        size_mismatch: DATASETS.SIZE_MISMATCH, one of SIZE_MISMATCHES, for images with another size than annotated.
            "error" raises; "scale" scales boxes, masks and keypoints by one factor common to all
            images; "scale_each" by a factor per image; "keep" leaves them unchanged.
        value_range: INPUT.VALUE_RANGE, the (lowest, highest) values mapped to 0 and 255 in images of more than 8 bits.
            Empty or None: see `datasets.images`.

    Raises:
        ValueError: a setting is invalid; the message names the key.
    """

    exif_rotation: str = "auto"
    size_mismatch: str = "error"
    value_range: tuple[float, float] | None = None

    def __post_init__(self):
        for key, value, known in (
            ("DATASETS.EXIF_ROTATION", self.exif_rotation, EXIF_ROTATIONS),
            ("DATASETS.SIZE_MISMATCH", self.size_mismatch, SIZE_MISMATCHES),
        ):
            if value not in known:
                raise ValueError(f"{key} must be one of {', '.join(map(repr, known))}, got {value!r}")
        if not self.value_range:
            object.__setattr__(self, "value_range", None)
        elif len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]:
            raise ValueError(
                f"INPUT.VALUE_RANGE must be empty or (lowest, highest) with lowest < highest, got {self.value_range!r}"
            )


def upright_unless_stored(images: ImageSettings | None) -> ImageSettings:
    """Replace exif_rotation "auto" by "upright", for formats that refer to upright images. None is ImageSettings()."""
    images = images or ImageSettings()
    return replace(images, exif_rotation="upright") if images.exif_rotation == "auto" else images


def image_settings(cfg) -> ImageSettings:
    """Build ImageSettings from DATASETS and INPUT.

    Raises:
        ValueError: see ImageSettings.
    """
    return ImageSettings(
        exif_rotation=cfg.DATASETS.EXIF_ROTATION,
        size_mismatch=cfg.DATASETS.SIZE_MISMATCH,
        value_range=tuple(cfg.INPUT.VALUE_RANGE),
    )
