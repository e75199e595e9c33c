import pytest
import torch
from helpers import distributed_cases, processes

from maskrcnn_benchmark.engine import launch


@pytest.mark.parametrize("spelling", ["--local_rank=3", "--local-rank=3"])
def test_both_spellings_of_the_local_rank_are_accepted(spelling):
    arguments = launch.make_parser("").parse_args([spelling, "--config-file", "some.yaml", "SOLVER.MAX_ITER", "5"])
    assert (arguments.local_rank, arguments.config_file, arguments.opts) == (3, "some.yaml", ["SOLVER.MAX_ITER", "5"])


def test_argument_defaults_equal_the_forks():
    arguments = launch.make_parser("").parse_args([])
    assert (arguments.local_rank, arguments.config_file, arguments.opts) == (0, "", [])


def test_command_line_overrides_the_file_which_overrides_the_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("SOLVER: {MAX_ITER: 5, BASE_LR: 0.5}\n")
    cfg = launch.load_config(str(tmp_path / "c.yaml"), ["SOLVER.BASE_LR", "0.25"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM) == (5, 0.25, 0.9)
    with pytest.raises(ValueError, match="DTYPE"):
        launch.load_config("", ["DTYPE", "float8"])


def test_unknown_device_is_an_error():
    with pytest.raises(ValueError, match="MODEL.DEVICE is 'tpu'"):
        launch.start(launch.load_config("", ["MODEL.DEVICE", "tpu"]), args=None, log_dir="")


def test_one_gpu_for_several_processes_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="all processes of torchrun on one GPU"):
        launch.join_processes("cuda:1", 0)


@pytest.mark.parametrize("device, expected", [("cuda", 3), ("cuda:0", 0), ("cuda:1", 1)])
def test_index_of_the_device_selects_the_gpu(device, expected, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    launch.join_processes(device, 3)
    assert chosen == [expected]


def test_output_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "out").write_text("")
    cfg = launch.load_config("", ["MODEL.DEVICE", "cpu"])
    with pytest.raises(ValueError, match="OUTPUT_DIR '.*out' is a file; it should be a folder"):
        launch.start(cfg, launch.make_parser("").parse_args([]), log_dir=str(tmp_path / "out"))


def test_only_rank_0_reports_that_the_folder_is_in_use(tmp_path):
    raised = processes.run(2, distributed_cases.start_in_a_folder_in_use, str(tmp_path))
    assert raised == ["FolderInUse", "SystemExit"]
