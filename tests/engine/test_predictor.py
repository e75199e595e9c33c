import json
import pickle
import threading

import numpy as np
import pytest
import torch
from helpers.tiny_data import write_images
from helpers.tiny_models import MODELS, tiny_cfg, tiny_model
from PIL import Image

import maskrcnn_benchmark
from maskrcnn_benchmark.checkpoint.checkpointer import write_checkpoint
from maskrcnn_benchmark.engine.inference import compute_on_dataset
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.evaluation.coco import prepare_for_coco_keypoint
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.modeling.detector import build_detection_model

# Names of the classes that the tiny models predict, and their ids in the annotations of tiny_data.
NAMES, IDS = ["a", "b"], [1, 2]
SMALL = ("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96)


def make(name, *opts, seed=0, **options):
    torch.manual_seed(seed)
    cfg = tiny_cfg(name, *SMALL, *opts)
    model = tiny_model(cfg)
    return Predictor(cfg, model=model, class_names=NAMES, **options), cfg, model


def noise(seed, height=64, width=90):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_same(one, other):
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    assert one.labels.tolist() == other.labels.tolist()


# Without its semantic head, "panoptic centermask" is "centermask" on other maps.
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("rpn", "panoptic centermask")])
def test_results_equal_run_test_with_one_image_per_batch(name, tmp_path):
    block = write_images(tmp_path)
    predictor, cfg, model = make(name, "TEST.IMS_PER_BATCH", 1)
    cfg.DATASETS.TEST, cfg.OUTPUT_DIR = (block,), str(tmp_path)
    if name == "panoptic":  # its test requires panoptic data; an R-CNN with the same weights has the same detections
        cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    if cfg.MODEL.KEYPOINT_ON:
        cfg.MODEL.KEYPOINT_ON = False  # the dataset has no keypoints
        predictor, _, model = make(name)
    run_test(cfg, _without_semantic(model), make_test_loaders(cfg))
    predictions = predictor([tmp_path / f"{number}.png" for number in (1, 2, 3)])
    entries = [each for number, one in enumerate(predictions, start=1) for each in one.to_coco(number)]
    for file, key in (("bbox", "bbox"), ("segm", "segmentation")):
        path = tmp_path / "inference" / "test" / f"{file}.json"
        if not path.exists():
            assert file == "segm" and not cfg.MODEL.MASK_ON
            continue
        expected = sorted(json.loads(path.read_text()), key=lambda each: (each["image_id"], -each["score"]))
        assert len(entries) == len(expected) > 0

        def score(entry, key=key):
            return entry.get("mask_score", entry["score"]) if key == "segmentation" else entry["score"]

        found = sorted(entries, key=lambda each: (each["image_id"], -score(each)))
        for one, other in zip(found, expected, strict=True):
            assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
            assert score(one) == pytest.approx(other["score"], abs=1e-6)
            assert one[key] == (other[key] if key == "segmentation" else pytest.approx(other[key], abs=1e-3))


def _without_semantic(model):
    if not hasattr(model, "sem_seg_head"):
        return model
    from maskrcnn_benchmark.modeling.detector.generalized_rcnn import GeneralizedRCNN

    return GeneralizedRCNN(model.backbone, model.rpn, model.roi_heads).eval()


@pytest.mark.parametrize("name", list(MODELS))
def test_batches_equal_single_images_in_order(name):
    predictor, _, _ = make(name, batch_size=2)
    # 0 and 2 share a batch, and so do 1 and 4; 3 has the size of 0 only after resizing
    images = [noise(0), noise(1, 90, 60), noise(2), noise(3, 128, 180), noise(4, 90, 60)]
    together = predictor(images, channel_order="rgb")
    for image, prediction in zip(images, together, strict=True):
        assert prediction.size == (image.shape[1], image.shape[0])
        assert len(prediction) > 0
        assert_same(prediction, predictor(image, channel_order="rgb"))


def test_all_input_types_give_equal_predictions(tmp_path):
    predictor, _, _ = make("fcos")
    pixels = noise(0)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    expected = predictor(str(path))
    alpha = np.concatenate((pixels, pixels[:, :, :1]), axis=2)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for given, order in (
        (path, None),
        (Image.fromarray(pixels), None),
        (Image.fromarray(alpha, "RGBA"), None),
        (pixels, "rgb"),
        (np.ascontiguousarray(pixels[:, :, ::-1]), "bgr"),
        (alpha, "rgb"),
        (pixels.astype(np.uint16) * 257, "rgb"),
        (pixels / 255, "rgb"),
        (tensor, "rgb"),
        (tensor.float() / 255, "rgb"),
        (tensor.flip(0), "bgr"),
    ):
        assert_same(predictor(given, channel_order=order), expected)
    many = predictor([path, Image.fromarray(pixels), pixels], channel_order="rgb")
    assert len(many) == 3
    assert_same(many[2], expected)
    assert len(predictor(torch.stack([tensor, tensor]), channel_order="rgb")) == 2
    assert len(predictor(each for each in [path])) == 1


def test_grey_palette_and_16_bit_images_are_read_as_in_training(tmp_path):
    predictor, _, _ = make("fcos")
    grey = noise(0)[:, :, 0]
    expected = predictor(np.stack([grey] * 3, axis=2), channel_order="rgb")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for prediction in predictor(sorted(tmp_path.iterdir())):
        assert_same(prediction, expected)
    assert_same(predictor(grey), expected)


def test_exif_rotation_is_applied_unless_the_config_says_stored(tmp_path):
    image = Image.fromarray(noise(0))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    predictor, _, _ = make("fcos")
    assert predictor(tmp_path / "turned.png").size == (64, 90)
    stored, _, _ = make("fcos", "DATASETS.EXIF_ROTATION", "stored")
    assert stored(tmp_path / "turned.png").size == (90, 64)


def test_unknown_channel_order_and_unsupported_inputs_are_errors(tmp_path):
    predictor, _, _ = make("fcos")
    with pytest.raises(ValueError, match="channel_order='bgr' \\(OpenCV\\)"):
        predictor(noise(0))
    with pytest.raises(ValueError, match="'rgb' or 'bgr', got 'gbr'"):
        predictor(noise(0), channel_order="gbr")
    with pytest.raises(TypeError, match="a path, a PIL image"):
        predictor(7)
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        predictor(np.zeros((4, 4, 5), dtype=np.uint8), channel_order="rgb")
    with pytest.raises(OSError):
        predictor(tmp_path / "missing.jpg")


def test_errors_of_unreadable_images_can_be_yielded(tmp_path):
    predictor, _, _ = make("fcos", batch_size=2)
    Image.fromarray(noise(0)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("not an image")
    paths = [tmp_path / f"{number}.png" for number in (1, 2, 3)]
    first, second, third = predictor.stream(paths, errors="yield")
    assert len(first) and isinstance(second, OSError) and isinstance(third, FileNotFoundError)
    with pytest.raises(OSError):
        list(predictor.stream(paths))


def test_stream_reads_a_generator_only_as_far_as_needed():
    predictor, _, _ = make("fcos", batch_size=2)
    taken = []

    def images():
        for number in range(1000):
            taken.append(number)
            yield noise(number)

    stream = predictor.stream(images(), channel_order="rgb")
    next(stream)
    stream.close()
    assert len(taken) < 20


def test_threads_can_share_a_predictor():
    predictor, _, _ = make("mask")
    images = [noise(seed) for seed in range(6)]
    expected = [predictor(image, channel_order="rgb") for image in images]
    results = {}

    def work(k):
        results[k] = predictor(images[k], channel_order="rgb")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(6):
        assert_same(results[k], expected[k])


def test_from_checkpoint_requires_only_the_checkpoint(tmp_path):
    predictor, cfg, model = make("mask")
    entries = {
        "model": model.state_dict(),
        "config": cfg.dump(),
        "class_names": ["cat", "dog"],
        "category_ids": [17, 18],
    }
    write_checkpoint(tmp_path / "model_final.pth", entries)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "model_final.pth"))
    expected = predictor(noise(0), channel_order="rgb")
    for path in (tmp_path / "model_final.pth", tmp_path):
        loaded = maskrcnn_benchmark.Predictor.from_checkpoint(path)
        prediction = loaded(noise(0), channel_order="rgb")
        assert_same(prediction, expected)
        assert set(prediction.names) <= {"cat", "dog"} and set(prediction.category_ids) <= {17, 18}


def test_weights_that_do_not_match_are_errors(tmp_path):
    _, cfg, model = make("mask")
    write_checkpoint(tmp_path / "bare.pth", model.state_dict())
    with pytest.raises(ValueError, match="contains no configuration"):
        Predictor.from_checkpoint(tmp_path / "bare.pth")
    body = {name: each for name, each in model.state_dict().items() if name.startswith("backbone.")}
    write_checkpoint(tmp_path / "body.pth", body)
    with pytest.raises(ValueError, match="lacks .* tensors of the model .*would keep random values"):
        Predictor(cfg, tmp_path / "body.pth")
    with pytest.raises(ValueError, match="3 classes .*NUM_CLASSES is 3"):
        Predictor(cfg, tmp_path / "bare.pth", class_names=["a", "b", "c"])
    with pytest.raises(ValueError, match="no weights to predict with"):
        Predictor(cfg)
    loaded = Predictor(cfg, tmp_path / "bare.pth")
    assert loaded.class_names == ("class 1", "class 2")


def test_coco_weights_without_names_get_coco_names_and_ids(tmp_path):
    cfg = tiny_cfg("fcos", *SMALL, "MODEL.FCOS.NUM_CLASSES", 81, "DATASETS.TEST", ("coco_2014_minival",))
    predictor = Predictor(cfg, model=tiny_model(cfg))
    assert (predictor.class_names[0], predictor.class_names[-1]) == ("person", "toothbrush")
    assert predictor.label_names.category_ids[11:13] == (13, 14)


def test_thresholds_by_class_and_class_selection():
    everything, cfg, model = make("fcos")
    found = everything(noise(0), channel_order="rgb")
    some = Predictor(cfg, model=model, class_names=NAMES, score_threshold={"a": 0.7, "b": 0.6})
    expected = found.filter(score={"a": 0.7, "b": 0.6})
    assert 0 < len(expected) < len(found)
    assert_same(some(noise(0), channel_order="rgb"), expected)
    only = Predictor(cfg, model=model, class_names=NAMES, score_threshold=0.7, classes=["b"])
    assert_same(only(noise(0), channel_order="rgb"), found.filter(score=0.7, classes=["b"]))
    with pytest.raises(ValueError, match="no class 'c'"):
        Predictor(cfg, model=model, class_names=NAMES, score_threshold={"c": 0.5})


def test_test_time_augmentation_and_bfloat16_are_used():
    opts = ("TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.H_FLIP", True)
    augmented, _, _ = make("mask", *opts)
    plain, _, _ = make("mask")
    one, other = augmented(noise(0), channel_order="rgb"), plain(noise(0), channel_order="rgb")
    assert len(one.masks) == len(one) > 0
    assert one.scores.tolist() != other.scores.tolist()
    half, _, _ = make("mask", dtype="bfloat16")
    scores = half(noise(0), channel_order="rgb").scores
    assert scores[0] == pytest.approx(other.scores[0], abs=0.1) and scores[0] != other.scores[0]


def test_columns_of_a_table_become_lines_of_json(tmp_path):
    predictor, _, _ = make("fcos", channel_order="rgb")
    Image.fromarray(noise(0)).save(tmp_path / "1.png")
    batch = {"path": np.array([str(tmp_path / "1.png"), str(tmp_path / "2.png")]), "id": np.array([5, 6])}
    result = predictor(batch)
    found, failed = map(json.loads, result["prediction"])
    assert (found["width"], found["height"]) == (90, 64) and found["objects"][0]["class_name"] in NAMES
    assert "2.png" in failed["error"] and result["id"].tolist() == [5, 6]
    assert "image" not in predictor({"image": np.stack([noise(0)])})


def test_prediction_pickles_and_prints():
    predictor, _, _ = make("mask")
    prediction = predictor(noise(0), channel_order="rgb").filter(score=0.3)
    copy = pickle.loads(pickle.dumps(prediction))
    assert_same(copy, prediction)
    assert copy.masks == prediction.masks and copy.class_names == ("a", "b")
    assert repr(copy).startswith("Prediction(90 x 64 pixels; ") and "objects: " in repr(copy)


@pytest.mark.parametrize("tiles", [0, 64])
def test_semantic_segmentor_gives_a_class_for_each_original_pixel(tiles):
    torch.manual_seed(0)
    cfg = tiny_cfg("fcos", "MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.FCOS_ON", False)
    cfg.MODEL.BACKBONE.CONV_BODY, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = "V-27", 4
    predictor = Predictor(cfg, model=build_detection_model(cfg).eval(), tiles=tiles, overlap=0.25)
    first, second = predictor([noise(0), noise(1, 90, 60)], channel_order="rgb")
    assert first.semantic_map.shape == (64, 90) and second.semantic_map.shape == (90, 60)
    assert len(first) == 0 and first.to_coco() == [] and set(first.semantic_classes) <= {f"class {k}" for k in range(4)}
    assert (first.semantic_map == predictor(noise(0), channel_order="rgb").semantic_map).all()
    assert first.draw(noise(0)).shape == (64, 90, 3)


def test_keypoints_equal_those_of_run_test(tmp_path):
    block = write_images(tmp_path)
    predictor, cfg, model = make("keypoint", "TEST.IMS_PER_BATCH", 1)
    cfg.DATASETS.TEST, cfg.MODEL.KEYPOINT_ON = (block,), False  # the dataset has no keypoints
    (loader,) = make_test_loaders(cfg).values()
    outputs = compute_on_dataset(for_inference(model), loader, "cpu")
    expected = prepare_for_coco_keypoint(outputs, loader.dataset)
    expected.sort(key=lambda each: (each["image_id"], -each["score"]))
    predictions = predictor([tmp_path / f"{number}.png" for number in (1, 2, 3)])
    entries = [each for number, one in enumerate(predictions, start=1) for each in one.to_coco(number)]
    assert len(entries) == len(expected) > 0
    for one, other in zip(entries, expected, strict=True):
        assert one["keypoints"] == pytest.approx(other["keypoints"], abs=1e-3)
