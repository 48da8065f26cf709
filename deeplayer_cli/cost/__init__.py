"""What a prompt costs: FLOPs, and bytes of keys and values."""
