"""Small datasets that the doctor examines."""

from helpers.coco_folder import CocoFolder
from maskrcnn_benchmark.doctor.examine import config_of_file, examine, read_splits


class Clinic(CocoFolder):
    """A CocoFolder that can be examined."""

    def diagnose(self, *options):
        """Examine the folder as an annotation file; options are KEY, VALUE, ..."""
        cfg = config_of_file(self.write()["ann_file"], None)
        cfg.merge_from_list(list(options))
        return examine(cfg, read_splits(cfg, False), "boxes.json", False)


def block(folder: CocoFolder, name: str) -> dict:
    files = folder.write(f"{name}.json")
    return {"NAME": name, "FORMAT": "coco", "IMAGES": files["root"], "ANNOTATIONS": files["ann_file"]}


def named(diagnosis, check: str, part: str = ""):
    """Return the findings of a check whose title contains `part`."""
    return [each for each in diagnosis.findings if each.check == check and part in each.title]
