"""The device of a model: placement, memory, attention kernels and failures."""
