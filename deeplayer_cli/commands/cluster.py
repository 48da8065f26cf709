"""The options of commands that can run on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from deeplayer_cli.commands import options
from deeplayer_cli.commands.options import CLUSTER, option
from deeplayer_cli.errors import DeeplayerError

if TYPE_CHECKING:
    import typer

    from deeplayer_cli.runtime.ray_cluster import RayResources

Ray = Annotated[
    str | None,
    option(
        "--ray",
        help="Answer the rows by workers on a Ray cluster: `local` starts one on this machine for the run, `auto` "
        "is the one that this machine belongs to, `HOST:PORT` another.",
        rich_help_panel=CLUSTER,
    ),
]
NumWorkers = Annotated[
    int | None,
    option(
        "--num-workers",
        min=1,
        help="Workers; by default one per GPU of the cluster, or one.",
        rich_help_panel=CLUSTER,
    ),
]
GpusPerWorker = Annotated[
    float | None,
    option(
        "--gpus-per-worker",
        min=0,
        help="GPUs of a worker; by default 1 where there are any.",
        rich_help_panel=CLUSTER,
    ),
]
CpusPerWorker = Annotated[
    float, option("--cpus-per-worker", min=0.1, help="CPUs of a worker.", rich_help_panel=CLUSTER)
]
ShipImages = Annotated[
    bool,
    option("--ship-images", help="Send images to the workers, which need not see the files.", rich_help_panel=CLUSTER),
]


def ray_resources(context: typer.Context) -> RayResources:
    """Return what a command with these options needs of a cluster, if it runs on one.

    Raises:
        DeeplayerError: an option is for a cluster, and there is no ``--ray``; or a number is not possible.
    """
    from deeplayer_cli.runtime.ray_cluster import RayResources

    wanted = context.params
    given = options.given(context, "num_workers", "gpus_per_worker", "cpus_per_worker", "ship_images")
    if wanted["ray"] is None and given:
        raise DeeplayerError(f"{given[0]} is for a Ray cluster: add --ray local, auto or HOST:PORT")
    return RayResources(wanted["num_workers"], wanted["gpus_per_worker"], wanted["cpus_per_worker"])
