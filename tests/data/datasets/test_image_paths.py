import unicodedata

import pytest

from maskrcnn_benchmark.data.datasets.image_paths import find_images, hint_for_missing


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "export" / "images"
    folder.mkdir(parents=True)

    def make(*names):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return str(folder)

    return make


@pytest.mark.parametrize(
    "written, there, how",
    [
        ("images\\x.jpg", "x.jpg", "moved"),
        ("..\\..\\media\\upload\\4\\x.jpg", "x.jpg", "moved"),
        ("C:\\Users\\me\\x.jpg", "x.jpg", "moved"),
        ("/home/somebody/data/images/x.jpg", "x.jpg", "moved"),
        ("https://example.org/pictures/x.jpg", "x.jpg", "moved"),
        ("/data/local-files/?d=images/x.jpg", "x.jpg", "moved"),
        ("a\\b\\x.jpg", "a/b/x.jpg", "respelled"),
        ("x.JPG", "x.jpg", "respelled"),
        ("Waschb%C3%A4r.jpg", "Waschbär.jpg", "respelled"),
        ("Waschbär.jpg", unicodedata.normalize("NFD", "Waschbär.jpg"), "respelled"),
        (unicodedata.normalize("NFD", "Waschbär.jpg"), "Waschbär.jpg", "respelled"),
    ],
)
def test_file_names_written_by_exporters_are_found(images, written, there, how):
    found = find_images(images(there), [written], [0])
    assert found.file_names == [there] and found.missing == []
    assert (found.respelled, found.moved) == (([0], []) if how == "respelled" else ([], [0]))


def test_another_folder_before_the_name_is_reported_as_elsewhere(images):
    root = images("x.jpg", "y.jpg")
    found = find_images(root, ["train/x.jpg", "Images/y.jpg"], [0, 1])
    assert found.moved == [0, 1] and found.elsewhere == [0]


@pytest.mark.parametrize(
    "written, is_elsewhere",
    [
        ("images/v1/patch8/x.jpg", False),  # Objects365
        ("JPEGImages/x.jpg", False),  # labelme2coco
        ("val2017/x.jpg", True),
        ("val2017/a/x.jpg", True),
        ("hornets/x.jpg", True),  # exists beside the image folder
        ("wasps/x.jpg", False),
        ("export/train/x.jpg", True),
        ("C:\\me\\images\\x.jpg", False),
    ],
)
def test_folders_of_another_split_or_beside_the_image_folder_are_elsewhere(images, tmp_path, written, is_elsewhere):
    root = images("x.jpg")
    (tmp_path / "export" / "hornets").mkdir()
    assert find_images(root, [written], [0]).elsewhere == [0] * is_elsewhere


def test_a_folder_of_the_same_split_is_not_elsewhere(images, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "x.jpg").touch()
    found = find_images(str(tmp_path / "train"), ["images/train/patch8/x.jpg"], [0])
    assert found.moved == [0] and found.elsewhere == []


def test_two_names_do_not_share_one_file(images):
    root = images("x.jpg", "y.jpg")
    found = find_images(root, ["a/x.jpg", "b/x.jpg", "c/y.jpg", "y.jpg"], [0, 1, 2])
    assert found.missing == found.ambiguous == [0, 1, 2]
    assert found.file_names == ["a/x.jpg", "b/x.jpg", "c/y.jpg", "y.jpg"]


def test_names_that_differ_only_in_case_are_not_guessed(images):
    assert find_images(images("x.jpg", "X.jpg"), ["x.JPG"], [0]).missing == [0]


def test_a_file_in_another_folder_is_named_but_not_used(images, tmp_path):
    root = images("sub/x.jpg", "near.jpg")
    assert find_images(root, ["x.jpg"], [0]).missing == [0]
    assert "x.jpg is in " + root + "/sub" in hint_for_missing(root, "x.jpg")
    (tmp_path / "export" / "val").mkdir()
    (tmp_path / "export" / "val" / "v.jpg").touch()
    assert str(tmp_path / "export" / "val") in hint_for_missing(root, "v.jpg")
    assert "near.jpg" in hint_for_missing(root, "naer.jpg")


def test_many_names_are_found_without_comparing_all_pairs(images, counted):
    count = 100
    root = images(*(f"{k}.jpg" for k in range(count)))
    names = [counted(f"/home/somebody/{k}.jpg") for k in range(count)]
    found = find_images(root, names, list(range(count)))
    assert found.moved == list(range(count))
    assert counted.comparisons < 10 * count


def test_a_name_written_twice_is_found_twice(images):
    found = find_images(images("x.jpg"), ["a/x.jpg", "a/x.jpg"], [0, 1])
    assert found.file_names == ["x.jpg", "x.jpg"] and found.missing == []
