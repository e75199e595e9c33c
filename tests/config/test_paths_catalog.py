import pytest

from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog, ModelCatalog

# 3 COCO 2017 and 4 names of its panoptic datasets, 8 COCO 2014, 6 VOC and 5 of them in COCO style, 3 + 6 Cityscapes,
# 5 semantic VOC and 2 semantic Cityscapes
NUMBER_OF_SETS = 42


def test_the_catalog_has_the_names_of_all_forks():
    assert len(DatasetCatalog.DATASETS) == NUMBER_OF_SETS


@pytest.mark.parametrize(
    "name, factory, args",
    [
        (
            "coco_2017_val",
            "COCODataset",
            {"root": "D/coco/val2017", "ann_file": "D/coco/annotations/instances_val2017.json"},
        ),
        (
            "coco_2017_test_dev",
            "COCODataset",
            {"root": "D/coco/test2017", "ann_file": "D/coco/annotations/image_info_test-dev2017.json"},
        ),
        (
            "coco_2014_valminusminival",
            "COCODataset",
            {"root": "D/coco/val2014", "ann_file": "D/coco/annotations/instances_valminusminival2014.json"},
        ),
        (
            "keypoints_coco_2014_train",
            "COCODataset",
            {"root": "D/coco/train2014", "ann_file": "D/coco/annotations/person_keypoints_train2014.json"},
        ),
        (
            "coco_2017_val_panoptic_separated",
            "COCOPanopticDataset",
            {
                "root": "D/coco/val2017",
                "panoptic_file": "D/coco/annotations/panoptic_val2017.json",
                "instances_file": "D/coco/annotations/instances_val2017.json",
            },
        ),
        ("voc_2012_val", "PascalVOCDataset", {"data_dir": "D/voc/VOC2012", "split": "val"}),
        (
            "voc_2007_test_cocostyle",
            "COCODataset",
            {"root": "D/voc/VOC2007/JPEGImages", "ann_file": "D/voc/VOC2007/Annotations/pascal_test2007.json"},
        ),
        (
            "cityscapes_fine_instanceonly_seg_val_cocostyle",
            "COCODataset",
            {
                "root": "D/cityscapes/images",
                "ann_file": "D/cityscapes/annotations/instancesonly_filtered_gtFine_val.json",
            },
        ),
        (
            "cityscapes_mask_instance_minival",
            "CityScapesDataset",
            {
                "img_dir": "D/cityscapes/leftImg8bit",
                "ann_dir": "D/cityscapes/gtFine",
                "split": "val",
                "mode": "mask",
                "mini": 10,
            },
        ),
    ],
)
def test_names_resolve_to_the_forks_paths(name, factory, args):
    assert DatasetCatalog.get(name, "D") == {"factory": factory, "args": args}


def test_the_data_folder_is_the_argument_then_the_variable_then_datasets(monkeypatch):
    monkeypatch.delenv("MB_DATASETS", raising=False)
    assert DatasetCatalog.get("coco_2017_val")["args"]["root"] == "datasets/coco/val2017"
    monkeypatch.setenv("MB_DATASETS", "/big/disk")
    assert DatasetCatalog.get("coco_2017_val", "")["args"]["root"] == "/big/disk/coco/val2017"
    assert DatasetCatalog.get("coco_2017_val", "here")["args"]["root"] == "here/coco/val2017"


def test_modifying_a_result_does_not_change_the_catalog():
    DatasetCatalog.get("voc_2007_val")["args"]["split"] = "other"
    assert DatasetCatalog.get("voc_2007_val")["args"]["split"] == "val"


def test_an_unknown_name_shows_the_nearest_and_a_block():
    with pytest.raises(KeyError) as raised:
        DatasetCatalog.get("coco_2014_miniva")
    text = str(raised.value)
    assert "coco_2014_minival" in text and "FORMAT: coco" in text and "\n" in text


@pytest.fixture
def bees(tmp_path, monkeypatch):
    """Create the folders `here` (working directory) and `data`, each with some of the files."""
    for path in ("here/both", "data/both", "data/bees/images"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "data/bees/train.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def block(images, annotations, **more):
    return {"FORMAT": "coco", "IMAGES": str(images), "ANNOTATIONS": str(annotations), **more}


def test_paths_of_a_block_are_found_here_then_in_the_data_folder(bees):
    root = str(bees / "data")
    found = DatasetCatalog.get(block("bees/images", bees / "data/bees/train.json"), root)
    assert found["factory"] == "COCODataset"
    assert found["args"] == {"root": f"{root}/bees/images", "ann_file": f"{root}/bees/train.json"}
    assert DatasetCatalog.from_block(block("both", "bees/train.json"), root)["args"]["root"] == "both"


def test_a_missing_path_of_a_block_names_both_places(bees):
    with pytest.raises(FileNotFoundError) as raised:
        DatasetCatalog.get(block("bees/images", "bees/val.json", NAME="bees_val"), str(bees / "data"))
    text = str(raised.value)
    assert f"{bees}/here/bees/val.json" in text and f"{bees}/data/bees/val.json" in text
    assert "bees_val" in text and "MB_DATASETS" in text


def test_a_missing_absolute_path_names_only_itself(bees):
    with pytest.raises(FileNotFoundError) as raised:
        DatasetCatalog.get(block(bees / "nowhere", "bees/train.json"), str(bees / "data"))
    assert str(raised.value).count("nowhere") == 2 and "MB_DATASETS" not in str(raised.value)


def test_name_of_an_entry():
    assert DatasetCatalog.name("coco_2014_val") == "coco_2014_val"
    assert DatasetCatalog.name(block("a", "folder/train.v2.json")) == "train.v2"
    assert DatasetCatalog.name(block("a", "train.json", NAME="bees")) == "bees"


DETECTRON = "https://dl.fbaipublicfiles.com/detectron"


@pytest.mark.parametrize(
    "name, address",
    [
        ("ImageNetPretrained/MSRA/R-50", f"{DETECTRON}/ImageNetPretrained/MSRA/R-50.pkl"),
        ("catalog://ImageNetPretrained/MSRA/R-101-GN", f"{DETECTRON}/ImageNetPretrained/47592356/R-101-GN.pkl"),
        (
            "ImageNetPretrained/FAIR/20171220/X-101-64x4d",
            f"{DETECTRON}/ImageNetPretrained/20171220/X-101-64x4d.pkl",
        ),
        (
            "Caffe2Detectron/COCO/35857345/e2e_faster_rcnn_R-50-FPN_1x",
            f"{DETECTRON}/35857345/12_2017_baselines/e2e_faster_rcnn_R-50-FPN_1x.yaml.01_36_30.cUF7QR7I/output/train/"
            "coco_2014_train%3Acoco_2014_valminusminival/generalized_rcnn/model_final.pkl",
        ),
        (
            "Caffe2Detectron/COCO/37697547/e2e_keypoint_rcnn_R-50-FPN_1x",
            f"{DETECTRON}/37697547/12_2017_baselines/e2e_keypoint_rcnn_R-50-FPN_1x.yaml.08_42_54.kdzV35ao/output/train/"
            "keypoints_coco_2014_train%3Akeypoints_coco_2014_valminusminival/generalized_rcnn/model_final.pkl",
        ),
    ],
)
def test_model_names_resolve_to_the_forks_addresses(name, address):
    assert ModelCatalog.get(name) == address


@pytest.mark.parametrize("name", ["ImageNetPretrained/MSRA/R-51", "MSRA/R-50", "Caffe2Detectron/35857197", ""])
def test_an_unknown_model_shows_near_names(name):
    with pytest.raises(KeyError, match="Nearest: .*/"):
        ModelCatalog.get(name)
