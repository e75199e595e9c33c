import io
import sys

from maskrcnn_benchmark.engine.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use(bar):
    bar.advance(loss="0.5")
    with bar.hidden():
        print("line", file=sys.stderr)
    bar.advance(9)
    bar.close()


def test_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    use(ProgressBar(20, initial=10))
    assert "11/20" in sys.stderr.getvalue()
    assert "loss=0.5" in sys.stderr.getvalue()


def test_files_and_disabled_bars_show_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    use(ProgressBar(20))
    assert sys.stderr.getvalue() == "line\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    use(ProgressBar(20, enabled=False))
    assert sys.stderr.getvalue() == "line\n"
