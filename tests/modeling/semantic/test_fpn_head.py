import pytest
import torch

from maskrcnn_benchmark.layers.norm import get_norm
from maskrcnn_benchmark.modeling.semantic.fpn_head import SemSegFPNHead
from maskrcnn_benchmark.modeling.semantic.maps import upsample


def maps_of(height, width, channels=8):
    return [torch.randn(1, channels, -(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32, 64)]


def head_of(norm="GN", **more):
    options = {"num_groups": 4} if norm == "GN" else {}
    make_norm = (lambda channels: get_norm(norm, channels, **options)) if norm else None
    return SemSegFPNHead(8, 5, conv_channels=12, norm=make_norm, **more)


def test_keys_equal_detectron2():
    keys = list(head_of().state_dict())
    places = ["p2.0", "p3.0", "p4.0", "p4.2", "p5.0", "p5.2", "p5.4"]
    expected = [f"{place}.{leaf}" for place in places for leaf in ("weight", "norm.weight", "norm.bias")]
    assert keys == [*expected, "predictor.weight", "predictor.bias"]
    assert list(head_of(norm=None, levels=2).state_dict()) == [
        "p2.0.weight",
        "p2.0.bias",
        "p3.0.weight",
        "p3.0.bias",
        "predictor.weight",
        "predictor.bias",
    ]


def test_logits_have_the_size_of_the_finest_map_and_ignore_extra_maps(rng_seed):
    head = head_of()
    features = maps_of(64, 96)
    logits = head(features)
    assert logits.shape == (1, 5, 16, 24)
    features[4] = torch.full_like(features[4], torch.nan)
    assert torch.equal(head(features), logits)


@pytest.mark.parametrize("size", [(52, 100), (4, 4), (33, 65)])
def test_images_of_any_size_pass(rng_seed, size):
    logits = head_of()(maps_of(*size))
    assert logits.shape[-2:] == (-(-size[0] // 4), -(-size[1] // 4)) and logits.isfinite().all()


@pytest.mark.parametrize("norm", ["GN", "BN", None])
def test_every_parameter_gets_a_gradient(rng_seed, norm):
    head = head_of(norm)
    head([maps.repeat(2, 1, 1, 1) for maps in maps_of(64, 64)]).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_levels_are_summed_before_the_predictor(rng_seed):
    head = head_of().eval()
    features = maps_of(64, 64)
    parts = [getattr(head, f"p{level}")(features[level - 2]) for level in (2, 3, 4, 5)]
    assert {tuple(part.shape) for part in parts} == {(1, 12, 16, 16)}
    torch.testing.assert_close(head(features), head.predictor(sum(parts)))


def test_upsampling_has_pixel_centers_at_half_integers():
    ramp = torch.tensor([[[[0.0, 4.0]]]])
    assert upsample(ramp, (1, 4)).flatten().tolist() == [0, 1, 3, 4]
    assert upsample(ramp, (1, 2)) is ramp
