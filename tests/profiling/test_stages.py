"""Stages of a model that sleeps: every stage gets its time, and no time counts twice."""

import time

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.fast.compiled import compile_dense_part
from maskrcnn_benchmark.profiling.stages import STAGES, StageClock, stage_of

STEP = 0.02


class Sleep(nn.Module):
    def __init__(self, seconds, **parts):
        super().__init__()
        self.seconds = seconds
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self):
        time.sleep(self.seconds)
        for part in self.children():
            part()


def test_time_of_nested_stages_is_not_counted_for_outer_stages():
    model = Sleep(
        STEP,
        backbone=Sleep(0, body=Sleep(2 * STEP), fpn=Sleep(3 * STEP)),
        rpn=Sleep(4 * STEP, box_selector_test=Sleep(5 * STEP)),
    )
    clock = StageClock(torch.device("cpu"))
    with clock.stage("load"):
        time.sleep(STEP)
    start = time.perf_counter()
    with clock.inside(model):
        model()
    whole = time.perf_counter() - start
    slept = {"load": 1, "backbone": 2, "FPN": 3, "heads": 4, "post-processing": 6}
    for name, steps in slept.items():
        assert clock.seconds[name] >= steps * STEP
    assert clock.seconds["preprocess"] == 0
    inside = sum(seconds for name, seconds in clock.seconds.items() if name != "load")
    assert inside == pytest.approx(whole, abs=STEP / 2)


def test_compiled_part_is_one_stage():
    model = Sleep(0, backbone=Sleep(0, fpn=Sleep(STEP)))
    compile_dense_part(model)
    with StageClock(torch.device("cpu")).inside(model):
        assert model.backbone._forward_hooks
        assert not model.backbone.fpn._forward_hooks, "hooks inside would be compiled, too"


def test_hooks_are_removed_after_the_block():
    model = Sleep(0, backbone=Sleep(STEP))
    clock = StageClock(torch.device("cpu"))
    with clock.inside(model):
        pass
    model()
    assert clock.seconds == dict.fromkeys(STAGES, 0.0)


def test_stages_of_modules():
    assert stage_of("backbone.fpn") == "FPN"
    assert stage_of("backbone.body") is None
    assert stage_of("rpn.head") is None
    assert stage_of("roi_heads.box.post_processor") == "post-processing"
    assert stage_of("roi_heads.box.2.post_processor") == "post-processing"
    assert stage_of("rpn.post_process") == "post-processing"
