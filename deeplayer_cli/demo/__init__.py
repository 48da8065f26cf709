"""The demo model: a small model of InternVL's architecture, its scene generator, training recipe and weights.

scenes.py     the scene generator; shapes.py: its objects; expressions.py: what can be asked about them
model.py      the model; tokenizer.py: its tokenizer; export.py: both as a checkpoint folder
recipe.py     sizes, seed and lessons of the training; train.py: the training; run.py: its state, and one step
answers.py    questions and answers as token ids, and the losses on them
dense.py      heads that train the vision side first
packed.py     many expressions about an image in one pass; optimise.py: the optimisers
evaluate.py   accuracy on held-out scenes; looking.py: attention to the target
"""
