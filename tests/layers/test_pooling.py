import pytest
import torch

from maskrcnn_benchmark.layers.pooling import global_average_pool


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_means_are_rounded_once(rng_seed, dtype, memory_format):
    # 300 * 200 ones exceed the integers of bfloat16, and their sum exceeds float16.
    x = (torch.rand(2, 3, 200, 300) + 2).to(dtype).contiguous(memory_format=memory_format)
    means = global_average_pool(x)
    assert means.shape == (2, 3, 1, 1) and means.dtype == dtype
    expected = x.double().mean((2, 3), keepdim=True)
    assert ((means.double() - expected).abs() <= max(torch.finfo(dtype).eps, 1e-6) * expected).all()
