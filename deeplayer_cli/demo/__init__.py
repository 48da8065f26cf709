"""The demo model: a small model of InternVL's architecture, its scene generator, training recipe and weights."""
