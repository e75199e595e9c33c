"""Models outside of Python: ONNX, OpenVINO, torch.export, and a runtime without PyTorch."""
