"""LabelMe datasets: a folder with one json per image."""

from __future__ import annotations

import os
from collections.abc import Sequence

from maskrcnn_benchmark.data.datasets.file_lists import IMAGE_ENDINGS, list_files
from maskrcnn_benchmark.data.datasets.image_checks import MISSING
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.labelme_shapes import IGNORED_LABELS, LabelMeFile, objects_of, read_file
from maskrcnn_benchmark.data.datasets.reading import FROM_THE_DATA, Reading
from maskrcnn_benchmark.data.datasets.records_dataset import RecordsDataset
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute
from maskrcnn_benchmark.utils.text_file import read_text


class LabelMeDataset(RecordsDataset):
    """Images of a folder of LabelMe json files, sorted by path.

    Polygons, rectangles, circles and masks are objects; shapes with the same label and group_id form one object. Points
    and lines are left out and counted. Images are those that "imagePath" names; embedded ones ("imageData") are not
    read.

    Args:
        annotation_dir: folder of the json files, searched recursively.
        image_dir: folder that "imagePath" is relative to; None: each json's own folder.
        remove_images_without_annotations: drop images without a usable box (for training).
        transforms: (image, target) -> (image, target); None returns PIL images.
        class_names: K names, label k is class_names[k - 1]; or "from the data" for all labels of all files in the
            folder, in alphabetical order.
        split_file: text file with the name of one json or image per line; None uses all files.
        name: name of the dataset in messages; default: that of the folder.
        images: how image files are read; None is ImageSettings().
        reading: how annotations are read, and whether they are cached in a table file; None is Reading().
        rebuild: ignore an existing table file and write a new one (table_cache.py).

    Image ids are the paths of the json files without ending.

    Raises:
        FileNotFoundError: the folder, files of the split or images are missing; the first few are named.
        ValueError: no json has shapes, a json is malformed, or no image is left to train on.
        OSError: images cannot be decoded; the first few are named.
    """

    def __init__(
        self,
        annotation_dir: str,
        image_dir: str | None = None,
        remove_images_without_annotations: bool = False,
        transforms=None,
        *,
        class_names: Sequence[str] | str = FROM_THE_DATA,
        split_file: str | None = None,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        rebuild: bool = False,
    ):
        self._folder = os.fspath(annotation_dir)
        self._has_image_dir = image_dir is not None
        self._class_names = class_names
        self._split_file = split_file
        super().__init__(
            os.fspath(image_dir or annotation_dir),
            self._folder,
            "json",
            remove_images_without_annotations,
            transforms,
            name=name or os.path.basename(os.path.abspath(self._folder)),
            images=images,
            reading=reading,
            sources=Sources(
                self._folder,
                {
                    "annotation_dir": absolute(annotation_dir),
                    "image_dir": absolute(image_dir),
                    "remove_images_without_annotations": remove_images_without_annotations,
                    "class_names": class_names,
                    "split_file": absolute(split_file),
                },
                self._find_sources,
            ),
            rebuild=rebuild,
        )

    def _find_sources(self) -> tuple[list[str], dict]:
        paths = [os.path.join(self._folder, path) for path in list_files(self._folder, ".json")]
        return paths if self._split_file is None else [*paths, self._split_file], {}

    def read_records(self, report: DatasetReport) -> dict:
        paths = list_files(self._folder, ".json")
        files = {path[:-5]: read_file(os.path.join(self._folder, path)) for path in paths}
        foreign = [f"{path}.json" for path, file in files.items() if file is None]
        files = {path: file for path, file in files.items() if file is not None}
        if not files:
            raise ValueError(f"annotation folder {self._folder} has no LabelMe json (an object with 'shapes')")
        report.add("noted", "json files that are not LabelMe's", foreign, "files")
        names = self._class_names
        if names == FROM_THE_DATA:
            labels = {str(shape.label) for file in files.values() for shape in file.shapes if shape.label}
            names = sorted(labels - IGNORED_LABELS)
        if not names:
            raise ValueError(f"annotation folder {self._folder}: no shape of any json has a label")
        if self._split_file is not None:
            files = {path: files[path] for path in _chosen(self._split_file, files, report.name)}
        file_names = self._image_files(files, report)
        files = {path: files[path] for path in file_names}
        return {
            "categories": [{"id": k, "name": name} for k, name in enumerate(names, start=1)],
            "images": [
                {"id": path, "file_name": file_names[path], "width": file.imageWidth, "height": file.imageHeight}
                for path, file in files.items()
            ],
            "annotations": objects_of(files, names, report),
        }

    def _image_files(self, files: dict[str, LabelMeFile], report: DatasetReport) -> dict[str, str]:
        """Return the image file of each json, relative to the root.

        Raises:
            FileNotFoundError: images are missing as files and only embedded in their json (imageData).
        """
        found, by_stem, embedded = {}, [], []
        for path, file in files.items():
            folder = "" if self._has_image_dir else os.path.dirname(path)
            name = os.path.normpath(os.path.join(folder, str(file.imagePath or path).replace("\\", "/")))
            if not os.path.isfile(os.path.join(self.root, name)):
                here = os.path.join(folder, os.path.basename(name))  # without another machine's folders
                stems = (os.path.join(folder, os.path.basename(path)), path)
                near = [f"{stem}{ending}" for stem in stems for ending in IMAGE_ENDINGS]
                other = next((n for n in (here, *near) if os.path.isfile(os.path.join(self.root, n))), None)
                if other is not None and other != here:
                    by_stem.append(path)
                if other is None and file.is_embedded:
                    embedded.append(path)
                name = other or name
            found[path] = name
        report.add("repaired", "images found by the name of their json instead of its imagePath", by_stem, "images")
        left_out = set(embedded)
        if embedded:
            names = ", ".join(found[path] for path in embedded[:EXAMPLES])
            error = FileNotFoundError(
                f"dataset {report.name}: {len(embedded):,} of {len(files):,} images are missing in {self.root}: {names}"
                f"{', ...' if len(embedded) > EXAMPLES else ''}. Their json files embed them (imageData), which is not "
                "read: copy the image files there, or write them with labelme_export_json."
            )
            self.leave_out(MISSING, [(path, f"{found[path]}, embedded in its json") for path in embedded], error)
        return {path: found[path] for path in found if path not in left_out}


def _chosen(split_file: str, files: dict, name: str) -> list[str]:
    """Return the keys of `files` that a split file lists. Its lines may omit the folders and the ending."""
    by_name = {os.path.basename(path): path for path in files}
    lines = [line.strip().replace("\\", "/") for line in read_text(split_file).splitlines() if line.strip()]
    chosen, missing = {}, []
    for line in lines:
        stem, ending = os.path.splitext(line)
        stem = stem if ending.lower() in (".json", *IMAGE_ENDINGS) else line
        path = stem if stem in files else by_name.get(os.path.basename(stem))
        if path is None:
            missing.append(line)
        else:
            chosen[path] = True
    if missing or not chosen:
        names = ", ".join(missing[:EXAMPLES]) + (", ..." if len(missing) > EXAMPLES else "")
        raise FileNotFoundError(
            f"dataset {name}: {len(missing):,} of {len(lines):,} lines of {split_file} (SPLIT) name no json file: "
            f"{names}"
        )
    return list(chosen)
