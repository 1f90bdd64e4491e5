"""`mae-bench transfer --protocol partial:all`: a whole partial fine-tuning curve."""

from typing import Any

import tasks
from backbones.reading import ReadingOptions
from mae_bench import recipes
from mae_bench.errors import RunError
from mae_bench.progress import say
from mae_bench.report import show
from mae_bench.starting import settle
from mae_bench.transfer import transfer
from results import Record
from tasks.face import CURVE, PARTIAL


def partial_curve(
    task: str = "imagenet1k",
    backbone: str | None = None,
    name: str | None = None,
    **arguments: Any,
) -> list[Record]:
    """A run for every point of the curve of MAE's Figure 9, fewest trained blocks first.

    Arguments are those of `transfer`; a `name` is continued by each run's protocol, and `drop_path`
    is not for the point without a trained block, which has none. The same call goes on after the
    last finished point. Bad input raises a one-line error.
    """
    if PARTIAL not in tasks.protocols(task):
        tasks.check_known(f"protocol of {task}", CURVE, list(tasks.protocols(task)))
    if "trained_blocks" in arguments or "trained_blocks" in (arguments.get("sweep") or {}):
        raise RunError(f"{CURVE} sets trained_blocks for each run; leave it out")
    checkpoint, init = arguments.pop("checkpoint", None), arguments.pop("init", None)
    out = arguments.get("out", "runs")
    reading = {key: arguments[key] for key in ReadingOptions.__annotations__ if key in arguments}
    begun = settle(
        task, "partial:1", backbone, checkpoint, init, out, **reading
    )  # once, for all points
    for line in begun.said:
        say(line)
    _, backbone, arguments["checkpoint"], arguments["init"] = begun.choice
    points, records = tasks.face_of(task).recipes.curve(backbone), []
    for number, protocol in enumerate(points, start=1):
        say(f"{number}/{len(points)}  {protocol}")
        run = name and f"{name}-{protocol.replace(':', '-')}"
        frozen = recipes.sourced(task, backbone, protocol)["trained_blocks"][0] == 0
        given = {k: v for k, v in arguments.items() if not (frozen and k == "drop_path")}
        records.append(transfer(task, backbone, protocol, name=run, **given))
    show(records)
    return records
