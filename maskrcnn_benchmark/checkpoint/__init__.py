"""Checkpoints: safe reading, dialects, translation, matching, load reports and writing."""
