"""The command line: flags to function calls, errors to one line and an exit code.

Nothing here imports torch; a command does when it runs.
"""

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tyro
from tyro.extras import SubcommandApp

import backbones
import mae_bench
import tasks
from mae_bench import recipes
from mae_bench.commands import data, runs, weights
from mae_bench.commands.doctor import Doctor
from mae_bench.commands.evaluate import Evaluate
from mae_bench.commands.export import Export
from mae_bench.commands.predict import Predict
from mae_bench.commands.pretrain import Pretrain
from mae_bench.commands.push import Push
from mae_bench.commands.quickstart import Quickstart
from mae_bench.commands.report import Report
from mae_bench.commands.suite import Plan, Suite
from mae_bench.commands.transfer import Transfer
from mae_bench.errors import HELD, HeldError, Interrupted, RunError, reason
from mae_bench.flags import explained, refusing, with_recipe
from mae_bench.signals import Stopped, leave_soon, obeyed
from mae_bench.srun import join_step
from mae_bench.starting import DEFAULT, likely_backbone, one_scratch
from mae_bench.streams import keep_going_unread, unwritten
from tasks.errors import AloneError, TaskError

PROGRAM = "mae-bench"
COMPLETION = "--tyro-print-completion"
DESCRIPTION = (
    "Transfer learning from masked autoencoders, measured next to the published numbers. "
    f"Start with: {PROGRAM} quickstart. Completion for your shell: {PROGRAM} {COMPLETION} bash "
    f"(zsh, fish). The version: {PROGRAM} --version"
)
COMMANDS: dict[str, type | tuple[str, Mapping[str, type]]] = {
    "quickstart": Quickstart,
    "pretrain": Pretrain,
    "transfer": Transfer,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "push": Push,
    "suite": Suite,
    "plan": Plan,
    "report": Report,
    "runs": (runs.SUMMARY, runs.ACTIONS),
    "data": (data.SUMMARY, data.ACTIONS),
    "weights": (weights.SUMMARY, weights.ACTIONS),
    "doctor": Doctor,
}
"""a command, or what a group of them is for and those in it"""
SHARED = ("pretrain", "transfer", "evaluate")
"""commands that several processes carry out together"""


def main() -> None:
    """Entry point of `mae-bench`."""
    keep_going_unread()
    try:
        code = call(sys.argv[1:])
    except SystemExit as end:
        code = int(end.code or 0)
    lost = unwritten()
    if lost is not None:
        code = complain(f"error: {lost}; what was printed is incomplete", code or 2)
    leave_soon(code)
    raise SystemExit(code)


def call(argv: Sequence[str]) -> int:
    """Run one command line; its exit code. Bad input is one line on standard error and 2.

    Of the processes that torchrun or srun starts the first speaks for all, except of what it
    cannot know.
    """
    first = True
    for stream in (sys.stdout, sys.stderr):  # a path may hold what the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with obeyed():
            if argv[:1] and argv[0] in SHARED:
                join_step()
            first = os.environ.get("RANK", "0") == "0"
            parse(argv).run()
    except SystemExit:  # after --help, which is not to wait for the imports below
        raise
    except Interrupted as error:
        return complain(str(error), error.exit_code, first)
    except AloneError as error:
        return complain(f"error: {error}", 2)
    except bad_input() as error:
        code = HELD if isinstance(error, HeldError) else 2
        return complain(f"error: {error}", code, first)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        advice = "nothing that was saved is lost; once this is put right, the same command goes on"
        return complain(f"error: {where}{error.strerror or error}; {advice}", 2, first)
    except (MemoryError, RuntimeError, ImportError) as error:
        known = reason(error)
        if known is None:
            raise
        return complain(f"error: {known}", 2)
    except KeyboardInterrupt:
        return complain("stopped", 130, first)
    except Stopped as stop:
        told = f"stopped by {stop}; nothing that was saved is lost, and the same command goes on"
        return complain(told, 128 + stop.number, first)
    return 0


def complain(message: str, exit_code: int, aloud: bool = True) -> int:
    """Print one line on standard error, if `aloud`; the exit code."""
    if aloud:
        print(f"{PROGRAM}: {' '.join(message.splitlines())}", file=sys.stderr)
    return exit_code


def bad_input() -> tuple[type[Exception], ...]:
    """What our packages raise for it. `results` takes a fifth of a second to import."""
    from results import ResultsError

    return RunError, backbones.BackboneError, TaskError, ResultsError


def parse(argv: Sequence[str]) -> Any:
    """The command with its flags; SystemExit after --help, `RunError` for a bad flag."""
    if list(argv) == ["--version"]:
        print(f"{PROGRAM} {mae_bench.__version__}")
        raise SystemExit(0)
    refuse_empty(argv)
    refuse_both(argv)
    commands = COMMANDS | shown_recipe(argv)
    helped = known_command(argv) if {"-h", "--help"} & set(argv) else None
    app, named = SubcommandApp(), dict[str, type]()
    for name, command in commands.items():
        if isinstance(command, type):
            shown = explained(command) if name == helped else command
            named[name] = app.command(name=name)(shown)
            continue
        summary, actions = command
        group = SubcommandApp()
        for action, kind in actions.items():
            whole = f"{name} {action}"
            named[whole] = group.command(name=action)(explained(kind) if whole == helped else kind)
        app.command(group, name=name, help=summary)
    with refusing(known_command(argv), named):
        config = (tyro.conf.OmitArgPrefixes,)
        return app.cli(prog=PROGRAM, description=DESCRIPTION, args=list(argv), config=config)


def refuse_empty(argv: Sequence[str]) -> None:
    """Raise `RunError` for an empty word, which as a path or a name would be taken for another."""
    for before, word in zip(["", *argv], argv, strict=False):
        flag = before if before.startswith("--") else ""
        if flag == "--name":  # of which more is said
            continue
        if not word.strip():
            raise RunError(f"{flag or 'a word'} is empty; give it a value or leave it out")
        name, equals, value = word.partition("=")
        if name.startswith("--") and equals and not value.strip():
            raise RunError(f"{name} is empty; give it a value or leave it out")


def refuse_both(argv: Sequence[str]) -> None:
    """Raise `RunError` for a switch that is given on and off."""
    given = {word.replace("_", "-") for word in argv if word.startswith("--")}
    both = sorted(word for word in given if f"--no-{word[2:]}" in given)
    if both:
        raise RunError(f"{both[0]} and --no-{both[0][2:]} contradict each other; leave one out")


def known_command(argv: Sequence[str]) -> str:
    """The words of `argv` that name a command: "runs list"; `TaskError` for an unknown one."""
    if argv[:1] == [COMPLETION] and len(argv) > 1:
        tasks.check_known("shell", argv[1], ["bash", "zsh", "fish", "tcsh"])
    if not argv or argv[0].startswith("-"):
        return ""
    tasks.check_known("command", argv[0], list(COMMANDS))
    command = COMMANDS[argv[0]]
    if isinstance(command, type) or len(argv) == 1 or argv[1].startswith("-"):
        return argv[0]
    tasks.check_known(f"command {argv[0]}", argv[1], list(command[1]))
    return f"{argv[0]} {argv[1]}"


def shown_recipe(argv: Sequence[str]) -> dict[str, type]:
    """pretrain or transfer with a flag for each field of the recipe that `argv` asks for."""
    which = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("backbone", "protocol", "init", "checkpoint"):
        which.add_argument(f"--{name}")
    which.add_argument("--task", default="imagenet1k")
    which.add_argument("--method", default="mae")
    which.add_argument("--out", default="runs")
    try:
        known, _ = which.parse_known_args(argv[1:])
    except argparse.ArgumentError:  # a flag without its value: tyro says it better
        return {}
    made = {}
    backbone = known.backbone or DEFAULT
    if argv[:1] in (["pretrain"], [COMPLETION]):
        made["pretrain"] = with_recipe(Pretrain, recipes.PRETRAIN, backbone, known.method)
    if argv[:1] in (["transfer"], [COMPLETION]):
        protocol, init, _ = one_scratch(known.task, known.protocol, known.checkpoint, known.init)
        helped = {"-h", "--help"} & set(argv)  # which says whose recipe it shows
        if known.backbone is None and argv[:1] == ["transfer"] and (known.checkpoint or not helped):
            backbone = likely_backbone(known.task, protocol, known.checkpoint, init, known.out)
        made["transfer"] = with_recipe(Transfer, known.task, backbone, protocol)
    return made


if __name__ == "__main__":
    main()
