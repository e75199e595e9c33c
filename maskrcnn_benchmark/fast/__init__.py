"""Convert models for speed: fused modules for inference and training, and torch.compile."""
