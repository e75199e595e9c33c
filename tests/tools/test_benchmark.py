"""tools/benchmark.py on the tiny model of tests/tools."""

import json


def test_last_checkpoint_is_measured_on_the_test_dataset(project):
    project.config["OUTPUT_DIR"] = "out"
    trained = project.run("train_net.py", "--skip-test", "SOLVER.MAX_ITER", "1")
    assert trained.returncode == 0, trained.stderr
    done = project.run(
        "benchmark.py", "--weights", "--data", "--repeats", "1", "--warm-up", "0", "--json", "new/figures.json"
    )
    assert done.returncode == 0, done.stderr
    assert "model_final.pth" in done.stdout
    content = json.loads((project.folder / "new" / "figures.json").read_text())
    assert content["settings"]["images"] == "DATASETS.TEST"
    assert content["configs"][0]["network_input"] == [64, 64]


def test_overrides_may_follow_files_and_options(project):
    done = project.run("benchmark.py", "INPUT.MIN_SIZE_TEST", "32", "--repeats", "1", "DTYPE", "bfloat16")
    assert done.returncode == 0, done.stderr
    assert "bfloat16 on cpu" in done.stdout
    assert "64 x 32" in done.stdout


def test_no_file_is_an_error(project):
    done = project.run("benchmark.py", "--config-file", "DTYPE", "bfloat16")
    assert done.returncode != 0
    assert "files with the extension .yaml" in done.stderr


def test_invalid_plot_file_is_an_error_before_the_measurement(project):
    done = project.run("benchmark.py", "--plot", "speed.word")
    assert done.returncode == 2
    assert "can't draw to speed.word: ending 'word' is unknown" in done.stderr or "matplotlib" in done.stderr
    assert "preparing" not in done.stderr


def test_semantic_models_are_measured_and_trained_on_synthetic_maps(project):
    done = project.run(
        *("benchmark.py", "--train", "2", "--repeats", "1", "--warm-up", "0", "--size", "64", "64"),
        *("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.BACKBONE.CONV_BODY", "V-27"),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "-1", "INPUT.SEMANTIC.CROP_SIZE_TRAIN", "(64, 64)"),
    )
    assert done.returncode == 0, done.stderr
    assert "training step, ms" in done.stdout and "64 x 64" in done.stdout
