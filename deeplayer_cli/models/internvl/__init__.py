"""The code that is specific to InternVL: prompt, answer format, tiling and vision tower.

prompt.py         the grounding prompt, in the pieces that the engine encodes
answer_format.py  the known parts of an answer, as drafts for the engine
tiling.py         cuts an image into square tiles
vision.py         encodes tiles into visual tokens
model.py          transformers' model classes
"""
