"""Draw images, predictions and figures."""
