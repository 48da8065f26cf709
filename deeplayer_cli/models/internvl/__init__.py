"""All that only InternVL does: its prompt, the form of its answers, its tiling, its vision tower.

prompt.py         the grounding question, cut where the engine cuts it
answer_format.py  what an answer always holds, as drafts for the engine
tiling.py         an image to square tiles
vision.py         tiles to visual tokens
model.py          transformers' classes
"""
