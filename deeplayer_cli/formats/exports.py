"""The exports by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from deeplayer_cli.formats.coco import write_coco, write_coco_results
from deeplayer_cli.formats.fiftyone import write_fiftyone
from deeplayer_cli.formats.label_studio import write_label_config, write_label_studio
from deeplayer_cli.formats.tables import write_csv_table
from deeplayer_cli.formats.voc import write_voc
from deeplayer_cli.formats.yolo import write_yolo
from deeplayer_cli.sinks.output_file import is_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from deeplayer_cli.formats.labelled import Labelled


@dataclass(frozen=True)
class Export:
    """One target format.

    Attributes:
        write: writes labelled images to a path.
        is_folder: whether that path is a folder, which exists and is empty.
        beside: writes a second file, by the suffix that takes the place of the first one's.
    """

    write: Callable[[Labelled, Path], None]
    is_folder: bool = False
    beside: Mapping[str, Callable[[Labelled, Path], None]] = field(default_factory=dict)

    def outputs(self, path: Path) -> list[tuple[Path, Callable[[Labelled, Path], None]]]:
        """The files or the folder that are written, each with what writes it; nothing lies beside a stream."""
        if is_stream(path):
            return [(path, self.write)]
        more = [(path.with_name(f"{path.stem}{suffix}"), write) for suffix, write in self.beside.items()]
        return [(path, self.write), *more]


def exports(url_prefix: str = "") -> Mapping[str, Export]:
    """All exports by name.

    Args:
        url_prefix: see `write_label_studio`.
    """
    return MappingProxyType(
        {
            "coco": Export(write_coco),
            "coco-results": Export(write_coco_results),
            "yolo": Export(write_yolo, is_folder=True),
            "labelstudio": Export(
                partial(write_label_studio, url_prefix=url_prefix), beside={".config.xml": write_label_config}
            ),
            "voc": Export(write_voc, is_folder=True),
            "csv": Export(write_csv_table),
            "fiftyone": Export(write_fiftyone),
        }
    )
