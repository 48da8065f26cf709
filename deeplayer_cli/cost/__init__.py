"""What a prompt costs: FLOPs, bytes of keys and values, and the memory that it needs at once.

shape.py    the dimensions of a model, and the lengths of a prompt
flops.py    FLOPs and bytes of keys and values
memory.py   the most bytes that exist at once
model.py    the cost of a method on the rows of a run
savings.py  the cost of a run beside that of the same rows without pruning
"""
