import torch

from maskrcnn_benchmark.layers.scale import Scale


def test_scale_multiplies_and_learns():
    scale = Scale(2.0)
    assert {name: tuple(p.shape) for name, p in scale.named_parameters()} == {"scale": (1,)}
    y = scale(torch.tensor([[1.0, -3.0]]))
    assert y.tolist() == [[2.0, -6.0]]
    y.sum().backward()
    assert scale.scale.grad.tolist() == [-2.0]
