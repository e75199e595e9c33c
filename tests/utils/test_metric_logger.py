import pytest
import torch

from maskrcnn_benchmark.utils.metric_logger import MetricLogger, SmoothedValue


def test_meter_has_window_median_and_global_mean():
    logger = MetricLogger()
    for value in range(10):
        logger.update(metric=float(value))
    meter = logger.meters["metric"]
    assert (meter.count, meter.total, meter.median, meter.avg, meter.global_avg) == (10, 45, 4, 4.5, 4.5)


def test_memory_does_not_grow_with_the_number_of_values():
    meter = SmoothedValue(window_size=3)
    for value in range(1000):
        meter.update(float(value))
    assert list(meter.deque) == [997, 998, 999]
    assert meter.avg == 998
    assert meter.global_avg == 499.5
    assert not [name for name, value in vars(meter).items() if name != "deque" and hasattr(value, "__len__")]


def test_line_is_in_the_order_of_first_update():
    logger = MetricLogger(delimiter="  ")
    logger.update(loss=torch.tensor(1.0), time=2)
    logger.update(time=1, loss=3.0)
    assert str(logger) == "loss: 1.0000 (2.0000)  time: 1.0000 (1.5000)"
    assert logger.loss is logger.meters["loss"]
    assert logger.delimiter == "  "


def test_unknown_attributes_and_invalid_values_are_refused():
    logger = MetricLogger()
    with pytest.raises(AttributeError, match="absent"):
        _ = logger.absent
    assert "absent" not in logger.meters
    with pytest.raises(TypeError, match="'loss' is a str"):
        logger.update(loss="1")
