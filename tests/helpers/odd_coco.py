"""Random COCO files with the defects of real exporters."""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.structures.rle import encode_window, parse_counts


def odd_content(rng: np.random.Generator, folder, images: int = 6, keypoints: int = 5) -> dict:
    """Write `images` images to a CocoFolder; return the content of a JSON file with random defects.

    At least one annotation in three is valid.
    """
    for number in range(1, images + 1):
        size = (int(rng.integers(30, 90)), int(rng.integers(30, 90)))
        folder.add_image(number, size, file_name=f"{number}.png")
    rows = []
    for image in folder.images:
        for _ in range(rng.integers(1, 7)):
            rows.append(_annotation(rng, image, len(rows) + 1, keypoints))
    rows += [dict(row) for row in rng.choice(rows, 2)]  # duplicates, as in an export merged with itself
    rows += [dict(row, id=900 + k) for k, row in enumerate(rng.choice(rows, 2))]
    rng.shuffle(rows)
    if rng.random() < 0.3:
        folder.images.append(dict(folder.images[0]))
    text_ids = rng.random()
    for image in folder.images:
        if text_ids < 0.3:
            image["id"] = str(image["id"])
        if rng.random() < 0.2:
            image.pop("width", None)
    names = ["left_eye", "right_eye", "nose", "left_ear", "right_ear"]
    categories = [
        {"id": 0, "name": "zoo", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "zoo", "keypoints": names},
        {"id": 7, "name": 5, "supercategory": "zoo"},
    ]
    if rng.random() < 0.3:
        for category in categories:
            category["id"] = str(category["id"])
    rng.shuffle(categories)
    return {"images": folder.images, "annotations": rows, "categories": categories}


def _annotation(rng: np.random.Generator, image: dict, number: int, keypoints: int) -> dict:
    width, height = image["width"], image["height"]
    x, y = rng.uniform(0, width - 12), rng.uniform(0, height - 12)
    w, h = rng.uniform(4, width - x), rng.uniform(4, height - y)
    polygon = [x, y, x + w, y, x + w / 2, y + h]
    window = np.ones((int(h), int(w)), dtype=np.uint8)
    rle = encode_window(window, int(x), int(y), height, width)
    points = np.stack(
        [rng.uniform(x, x + w, keypoints), rng.uniform(y, y + h, keypoints), rng.integers(0, 3, keypoints)], 1
    )
    row = {
        "id": number,
        "image_id": image["id"],
        "category_id": int(rng.choice([1, 7])),
        "bbox": [x, y, w, h],
        "area": w * h / 2,
        "iscrowd": 0,
        "segmentation": [polygon],
        "keypoints": points.reshape(-1).tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
    }
    for key in [key for key in ODD if rng.random() < 0.5]:
        kinds = ODD[key](row, polygon, rle, (width, height))
        row[key] = kinds[rng.integers(len(kinds))]
        if row[key] is MISSING:
            del row[key]
    return row


MISSING = object()

# by key: invalid and unusual values that occur in real files
ODD = {
    "bbox": lambda row, polygon, rle, size: [
        [str(v) for v in row["bbox"]],
        str(row["bbox"]),
        [*row["bbox"][:2], 1e300, 1e300],
        [-5, -7, *row["bbox"][2:]],
        [row["bbox"][0], row["bbox"][1], 0.7, 9],
        [row["bbox"][0], row["bbox"][1], -4, 9],
        [0, 0, 0, 0],
        [],
        [size[0] + 5, 5, 9, 9],
        [size[0] - 2.5, 3, 9, 9],
        [float("nan"), 1, 2, 3],
        None,
        MISSING,
    ],
    "area": lambda row, polygon, rle, size: [None, "12.5", 0, -3, float("inf"), 1e12, float("nan"), "big", [], MISSING],
    "iscrowd": lambda row, polygon, rle, size: [None, "0", "false", False, 0.0, 1, "1", True, MISSING],
    "image_id": lambda row, polygon, rle, size: [
        str(row["image_id"]),
        float(row["image_id"]),
        row["image_id"],
        999,
        None,
    ],
    "category_id": lambda row, polygon, rle, size: [str(row["category_id"]), float(row["category_id"]), 1, 7, 7, 55],
    "keypoints": lambda row, polygon, rle, size: [
        None,
        [],
        [0] * len(row["keypoints"]),
        [str(v) for v in row["keypoints"]],
        [1, 2],
        MISSING,
    ],
    "segmentation": lambda row, polygon, rle, size: [
        polygon,
        [[polygon]],
        [list(pair) for pair in zip(polygon[::2], polygon[1::2], strict=True)],
        [[list(pair) for pair in zip(polygon[::2], polygon[1::2], strict=True)]],
        [{"x": x, "y": y} for x, y in zip(polygon[::2], polygon[1::2], strict=True)],
        [[str(v) for v in polygon]],
        [polygon, polygon[:4], polygon + [3]],
        [[x - 3000 for x in polygon]],
        [[-60, -50, -20, -50, -20, -90]],
        [[5, 5, 9, 9, 12, 12]],
        [[0, 0, 1e8, 0, 1e8, 1e8]],
        [[v * 1e7 for v in polygon]],
        rle,
        [rle],
        {"size": rle["size"], "counts": rle["counts"].encode()},
        {"size": [str(v) for v in rle["size"]], "counts": parse_counts(rle["counts"], rle["size"]).tolist()},
        {"size": rle["size"], "counts": str(rle["counts"].encode())},
        parse_counts(rle["counts"], rle["size"]).tolist(),
        [parse_counts(rle["counts"], rle["size"]).tolist()],
        {"size": [size[1] + 9, size[0] + 4], "counts": [0, (size[1] + 9) * (size[0] + 4)]},
        {"size": rle["size"], "counts": [rle["size"][0] * rle["size"][1]]},
        {"size": rle["size"], "counts": "garbage"},
        [],
        {},
        None,
        "",
        [None],
        MISSING,
    ],
}
