import logging
import re

from maskrcnn_benchmark.utils.logger import setup_logger


def lines_of(path):
    return path.read_text().splitlines()


def test_line_format_equals_the_forks_on_stdout_and_in_the_file(tmp_path, capsys):
    setup_logger("test_logger_form", str(tmp_path), 0)
    logging.getLogger("test_logger_form.part").info("words")
    (line,) = lines_of(tmp_path / "log.txt")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} test_logger_form\.part INFO: words", line)
    assert capsys.readouterr().out.splitlines() == [line]


def test_second_call_does_not_duplicate_lines(tmp_path, capsys):
    for _ in range(2):
        logger = setup_logger("test_logger_twice", str(tmp_path), 0, filename="other.txt")
    logger.debug("once")
    assert len(lines_of(tmp_path / "other.txt")) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_other_ranks_write_nothing(tmp_path, capsys):
    setup_logger("test_logger_rank", str(tmp_path), 1).info("words")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_stdout_may_have_fewer_lines_than_the_file(tmp_path, capsys):
    logger = setup_logger("test_logger_level", str(tmp_path), 0, stdout_level=logging.INFO)
    logger.debug("detail")
    logger.info("words")
    assert [line.split(": ")[1] for line in lines_of(tmp_path / "log.txt")] == ["detail", "words"]
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["words"]
