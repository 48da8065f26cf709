"""Other people's files.

labelled.py   predictions to labelled images: what every export starts from
coco.py, yolo.py, label_studio.py, voc.py, tables.py, fiftyone.py   one target format a file
exports.py    the exports by name
"""
