"""Pascal VOC: one XML file an image, boxes as xyxy in pixels counted from 1."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from deeplayer_cli.formats.labelled import in_xml, label_files

if TYPE_CHECKING:
    from pathlib import Path

    from deeplayer_cli.formats.labelled import Labelled, LabelledImage


def write_voc(labelled: Labelled, folder: Path) -> None:
    """Write ``Annotations/IMAGE.xml`` for each image with a box.

    Raises:
        DeeplayerError: two images would share a file, because their names differ in the suffix only.
    """
    (folder / "Annotations").mkdir()  # without any box too, so that no older annotations stay
    for image, name in zip(labelled.with_boxes, label_files(labelled.with_boxes, ".xml"), strict=True):
        path = folder / "Annotations" / name
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
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
        # VOC counts pixels from 1, and its last pixel belongs to the box; a thin box at the edge stays in the image.
        x1, y1 = (min(round(box.xyxy[side] + 1), image.resolution_wh[side]) for side in (0, 1))
        x2, y2 = max(round(box.xyxy[2]), x1), max(round(box.xyxy[3]), y1)  # a box has at least one pixel
        for tag, corner in zip(("xmin", "ymin", "xmax", "ymax"), (x1, y1, x2, y2), strict=True):
            _add(corners, tag, str(corner))
    return root


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = in_xml(text)
