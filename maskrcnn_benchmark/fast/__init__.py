"""Fast copies of models: fused modules for inference, and torch.compile."""
