"""Batch visual grounding with InternVL: image + referring expression -> box."""

__version__ = "0.1.0"
