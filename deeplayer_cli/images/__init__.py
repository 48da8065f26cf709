"""Images: decoding within limits, and threads that load images ahead of the model.

files.py     opens image files; the only place that does; formats.py: which formats are read
headers.py   checks what a header claims before Pillow uses it
decode.py    a file to RGB pixels, in the stored or the turned frame; pixels.py: the rule for every mode
loader.py    the images of requests, ahead of the model and in order; workers.py: threads that may get stuck
"""
