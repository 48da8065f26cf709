"""Transformers' own ``generate()`` as the reference: what `verify` and `bench` compare the engine with."""
