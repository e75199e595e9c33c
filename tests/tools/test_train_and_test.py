"""tools/train_net.py and tools/test_net.py in subprocesses, as users run them."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.engine.metrics_file import read_metrics

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
# user's set-up module of all processes: it kills process 1 once, when a file appears
KILLER = """
import os, signal, threading, time

def setup_environment():
    if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
        threading.Thread(target=wait_and_kill, daemon=True).start()

def wait_and_kill():
    while not os.path.exists(os.environ["KILL_WHEN"]):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def old_launcher():
    """Return the arguments of torch.distributed.launch, which requires a port."""
    return ("-m", "torch.distributed.launch", "--nproc_per_node=2", f"--master_port={free_port()}")


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def assert_succeeded(run):
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-12000:]


def assert_identical(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_ends_with_a_test_that_test_net_reproduces(project):
    run = project.run("train_net.py", "OUTPUT_DIR", "out", "SOLVER.TEST_PERIOD", "4")
    assert_succeeded(run)
    out = project.folder / "out"
    for name in ("config.yml", "labels.json", "log.txt", "metrics.json", "model_final.pth", "model_best.pth"):
        assert (out / name).is_file(), name
    assert json.loads((out / "labels.json").read_text()) == {"1": "bright", "2": "dark"}
    checkpoint = torch.load(out / "model_final.pth", weights_only=True)
    assert checkpoint["class_names"] == ["bright", "dark"]
    assert "NUM_CLASSES: 3" in checkpoint["config"]
    assert checkpoint["image_size"] == [64, 64]
    results = (out / "inference/test/coco_results.json").read_text()
    assert "[Validation]: iter: 4  test/bbox/AP" in run.stdout
    assert "Using 1 CPU processes" in run.stdout
    assert (out / "log.txt").read_text().splitlines()[-1] in run.stdout

    again = project.run("test_net.py", "--ckpt", "out/model_final.pth", "OUTPUT_DIR", "other")
    assert_succeeded(again)
    assert "Testing the weights of out/model_final.pth" in again.stdout
    assert (project.folder / "other/inference/test/coco_results.json").read_text() == results

    finished = project.run("train_net.py", "OUTPUT_DIR", "out")
    assert_succeeded(finished)
    assert "Training is already finished: at iteration 6 of 6" in finished.stdout
    assert "Start evaluation on test dataset(5 images)." in finished.stdout


def test_training_killed_at_any_time_resumes_bit_identical(project):
    project.config["SOLVER"] |= {"MAX_ITER": 24, "ACCUMULATION_STEPS": 2}
    project.config["DATALOADER"]["NUM_WORKERS"] = 1
    arguments = ("train_net.py", "--skip-test", "OUTPUT_DIR")
    for first_seen in (2, 10):
        training = project.start(*arguments, "killed")
        while training.running() and not (project.folder / f"killed/model_{first_seen:07d}.pth").exists():
            time.sleep(0.002)
        delay = random.random() * 0.2
        print("killed", delay, "s after checkpoint", first_seen)
        time.sleep(delay)
        training.kill()
        assert training.wait().returncode == -signal.SIGKILL
    assert not (project.folder / "killed/model_final.pth").exists()
    assert_succeeded(project.run(*arguments, "killed"))
    assert_succeeded(project.run(*arguments, "whole"))
    assert_identical(project.folder / "killed/model_final.pth", project.folder / "whole/model_final.pth")
    assert [line["iteration"] for line in read_metrics(project.folder / "killed/metrics.json")] == [20, 24]


def test_ctrl_c_writes_a_checkpoint_and_a_second_training_is_refused(project):
    project.config["SOLVER"] |= {"MAX_ITER": 2000, "CHECKPOINT_PERIOD": 2500}
    project.config["DATALOADER"]["NUM_WORKERS"] = 1
    arguments = ("train_net.py", "OUTPUT_DIR", "out")
    first = project.popen(*arguments, start_new_session=True)
    before_training = 0
    while "Start training" not in (line := first.stdout.readline()):
        before_training += 1
        assert line
    assert before_training < 25
    assert "iter: 1 " in first.stdout.readline()

    second = project.run(*arguments)
    assert (second.returncode, second.stdout) == (1, "")
    assert f"is in use by another training: process {first.pid} on {socket.gethostname()}, since" in second.stderr
    assert "Traceback" not in second.stderr

    os.killpg(first.pid, signal.SIGINT)  # also to the loader's worker, as a terminal does
    stdout, stderr = first.communicate()
    assert first.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert re.search(r"tools/train_net.py --config-file \S+config.yaml OUTPUT_DIR out$", stderr.strip())
    stopped = re.search(
        r"Stopped by Ctrl-C at iteration (\d+) of 2000; the checkpoint to continue from is (\S+)$", stdout.strip()
    )
    assert stopped[2] == f"out/model_{int(stopped[1]):07d}.pth"
    assert (project.folder / "out/last_checkpoint").read_text() == stopped[2]
    assert not (project.folder / "out/training.lock").exists()


@pytest.mark.slow
def test_sigterm_to_torchrun_writes_a_checkpoint_and_stops_all_processes(project):
    project.config["SOLVER"] |= {"MAX_ITER": 2000, "CHECKPOINT_PERIOD": 2500}
    project.config["DATALOADER"]["NUM_WORKERS"] = 1
    agent = project.popen("train_net.py", "OUTPUT_DIR", "out", launcher=TORCHRUN, stderr=subprocess.DEVNULL)
    while "iter: 1 " not in (line := agent.stdout.readline()):
        assert line
    agent.terminate()
    stdout, _ = agent.communicate()
    stopped = re.search(r"Stopped by SIGTERM at iteration (\d+) of 2000", stdout)
    checkpoint = torch.load(project.folder / f"out/model_{int(stopped[1]):07d}.pth", weights_only=True)
    assert len(checkpoint["rng_state"]) == 2
    assert not (project.folder / "out/training.lock").exists()


def test_two_processes_have_the_same_losses_and_metrics_as_one(project):
    # small steps, because GroupNorm over the one or two values of this model's last maps amplifies rounding
    project.config["SOLVER"] |= {"MAX_ITER": 4, "BASE_LR": 0.001}
    project.config["WINOGRAD"] = False  # the layers that use it depend on the batch size
    project.config["MODEL"]["FCOS"]["INFERENCE_TH"] = 0.001  # so that the untrained model has detections
    assert_succeeded(project.run("train_net.py", "OUTPUT_DIR", "one"))
    run = project.launch(old_launcher(), "train_net.py", "OUTPUT_DIR", "two")
    assert_succeeded(run)
    (one,), (two,) = (read_metrics(project.folder / name / "metrics.json") for name in ("one", "two"))
    for name in ("loss", "loss_cls", "loss_reg", "loss_centerness"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
    assert "torchrun's OMP_NUM_THREADS=1" in run.stdout

    both = project.run("test_net.py", "--ckpt", "one/model_final.pth", "OUTPUT_DIR", "by_two", ranks=2)
    assert_succeeded(both)
    one, two = (
        json.loads((project.folder / name / "inference/test/bbox.json").read_text()) for name in ("one", "by_two")
    )
    assert len(one) == len(two) > 0
    for expected, found in zip(one, two, strict=True):
        assert found["image_id"] == expected["image_id"]
        assert found["score"] == pytest.approx(expected["score"], abs=1e-4)
        assert found["bbox"] == pytest.approx(expected["bbox"], abs=0.05)


def test_killed_worker_is_restarted_and_training_is_bit_identical(project):
    (project.folder / "killer.py").write_text(KILLER)
    project.config["SOLVER"] |= {"MAX_ITER": 12}
    killed = project.launch(
        (*TORCHRUN, "--max_restarts=1"),
        *("train_net.py", "--skip-test", "OUTPUT_DIR", "killed"),
        TORCH_DETECTRON_ENV_MODULE=str(project.folder / "killer.py"),
        KILL_WHEN=str(project.folder / "killed/model_0000004.pth"),
    )
    assert_succeeded(killed)
    assert re.search(r"Start training at iteration \d+ of 12", killed.stdout)
    assert_succeeded(project.run("train_net.py", "--skip-test", "OUTPUT_DIR", "whole", ranks=2))
    assert_identical(project.folder / "killed/model_final.pth", project.folder / "whole/model_final.pth")


def test_wrong_number_of_classes_is_an_error_before_the_first_step(project):
    run = project.run("train_net.py", "OUTPUT_DIR", "out", "MODEL.FCOS.NUM_CLASSES", "81")
    assert run.returncode != 0
    assert "has 2 classes (bright, dark) but MODEL.FCOS.NUM_CLASSES is 81. Set it to 3" in run.stderr
    assert "Start training" not in run.stdout


def test_missed_expected_results_fail_the_run_if_configured(project):
    project.config["TEST"] |= {"EXPECTED_RESULTS": [["bbox", "AP", [0.99, 0.001]]]}
    arguments = ("test_net.py", "MODEL.WEIGHT", "", "OUTPUT_DIR", "out")
    lenient = project.run(*arguments)
    assert_succeeded(lenient)
    assert "FAIL: bbox > AP" in lenient.stdout
    assert "Testing the weights of a random initialisation" in lenient.stdout
    strict = project.run(*arguments, "TEST.FAIL_ON_UNEXPECTED_RESULTS", "True")
    assert strict.returncode == 1
    assert "EXPECTED_RESULTS were not met" in strict.stderr


def test_rpn_is_trained_and_its_recall_is_measured(project):
    project.config["MODEL"] |= {"FCOS_ON": False, "RPN": {"USE_FPN": True, "ANCHOR_STRIDE": [4, 8, 16, 32, 64]}}
    project.config["MODEL"]["BACKBONE"]["CONV_BODY"] = "V-27-FPN"
    trained = project.run("train_net.py", "OUTPUT_DIR", "out")
    assert_succeeded(trained)
    assert "loss_objectness: " in trained.stdout and "Evaluating bbox proposals" in trained.stdout
    folder = project.folder / "out/inference/test"
    figures = json.loads((folder / "box_proposals.json").read_text())["results"]["box_proposal"]
    assert 0 < figures["AR@1000"] < 1 and figures["AR@100"] <= figures["AR@1000"]
    assert {path.name for path in folder.iterdir()} == {"predictions.pth", "box_proposals.pth", "box_proposals.json"}
    assert "Task: box_proposal\nAR@100, ARs@100" in trained.stdout

    project.config["TEST"] |= {"EXPECTED_RESULTS": [["box_proposal", "AR@1000", [1.5, 0.001]]]}
    strict = project.run("test_net.py", "OUTPUT_DIR", "out", "TEST.FAIL_ON_UNEXPECTED_RESULTS", "True")
    assert strict.returncode == 1 and "EXPECTED_RESULTS were not met" in strict.stderr
    assert json.loads((folder / "box_proposals.json").read_text())["results"]["box_proposal"] == figures


def test_initial_weights_do_not_load_solver_states(project):
    project.config["SOLVER"]["MAX_ITER"] = 2
    assert_succeeded(project.run("train_net.py", "--skip-test", "OUTPUT_DIR", "first"))
    weight = project.folder / "first/model_final.pth"
    run = project.run("train_net.py", "--skip-test", "OUTPUT_DIR", "second", "MODEL.WEIGHT", weight)
    assert_succeeded(run)
    assert f"Loading checkpoint from {weight}" in run.stdout
    assert "Loading optimizer" not in run.stdout
    assert re.search(r"Start training$", run.stdout, re.MULTILINE)
    assert not Path(project.folder / "last_checkpoint").exists()


@pytest.mark.slow
def test_two_nodes_have_the_losses_of_one_process(project):
    """Run two torchrun agents with one process each, as on two machines, that meet at one rendezvous."""
    project.config["SOLVER"] |= {"MAX_ITER": 6, "BASE_LR": 0.001}
    project.config["WINOGRAD"] = False  # the layers that use it depend on the batch size
    port = free_port()
    launcher = (
        *("-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"),
        *("--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=test"),
    )
    nodes = [
        project.popen("train_net.py", "--skip-test", "OUTPUT_DIR", "two", launcher=launcher, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [node.communicate()[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert "Using 2 CPU processes" in outputs[0] + outputs[1]
    assert len(torch.load(project.folder / "two/model_final.pth", weights_only=True)["rng_state"]) == 2

    assert_succeeded(project.run("train_net.py", "--skip-test", "OUTPUT_DIR", "one"))
    (one,), (two,) = (read_metrics(project.folder / name / "metrics.json") for name in ("one", "two"))
    for name in ("loss", "loss_cls", "loss_reg", "loss_centerness"):
        assert two[name] == pytest.approx(one[name], rel=1e-5), name
