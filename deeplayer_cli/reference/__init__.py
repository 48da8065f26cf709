"""Transformers' own ``generate()`` as the reference; `verify` and `bench` compare the engine with it.

generate.py  greedy answers of ``generate()``, from pixels
verify.py    does a checkpoint do on this machine what the original model does?
"""
