"""What a prompt costs: FLOPs, bytes of keys and values, and the memory that it needs at once."""
