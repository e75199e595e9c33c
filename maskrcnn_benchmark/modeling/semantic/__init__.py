"""Heads that give every pixel a class, and what they learn from."""
