"""Requests from other people's files: one format a file, recognised by content.

coco.py, flickr30k.py, label_studio.py, named.py, parquet.py, refer.py, vlmevalkit.py   the formats
example.py     what every format is read into
recognise.py   the formats in the order in which they are tried
json_stream.py large JSON documents, an item at a time
images.py      where the images lie
splits.py      what the RefCOCO splits must count
importing.py   examples to requests, and requests to a file
source.py      the same as a source of ``ground`` and ``compare``
"""
