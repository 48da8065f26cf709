"""One pruning method a file: ``NAME.py`` holds the ``ENTRY`` of the method of that name, with ``-`` for ``_``."""
