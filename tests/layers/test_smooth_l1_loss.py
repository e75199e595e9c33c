import torch

from maskrcnn_benchmark.layers.smooth_l1_loss import smooth_l1_loss


def test_quadratic_below_beta_and_linear_above():
    error = torch.tensor([0.0, 0.05, -0.5, 2.0])
    beta = 0.1
    expected = torch.tensor([0.0, 0.5 * 0.05**2 / beta, 0.5 - 0.05, 2.0 - 0.05])
    torch.testing.assert_close(smooth_l1_loss(error, torch.zeros(4), beta, size_average=False), expected.sum())
    torch.testing.assert_close(smooth_l1_loss(error, torch.zeros(4), beta), expected.mean())


def test_beta_zero_is_l1():
    error = torch.tensor([0.0, -0.5], requires_grad=True)
    loss = smooth_l1_loss(error, torch.zeros(2), beta=0.0, size_average=False)
    loss.backward()
    assert loss.item() == 0.5
    assert error.grad.tolist() == [0.0, -1.0]
