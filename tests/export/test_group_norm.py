"""Group normalization in ONNX is as exact as PyTorch's."""

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.export import group_norm, ops


@pytest.mark.parametrize("affine", [True, False])
def test_maps_of_constant_padding_are_normalized_exactly(affine, rng_seed):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    layer = nn.GroupNorm(4, 8, affine=affine)
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)

    def padded(images, height, width):
        maps = torch.full((images, 8, height, width), 0.7)
        maps[:, :, : height // 4, : width // 4] += torch.randn(images, 8, height // 4, width // 4)
        return maps

    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    written = torch.onnx.export(
        torch.export.export(layer, (padded(2, 40, 48),), dynamic_shapes=shapes, strict=False),
        (),
        dynamo=True,
        opset_version=ops.OPSET,
        custom_translation_table=group_norm.onnx_translations(),
        input_names=["maps"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(written.model_proto.SerializeToString())
    exact = nn.GroupNorm(4, 8, affine=affine).double()
    exact.load_state_dict(layer.state_dict())
    for maps in (padded(1, 320, 280), padded(3, 17, 5), torch.randn(1, 8, 1, 1)):
        (found,) = session.run(None, {"maps": maps.numpy()})
        # InstanceNormalization is 0.0007 to 0.001 off on the first
        torch.testing.assert_close(torch.from_numpy(found).double(), exact(maps.double()), atol=2e-4, rtol=1e-5)
