"""Requests from other people's files: one format a file, recognised by content.

example.py   what every format is read into; box conventions
readers.py   the formats in the order in which they are tried
images.py    where the images lie
splits.py    what the RefCOCO splits must count
"""
