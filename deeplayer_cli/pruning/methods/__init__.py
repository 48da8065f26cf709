"""One file for each pruning method: ``NAME.py`` holds its ``ENTRY``. An underscore in NAME is a hyphen in the name."""
