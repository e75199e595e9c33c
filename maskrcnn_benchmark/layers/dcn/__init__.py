"""Keeps the forks' import paths; see layers.deform_conv."""
