import time

import pytest

from maskrcnn_benchmark.utils.timer import Timer, get_time_str


def test_timer_sums_and_averages():
    timer = Timer()
    assert timer.average_time == 0
    timer.tic()
    time.sleep(0.01)
    assert timer.toc(average=False) >= 0.01
    timer.add(timer.total_time)
    assert timer.average_time == pytest.approx(timer.total_time / 2)
    timer.reset()
    assert timer.total_time == 0


def test_time_is_formatted_as_hours_minutes_seconds():
    assert get_time_str(3723.5) == "1:02:03.500000"
