"""Run a module in onnxruntime, with translations of its ops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from maskrcnn_benchmark.export.ops import OPSET


def require(*packages: str) -> None:
    """Skip the test where a package is missing."""
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export,openvino]'")


class OnnxSession:
    """A module as onnxruntime runs it; call it with tensors, get tensors.

    Args:
        module: torch module.
        inputs: tensors to trace it with.
        open_sides: for each input, the dimensions whose size may change.
        translations: returns the custom_translation_table of torch.onnx.export; called where the packages are there.

    `operators` are the types of the graph's nodes.
    """

    def __init__(self, module, inputs, open_sides, translations: Callable[[], dict]):
        require("onnx", "onnxscript", "onnxruntime")
        import onnxruntime

        self.names = [f"input{number}" for number in range(len(inputs))]
        shapes = [dict.fromkeys(sides, torch.export.Dim.DYNAMIC) for sides in open_sides]
        program = torch.export.export(module, tuple(inputs), dynamic_shapes=tuple(shapes), strict=False)
        written = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=translations(),
            input_names=list(self.names),
            verbose=False,
        )
        self.operators = {node.op_type for node in written.model.graph.all_nodes()}
        self._session = onnxruntime.InferenceSession(written.model_proto.SerializeToString())

    def __call__(self, *inputs):
        feeds = {name: value.numpy() for name, value in zip(self.names, inputs, strict=True)}
        return [torch.from_numpy(value) for value in self._session.run(None, feeds)]
