"""A run's log in Weights & Biases, for who asks for it by --log wandb."""

import json
import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backbones.files import read_regular
from mae_bench.errors import RunError, first_line
from mae_bench.run.files import RUN_FILE, write_json
from results.store import CANDIDATES, MAX_BYTES

PROJECT = "mae-bench"
"""where WANDB_PROJECT names no other"""
ID_FILE = "wandb.json"
"""tells under which id the run is there, so that one that goes on does so in the same place"""
OF_IDENTITY = ("recipe", "seed", "data", "init", "checkpoint", "limit")
"""what of a run.json is shown there as the run's configuration"""


def refuse_missing() -> None:
    """Raise `RunError` unless the package is installed; a folder wandb/ of its logs is none."""
    spec = find_spec("wandb")
    if spec is None or spec.origin is None:
        raise RunError("--log wandb: wandb is not installed; pip install 'mae-bench[wandb]'")


def refuse_keyless() -> None:
    """Raise `RunError` where wandb would ask for a key, or its server takes none of ours, before
    anything is made for a run.

    A run that is kept offline needs no key.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # else it would ask here, and look itself up
    import wandb

    try:
        wandb.login(verify=True)
    except (wandb.errors.Error, OSError) as error:
        raise refused(error) from None


def refused(error: Exception) -> RunError:
    """What a user is told where wandb cannot begin."""
    return RunError(
        f"--log wandb: {first_line(error)}; `wandb login` first, or set WANDB_MODE=offline "
        "to keep it in the run's folder"
    )


class WandbLog:
    """The numbers of log.jsonl and of validations in Weights & Biases, each under its step.

    Its own variables hold: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE (offline keeps all in the run's
    folder, for `wandb sync`). A run that goes on does so under the same id; steps that are logged
    again, which have the same numbers, are passed over there.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: of the run. Raises `RunError` where wandb cannot begin."""
        refuse_missing()
        import wandb

        settings = wandb.Settings(console="off", silent=True)
        above = folder.parent
        group = above.parent.name if above.name == CANDIDATES else None
        try:
            self.run: Any = wandb.init(
                project=wandb.setup().settings.project or PROJECT,
                id=self.identify(folder),
                resume="allow",
                name=folder.name,
                group=group,
                dir=str(folder),
                config=configuration(folder),
                settings=settings,
            )
        except (wandb.errors.Error, OSError) as error:
            raise refused(error) from None

    def identify(self, folder: Path) -> str:
        """The id of the run in a folder: always the same."""
        file = folder / ID_FILE
        try:
            return str(json.loads(read_regular(file, MAX_BYTES))["id"])
        except (OSError, ValueError, KeyError, TypeError):
            made = secrets.token_hex(4)
            write_json(file, {"id": made})
            return made

    def write(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


def configuration(folder: Path) -> dict[str, Any]:
    """What run.json says of the run."""
    said = json.loads(read_regular(folder / RUN_FILE, MAX_BYTES))
    return {key: said.get(key) for key in OF_IDENTITY}
