"""Other people's files.

imports/      requests from them
check.py      what is wrong with requests and images, without a model
labelled.py   predictions to labelled images: what every export starts from
frames.py     boxes of the stored image, and of the image that EXIF turns
coco.py, yolo.py, label_studio.py, voc.py, tables.py, fiftyone.py   one target format a file
exports.py    the exports by name
"""
