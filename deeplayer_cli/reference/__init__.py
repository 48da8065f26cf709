"""Transformers' own ``generate()`` as the reference; `verify` and `bench` compare the engine with it."""
