import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.backbone import build_backbone


@pytest.mark.parametrize("depth", [121, 161, 169, 201])
def test_keys_are_torchvisions(depth):
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"densenet{depth}")(weights=None).state_dict()
        ours = build_backbone(f"D-{depth}", norm="BN").state_dict()
    expected = [(key, value.shape) for key, value in theirs.items() if not key.startswith("classifier.")]
    assert [(key, value.shape) for key, value in ours.items()] == expected


def test_last_map_is_torchvisions(rng_seed):
    torchvision = pytest.importorskip("torchvision")
    body = build_backbone("D-121", norm="BN").eval()
    theirs = torchvision.models.densenet121(weights=None).eval()
    theirs.load_state_dict(body.state_dict(), strict=False)
    image = torch.randn(1, 3, 75, 97)
    with torch.no_grad():
        torch.testing.assert_close(body(image)[-1], theirs.features(image).relu())


def test_requested_maps_are_returned():
    with torch.device("meta"):
        body = build_backbone("D-121", norm="BN", out_features=("res2", "res4"))
        maps = body(torch.empty(1, 3, 64, 64))
    assert body.out_channels == (256, 1024) and body.out_strides == (4, 16)
    assert [tuple(m.shape) for m in maps] == [(1, 256, 16, 16), (1, 1024, 4, 4)]
    assert not hasattr(body.features, "denseblock4")


def test_smallest_image_passes():
    with torch.device("meta"):
        maps = build_backbone("D-121")(torch.empty(1, 3, 1, 40))
    assert [tuple(m.shape[2:]) for m in maps] == [(1, 10), (1, 5), (1, 2), (1, 1)]


@pytest.mark.parametrize(
    ("at", "frozen"),
    [
        (0, set()),
        (1, {"conv0", "norm0"}),
        (2, {"conv0", "norm0", "denseblock1", "transition1"}),
    ],
)
def test_freezing(at, frozen):
    body = build_backbone("D-121", norm="BN", freeze_at=at).train()
    parts = {key.split(".")[1] for key, parameter in body.named_parameters() if not parameter.requires_grad}
    assert parts == frozen
    norms = [m for name in frozen for m in body.features.get_submodule(name).modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)


def test_under_fpn():
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "D-121-FPN", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 256])
    with torch.device("meta"):
        maps = build_backbone(cfg)(torch.empty(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(256, 16, 24), (256, 8, 12), (256, 4, 6), (256, 2, 3), (256, 1, 2)]
