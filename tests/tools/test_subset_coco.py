"""tools/subset_coco.py: keep the first images of a COCO JSON file."""

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "subset_coco.py"


def take(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)


def test_first_images_by_id_with_their_annotations_and_all_categories(tmp_path):
    data = {
        "info": {"year": 2026},
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in (7, 3, 5)],
        "annotations": [{"id": k, "image_id": number} for k, number in enumerate((3, 7, 5, 3))],
        "categories": [{"id": 1, "name": "a"}, {"id": 9, "name": "b"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(data))
    done = take(tmp_path / "all.json", "--first", 2, "--output", tmp_path / "some.json")
    assert done.returncode == 0 and "2 images, 3 annotations" in done.stdout
    some = json.loads((tmp_path / "some.json").read_text())
    assert [image["id"] for image in some["images"]] == [3, 5]
    assert [row["id"] for row in some["annotations"]] == [0, 2, 3]
    assert (some["categories"], some["info"]) == (data["categories"], data["info"])


def test_a_file_that_is_no_coco_json_is_an_error(tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    done = take(tmp_path / "bad.json", "--first", 2, "--output", tmp_path / "out.json")
    assert done.returncode == 1 and "bad.json: KeyError: 'images'" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_zero_images_is_an_error(tmp_path):
    done = take("a.json", "--first", 0, "--output", tmp_path / "out.json")
    assert done.returncode == 2 and "--first is 0" in done.stderr
