import logging

import pytest
import torch

from maskrcnn_benchmark.engine import launch

logger = logging.getLogger("maskrcnn_benchmark.test_launch")


@pytest.fixture
def threads(monkeypatch, caplog):
    """threads(**environment): how many choose_threads sets on 8 cores, and its line."""
    caplog.set_level("INFO")
    before = torch.get_num_threads()
    monkeypatch.setattr(launch, "usable_cores", lambda: 8)

    def call(**environment):
        for name in ("MB_NUM_THREADS", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        torch.set_num_threads(1)
        launch.choose_threads(logger)
        return torch.get_num_threads(), caplog.records[-1].message

    yield call
    torch.set_num_threads(before)


def test_torchruns_single_thread_becomes_a_share_of_the_cores(threads):
    number, line = threads(LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")
    assert number == 4
    assert line == (
        "Using 4 CPU threads per process on 8 cores (an equal share of the cores in place of torchrun's "
        "OMP_NUM_THREADS=1; MB_NUM_THREADS=N changes it)"
    )


def test_more_processes_than_cores_get_one_thread_each(threads):
    assert threads(LOCAL_WORLD_SIZE="16", OMP_NUM_THREADS="1")[0] == 1


def test_users_choice_stands(threads):
    assert threads(MB_NUM_THREADS="3", LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")[0] == 3
    assert threads(LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="2")[0] == 1  # as torch had it
    number, line = threads(OMP_NUM_THREADS="1")
    assert number == 1
    assert "torch's choice" in line


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_senseless_number_of_threads_is_an_error(threads, value):
    with pytest.raises(ValueError, match="MB_NUM_THREADS is"):
        threads(MB_NUM_THREADS=value)


@pytest.mark.parametrize("spelling", ["--local_rank=3", "--local-rank=3"])
def test_both_spellings_of_the_local_rank_are_accepted(spelling):
    arguments = launch.make_parser("").parse_args([spelling, "--config-file", "some.yaml", "SOLVER.MAX_ITER", "5"])
    assert (arguments.local_rank, arguments.config_file, arguments.opts) == (3, "some.yaml", ["SOLVER.MAX_ITER", "5"])


def test_defaults_of_the_arguments_are_the_forks():
    arguments = launch.make_parser("").parse_args([])
    assert (arguments.local_rank, arguments.config_file, arguments.opts) == (0, "", [])


def test_config_is_the_defaults_then_the_file_then_the_command_line(tmp_path):
    (tmp_path / "c.yaml").write_text("SOLVER: {MAX_ITER: 5, BASE_LR: 0.5}\n")
    cfg = launch.load_config(str(tmp_path / "c.yaml"), ["SOLVER.BASE_LR", "0.25"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM) == (5, 0.25, 0.9)
    with pytest.raises(ValueError, match="DTYPE"):
        launch.load_config("", ["DTYPE", "float8"])


def test_a_device_that_is_none_is_named():
    with pytest.raises(ValueError, match="MODEL.DEVICE is 'tpu'"):
        launch.start(launch.load_config("", ["MODEL.DEVICE", "tpu"]), args=None, log_dir="")
