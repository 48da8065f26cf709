"""Where predictions go."""

from deeplayer_cli.sinks.jsonl import JsonlWriter, refuse_occupied, refuse_same_file

__all__ = ["JsonlWriter", "refuse_occupied", "refuse_same_file"]
