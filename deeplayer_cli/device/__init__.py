"""The device of a model: placement, memory, attention kernels and failures.

placement.py          ``--device`` and ``--dtype``
memory.py             free memory, peak memory; transfer.py: copies to the device
attention_kernels.py  which kernel torch may use; blocked_attention.py: one for CPUs
packed_linear.py      linear layers with packed weights, for CPUs
float64.py            float64 where a device lacks it
failures.py           out of memory, or lost: kinds of exceptions
checks.py             what `doctor` tries
"""
