"""A dataset of annotations without images, and detections derived from ground truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.structures.bounding_box import BoxList


class AnnotationsOnly:
    """Dataset with only the methods that COCO evaluation requires."""

    def __init__(self, ann_file):
        content = json.loads(ann_file.read_text())
        self.ann_file = str(ann_file)
        self.images = content["images"]
        categories = sorted(content["categories"], key=lambda category: category["id"])
        self.class_names = [category["name"] for category in categories]
        self.contiguous_category_id_to_json_id = {k + 1: category["id"] for k, category in enumerate(categories)}

    def __len__(self):
        return len(self.images)

    def image_id(self, index):
        return self.images[index]["id"]

    def get_img_info(self, index):
        return self.images[index]


@pytest.fixture
def coco_dataset(tmp_path):
    """Return make({image id: (width, height)}, [(image id, category id, xywh[, more keys])], {category id: name})."""

    def make(images, annotations, categories, **top_level):
        content = {
            "images": [{"id": i, "width": w, "height": h, "file_name": f"{i}.jpg"} for i, (w, h) in images.items()],
            "annotations": [
                {"id": k + 1, "image_id": image_id, "category_id": category_id, "bbox": box}
                | {"area": box[2] * box[3], "iscrowd": 0}
                | (extras[0] if extras else {})
                for k, (image_id, category_id, box, *extras) in enumerate(annotations)
            ],
            "categories": [{"id": category_id, "name": name} for category_id, name in categories.items()],
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content | top_level))
        return AnnotationsOnly(path)

    return make


@pytest.fixture
def boxlist():
    """Return make(size, [(xyxy, label, score), ...]), which builds a BoxList."""

    def make(size, entries):
        new = BoxList([box for box, _, _ in entries], size)
        new.add_field("labels", torch.tensor([label for _, label, _ in entries], dtype=torch.int64))
        new.add_field("scores", torch.tensor([score for _, _, score in entries], dtype=torch.float32))
        return new

    return make


@pytest.fixture
def random_scenes():
    """Return make(rng): ground truth (crowd, all sizes, ids with gaps) and detections (ties, misses, noise)."""

    def make(rng: np.random.Generator):
        categories = (1, 3, 17, 90)
        images = [{"id": 5 + 2 * k, "width": 400, "height": 300} for k in range(8)]
        annotations, detections = [], []

        def box(x, y, w, h):
            return [float(x), float(y), float(max(w, 1)), float(max(h, 1))]

        for image in images:
            for _ in range(rng.integers(0, 10)):
                x, y, w, h = *rng.uniform(0, 300, 2), *np.exp(rng.uniform(1, 5.4, 2))
                category = int(rng.choice(categories[:3]))  # 90 has no ground truth
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image["id"],
                        "category_id": category,
                        "bbox": box(x, y, w, h),
                        "area": float(w * h * rng.uniform(0.5, 1)),
                        "iscrowd": int(rng.random() < 0.2),
                    }
                )
                for _ in range(rng.integers(0, 4)):
                    dx, dy, dw, dh = rng.normal(0, 0.08, 4) * (w, h, w, h)
                    detections.append(
                        {
                            "image_id": image["id"],
                            "category_id": int(rng.choice(categories)) if rng.random() < 0.2 else category,
                            "bbox": box(x + dx, y + dy, w + dw, h + dh),
                            "score": float(rng.integers(1, 11)) / 10,
                        }
                    )
            for _ in range(rng.integers(0, 130)):  # sometimes more than the limit of 100
                detections.append(
                    {
                        "image_id": image["id"],
                        "category_id": 3,
                        "bbox": box(*rng.uniform(0, 300, 2), *np.exp(rng.uniform(1, 5.4, 2))),
                        "score": float(rng.uniform(0, 0.5)),
                    }
                )
        content = {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": category, "name": f"class {category}"} for category in categories],
        }
        return content, detections

    return make
