"""Pascal VOC: one XML file an image, boxes as xyxy in pixels counted from 1."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from deeplayer_cli.formats.yolo import label_file

if TYPE_CHECKING:
    from deeplayer_cli.formats.labelled import Labelled, LabelledImage


def write_voc(labelled: Labelled, folder: Path) -> None:
    """Write ``Annotations/IMAGE.xml`` for each image."""
    for image in labelled.images:
        path = folder / "Annotations" / label_file(image.image).with_suffix(".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        tree = ElementTree.ElementTree(_annotation(image))
        ElementTree.indent(tree)
        tree.write(path, encoding="utf-8", xml_declaration=True)


def _annotation(image: LabelledImage) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    name = PurePosixPath(image.image)
    _add(root, "folder", str(name.parent))
    _add(root, "filename", name.name)
    size = ElementTree.SubElement(root, "size")
    for tag, pixels in zip(("width", "height", "depth"), (*image.resolution_wh, 3), strict=True):
        _add(size, tag, str(pixels))
    for box in image.boxes:
        thing = ElementTree.SubElement(root, "object")
        _add(thing, "name", box.label)
        for tag in ("pose", "truncated", "difficult"):
            _add(thing, tag, "Unspecified" if tag == "pose" else "0")
        corners = ElementTree.SubElement(thing, "bndbox")
        x1, y1, x2, y2 = box.xyxy
        # VOC counts pixels from 1, and its last pixel belongs to the box.
        for tag, corner in zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2), strict=True):
            _add(corners, tag, str(round(corner)))
    return root


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    # XML 1.0 has no place for control characters.
    ElementTree.SubElement(parent, tag).text = "".join(c if c.isprintable() else " " for c in text)
