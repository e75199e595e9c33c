"""Small folders of images and index maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

EXIF_ORIENTATION = 0x0112


class SemanticFolder:
    """Folder with images in root/images and index maps in root/maps."""

    def __init__(self, root: Path):
        self.root, self.images, self.maps = root, root / "images", root / "maps"
        self.images.mkdir(parents=True)
        self.maps.mkdir()
        self.rng = np.random.default_rng()

    def add(self, name: str, labels: np.ndarray | None, size=None, mode: str = "L", orientation: int = 1) -> np.ndarray:
        """Write an image, and its map in a mode: "L", "P", "I;16" or "RGB".

        Args:
            labels: (H, W); None writes no map.
            size: (width, height) of the image; the default is the size of the map.
            orientation: EXIF orientation of the image.
        """
        width, height = size or labels.shape[::-1]
        pixels = self.rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        path = self.images / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, exif=exif, quality=95)
        if labels is not None:
            self.write_map(f"{name}.png", labels, mode)
        return labels

    def write_map(self, file: str, labels: np.ndarray, mode: str = "L") -> None:
        path = self.maps / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == "I;16":
            image = Image.fromarray(labels.astype(np.uint16))
        else:
            image = Image.fromarray(labels.astype(np.uint8))
        if mode == "P":
            image = image.convert("L")
            image.putpalette(list(self.rng.permutation(768) % 256))
        elif mode == "RGB":
            image = image.convert("RGB")
        image.save(path)

    def block(self, **more) -> dict:
        return {"FORMAT": "semantic", "IMAGES": str(self.images), "ANNOTATIONS": str(self.maps), **more}
