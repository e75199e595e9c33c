"""Export models to ONNX, OpenVINO and torch.export, and run them without PyTorch."""
