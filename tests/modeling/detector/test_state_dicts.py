"""Compare the models' state_dict keys and shapes with those of the forks."""

import gzip
import json

import pytest
from helpers.golden_models import CONFIGS, GOLDEN, build_on_meta

# repository, folders and file of the config, joined by two underscores
LISTS = sorted(path.name.removesuffix(".json.gz") for path in (GOLDEN / "state_dicts").glob("*.json.gz"))


@pytest.mark.parametrize("name", LISTS)
def test_keys_and_shapes_are_the_forks(name):
    recorded = json.loads(gzip.decompress((GOLDEN / "state_dicts" / f"{name}.json.gz").read_bytes()))
    _, *config = name.split("__")
    ours = [[key, list(value.shape)] for key, value in build_on_meta("/".join(config) + ".yaml").state_dict().items()]
    assert ours == [entry[:2] for entry in recorded["state_dict"]]


def test_deformable_towers_are_upstream_fcos():
    state = build_on_meta("fcos/fcos_imprv_dcnv2_R_50_FPN_1x.yaml").state_dict()
    assert len(state) == 354 and sum(".offset." in key for key in state) == 30
    tower = {key: tuple(value.shape) for key, value in state.items() if key.startswith("rpn.head.bbox_tower.9.")}
    assert tower == {
        "rpn.head.bbox_tower.9.offset.weight": (27, 256, 3, 3),
        "rpn.head.bbox_tower.9.offset.bias": (27,),
        "rpn.head.bbox_tower.9.conv.weight": (256, 256, 3, 3),
        "rpn.head.bbox_tower.9.conv.bias": (256,),
    }


@pytest.mark.parametrize(
    "body, opts, parameters",
    [
        ("V-27", ["MODEL.VOVNET.OUT_CHANNELS", 128], 11_172_890),
        ("V-27", [], 11_172_890),
        ("V-39", [], 30_016_538),
        ("V-57", [], 44_045_338),
        ("V-93", [], 64_631_834),
    ],
)
def test_fcos_on_vovnet_has_the_published_number_of_parameters(body, opts, parameters):
    model = build_on_meta("vovnet/fcos_V_39_FPN_1x.yaml", ["MODEL.BACKBONE.CONV_BODY", f"{body}-FPN-RETINANET", *opts])
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_shipped_config_builds(path):
    assert sum(p.numel() for p in build_on_meta(path.relative_to(CONFIGS)).parameters()) > 0
