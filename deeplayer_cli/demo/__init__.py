"""A small InternVL-architecture model trained from scratch on generated scenes: generator, recipe, weights."""
