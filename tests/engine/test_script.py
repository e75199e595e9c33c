"""How scripts end: messages, tracebacks, exit status."""

import logging
import subprocess
import sys
import types

import pytest
import torch
from torch.utils.data import DataLoader

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.utils.logger import FILE_ONLY, setup_logger


@pytest.fixture
def run(monkeypatch, capsys):
    """Function run(main, *words): run a script with these command-line arguments; return (status, stderr)."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def call(main, *words):
        monkeypatch.setattr(sys, "argv", ["tool.py", *words])
        try:
            script.run(main)
        except SystemExit as end:
            return end.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


def mistake():
    defaults.clone().merge_from_list(["SOLVER.BASE_LRR", 1])


def bug():
    return {}["nothing"]


def test_user_error_prints_only_its_message(run):
    status, text = run(mistake)
    assert status == 1
    assert text.startswith("error: ") and "SOLVER.BASE_LRR" in text and "SOLVER.BASE_LR" in text
    assert text.endswith("\n(--debug shows the traceback)\n")
    assert "Traceback" not in text


def test_script_without_a_log_prints_no_traceback_either():
    code = "from maskrcnn_benchmark.engine import script\nscript.run(lambda: open('lost'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False) and "lost" in done.stderr


@pytest.mark.parametrize("words", [("--debug",), ("KEY", "VALUE", "--debug")])
def test_debug_prints_the_traceback_and_is_removed_from_the_arguments(run, words):
    seen = []

    def main():
        seen.extend(sys.argv)
        mistake()

    status, text = run(main, *words)
    assert status == 1
    assert text.startswith("Traceback (most recent call last)")
    assert "--debug" not in seen


def test_unexpected_error_prints_its_traceback(run):
    status, text = run(bug)
    assert status == 1
    assert "Traceback" in text and "KeyError: 'nothing'" in text


def test_operating_system_error_prints_no_traceback(run, tmp_path):
    status, text = run(lambda: open(tmp_path / "missing.json"))
    assert status == 1
    assert text.startswith("error: [Errno 2] No such file or directory") and "missing.json" in text


def test_traceback_goes_to_the_log_file(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    logger = setup_logger("maskrcnn_benchmark", "out", 0)
    try:
        _, text = run(mistake)
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    assert text.endswith("\n(the traceback is in out/log.txt)\n")
    assert "Traceback" not in capsys.readouterr().out
    assert "Traceback (most recent call last)" in (tmp_path / "out" / "log.txt").read_text()


def test_file_only_lines_are_not_printed(tmp_path, capsys):
    logger = setup_logger("test_script", str(tmp_path), 0)
    logger.info("both")
    logger.info("file", extra=FILE_ONLY)
    logging.shutdown([lambda handler=handler: handler for handler in logger.handlers])
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["both"]
    assert [line.split(": ")[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["both", "file"]


class Broken(torch.utils.data.Dataset):
    def __init__(self, fail):
        self.fail = fail

    def __len__(self):
        return 2

    def __getitem__(self, index):
        self.fail()


def error_of(fail) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: B017, PT011
        next(iter(DataLoader(Broken(fail), num_workers=1)))
    return error.value


def test_error_in_a_loader_worker_prints_only_its_message():
    error = error_of(refuse)
    assert "Traceback" in str(error)
    assert script.message_for_user(error) == "NO.SUCH is 1; it should be 2\nor 3"
    assert script.message_for_user(error_of(bug)) is None


def refuse():
    raise_in_package("NO.SUCH is 1; it should be 2\nor 3")


# A module that appears to belong to the package.
_PRETENDED = str(script.ROOT / "maskrcnn_benchmark" / "pretended.py")
_code = "def raise_in_package(text):\n    raise ValueError(text)\n"
_module = types.ModuleType("pretended")
exec(compile(_code, _PRETENDED, "exec"), _module.__dict__)
raise_in_package = _module.raise_in_package


@pytest.fixture(autouse=True)
def pretended_source():
    import linecache

    linecache.cache[_PRETENDED] = (len(_code), None, _code.splitlines(keepends=True), _PRETENDED)
    yield
    linecache.cache.pop(_PRETENDED, None)


def test_return_value_is_the_status(run):
    assert run(lambda: 3)[0] == 3
    assert run(lambda: None)[0] == 0


def test_contexts_are_closed_at_the_end_of_a_script(run):
    closed = []

    def main():
        script.AT_END.callback(closed.append, True)
        mistake()

    run(main)
    assert closed == [True]
