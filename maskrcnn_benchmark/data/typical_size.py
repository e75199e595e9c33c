"""Find the size of the images that a model is trained on."""

from __future__ import annotations

# Approximate number of images whose size is looked up, spread evenly over the dataset.
SAMPLED = 500


def typical_size(dataset) -> list[int] | None:
    """Return [width, height] of the image with the median shorter side, before any resizing; None without images."""
    step = max(len(dataset) // SAMPLED, 1)
    infos = (dataset.get_img_info(index) for index in range(0, len(dataset), step))
    sizes = sorted(([info["width"], info["height"]] for info in infos), key=min)
    return sizes[len(sizes) // 2] if sizes else None
