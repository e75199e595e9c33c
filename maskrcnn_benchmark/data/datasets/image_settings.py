"""How datasets read image files: the settings that training, testing and drawing share."""

from __future__ import annotations

from dataclasses import dataclass

EXIF_ROTATIONS = ("auto", "stored", "upright")
SIZE_MISMATCHES = ("error", "scale", "scale_each", "keep")


@dataclass(frozen=True)
class ImageSettings:
    """Settings of reading images, checked.

    Args:
        exif_rotation: DATASETS.EXIF_ROTATION, one of EXIF_ROTATIONS. "stored": pixels as they are in the file;
            "upright": rotated and mirrored as EXIF says; "auto": as the sizes in the annotations show.
        size_mismatch: DATASETS.SIZE_MISMATCH, one of SIZE_MISMATCHES: what to do if images have another size than the
            annotations say. "scale": scale boxes, masks and keypoints by the one factor that all images have in
            common; "scale_each": by each image's own; "keep": use them as they are.
        value_range: INPUT.VALUE_RANGE, (lowest, highest) value that become 0 and 255 in images of more than 8 bits.
            Empty or None: see `datasets.images`.

    Raises:
        ValueError: a setting is none of these; the message names the key.
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
                raise ValueError(f"{key} is one of {', '.join(map(repr, known))}, got {value!r}")
        if not self.value_range:
            object.__setattr__(self, "value_range", None)
        elif len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]:
            raise ValueError(
                f"INPUT.VALUE_RANGE is empty or (lowest, highest) with lowest < highest, got {self.value_range!r}"
            )


def image_settings(cfg) -> ImageSettings:
    """Take the settings from DATASETS and INPUT.

    Raises:
        ValueError: see ImageSettings.
    """
    return ImageSettings(
        exif_rotation=cfg.DATASETS.EXIF_ROTATION,
        size_mismatch=cfg.DATASETS.SIZE_MISMATCH,
        value_range=tuple(cfg.INPUT.VALUE_RANGE),
    )
