import pytest
import torch
from torch import nn

from maskrcnn_benchmark.fast.hooks import has_hooks, has_hooks_inside


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_every_kind_of_hook_is_detected_until_it_is_removed(register):
    module = nn.Sequential(nn.Linear(2, 2))
    assert not has_hooks(module[0])
    handle = getattr(module[0], register)(lambda *_: None)
    assert has_hooks(module[0]) and not has_hooks(module) and has_hooks_inside(nn.Linear(1, 1), module)
    handle.remove()
    assert not has_hooks_inside(module)


def test_global_hooks_and_replaced_forwards_are_detected():
    module = nn.Linear(2, 2)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert has_hooks(module)
    handle.remove()
    assert not has_hooks(module)
    module.forward = lambda x: x
    assert has_hooks(module)
