import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from maskrcnn_benchmark.engine import stopping


def run(code: str) -> subprocess.CompletedProcess:
    """Run code in a subprocess, in which `me(signal)` sends a signal to itself."""
    prelude = (
        "import os, signal\nfrom maskrcnn_benchmark.engine import script, stopping\n"
        "def me(number):\n    os.kill(os.getpid(), number)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("number", stopping.NAMES)
def test_signal_in_a_deferred_block_is_raised_at_its_end(number, capfd):
    before = signal.getsignal(number)
    done = []
    with pytest.raises(stopping.Stopped) as stopped, stopping.deferred("this step") as stop:
        assert not stop
        with stopping.deferred() as inner:
            os.kill(os.getpid(), number)
            assert inner
        done.append(True)
        assert stop
    assert done and stopped.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert (
        capfd.readouterr().err == f"\n{stopping.NAMES[number]}: stopping after this step; a second one ends at once\n"
    )


def test_honoured_request_is_raised_once():
    with stopping.deferred() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(stopping.Stopped):
            stop.honour()


def test_error_caused_by_the_signal_is_suppressed(caplog):
    with pytest.raises(stopping.Stopped), stopping.deferred("this step"):
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker exited unexpectedly")
    assert "Could not finish this step after SIGTERM: DataLoader worker" in caplog.text
    with pytest.raises(RuntimeError, match="of its own"), stopping.deferred():
        raise RuntimeError("of its own")


def test_second_signal_ends_the_process_at_once():
    done = run("with stopping.deferred():\n    me(signal.SIGINT)\n    me(signal.SIGINT)\n    print('still here')")
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")


@pytest.mark.parametrize("number", stopping.NAMES)
def test_signal_outside_of_a_loop_ends_a_script_with_one_line(number):
    done = run(f"script.run(lambda: me({int(number)}))")
    assert done.returncode == 128 + number
    assert done.stdout == ""
    assert done.stderr == f"Stopped by {stopping.NAMES[number]}.\n"


def test_script_that_can_continue_prints_its_command():
    done = run("script.run(lambda: me(signal.SIGTERM), continues=True)")
    assert f"To continue from the last checkpoint in OUTPUT_DIR: {sys.executable} -c" in done.stderr
