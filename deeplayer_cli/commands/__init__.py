"""One small file per command: options in, one library call, rows or a table out.

Commands import the library when they run, so that ``--help`` needs no torch.
"""
