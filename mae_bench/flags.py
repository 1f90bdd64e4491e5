"""Flags made from recipes, and a parser's complaints in one line. Imports no torch."""

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import docstring_parser
from tyro import _errors as rejections
from tyro.conf import arg

import tasks
from mae_bench import recipes
from mae_bench.commands.told import told
from mae_bench.errors import RunError
from mae_bench.pretraining.methods import METHODS
from tasks.face import CURVE, PARTIAL

EMPTY = "(default: none)"
"""in --help, of a flag for several values whose default is none at all; tyro's has no word"""

OPTIONAL = {Path | None: "PATH", str | None: "STR", int | None: "INT", float | None: "FLOAT"}
"""in --help, what a flag takes that may be left out; tyro's names are "{None}|PATH" """

NO_FLAGS = {"--protocol", "--backbone"}
"""fields of every recipe that are no flags of it"""


def with_recipe(command: type, task: str, backbone: str, protocol: str) -> type:
    """`command` with one more flag per recipe field: default, meaning, and the value's source."""
    hidden = {"protocol", "backbone"} | ({"trained_blocks"} if protocol == CURVE else set())
    protocol = one_point(task, protocol)
    base = recipes.recipe(task, backbone, protocol)
    kinds, meanings = get_type_hints(type(base)), field_docstrings(type(base))
    flags: list[tuple[str, Any, Any]] = []
    for name, (value, source) in recipes.sourced(task, backbone, protocol).items():
        if name not in hidden:
            help_text = f"{meanings[name]} [{source}]"
            shown = arg(help=help_text, help_behavior_hint=EMPTY if value == () else None)
            flags.append((name, Annotated[kinds[name], shown], value))
    group = make_dataclass("Recipe", flags)
    made = make_dataclass(
        command.__name__,
        [("recipe", Annotated[group, arg(name="")], field(default_factory=group))],
        bases=(command,),
    )
    made.__doc__ = command.__doc__
    return made


def explained(command: type) -> type:
    """`command` for its --help: the meaning of each flag in one line.

    tyro would keep the line breaks of the source, in the middle of sentences.
    """
    bare, kinds = get_type_hints(command), get_type_hints(command, include_extras=True)
    meanings = {name: told(text) for name, text in field_docstrings(command).items()}
    flags: list[tuple[str, Any, Any]] = []
    for each in fields(command):
        kind = kinds[each.name]
        factory: Any = each.default_factory
        if is_dataclass(bare[each.name]):
            factory = explained(bare[each.name])
            kind = Annotated[(factory, *kind.__metadata__)]
        elif meanings.get(each.name):
            hint = "" if "(default" in meanings[each.name] else None  # not "(default: None)", too
            if each.default == () and hint is None:
                hint = EMPTY
            elif each.default is MISSING and get_origin(bare[each.name]) is tuple:
                hint = "(required)"
            help_text = meanings[each.name]
            left_out = each.default is None and not hasattr(kind, "__metadata__")
            named = OPTIONAL.get(bare[each.name]) if left_out else None
            kind = Annotated[kind, arg(help=help_text, help_behavior_hint=hint, metavar=named)]
        own = field(default=each.default, default_factory=factory, kw_only=each.kw_only)
        flags.append((each.name, kind, own))
    frozen = command.__dataclass_params__.frozen  # type: ignore[attr-defined]
    made = make_dataclass(command.__name__, flags, bases=(command,), frozen=frozen)
    made.__doc__ = command.__doc__
    return made


def changed(command: Any, task: str, protocol: str) -> dict[str, Any]:
    """Recipe fields that the command line sets to something else than the protocol."""
    base = recipes.recipe(task, command.backbone, one_point(task, protocol))
    given = {f.name: getattr(command.recipe, f.name) for f in fields(command.recipe)}
    return {name: value for name, value in given.items() if value != getattr(base, name)}


def one_point(task: str, protocol: str) -> str:
    """The protocol itself; of a whole curve, the point whose recipe its flags show."""
    whole = protocol == CURVE and PARTIAL in tasks.protocols(task)
    return "partial:1" if whole else protocol


def field_docstrings(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and its bases, in one line."""
    parsed = [docstring_parser.parse_from_object(each) for each in reversed(kind.__mro__[:-1])]
    return {p.arg_name: " ".join((p.description or "").split()) for d in parsed for p in d.params}


@contextmanager
def refusing(command: str, commands: Mapping[str, type]) -> Iterator[None]:
    """What tyro rejects of a command's words becomes a `RunError` of one line.

    `commands` are the classes behind all commands, for the flags that were meant. tyro says what is
    wrong in a box of several lines, and in events; those are not yet of its public interface, which
    is why pyproject.toml names one version of it.
    """

    def refuse(event: rejections.ParseErrorEvent) -> None:
        said = fault(event, command, commands)
        if said is not None:  # tyro's box, for an event of a kind that our flags cannot cause
            raise RunError(f"{said} (see {f'mae-bench {command}'.strip()} --help)")

    with rejections.on_parse_error(refuse):
        yield


def fault(
    event: rejections.ParseErrorEvent, command: str, commands: Mapping[str, type]
) -> str | None:
    """What is wrong with a command's words, and what may have been meant."""
    match event:
        case rejections.UnrecognizedArgs():
            return unrecognized(event.tokens, command, commands)
        case rejections.MissingArgs():
            lacking = ", ".join(called(each.arg) for each in event.missing_arguments)
            extra = event.unrecognized_tokens
            also = f"; {unrecognized(extra, command, commands)}" if extra else ""
            return f"{command} lacks {lacking}{also}"
        case rejections.MissingSubcommand():
            there = ", ".join(event.subcommand_spec.parser_from_name)
            return f"{command or 'mae-bench'} lacks a command; expected one of {there}"
        case rejections.BadValue():
            number = event.argument.lowered.nargs
            return f"{called(event.argument)} lacks a value; expected {number}"
        case rejections.InvalidChoice():
            expected = ", ".join(event.choices)
            return f"{called(event.argument)} is {event.value!r}; expected {expected}"
        case rejections.InstantiationFailure():
            name = called(event.argument) if event.argument else command
            several = "\n" in event.message and event.argument  # tried as each type of a union
            wanted = str(event.argument.lowered.metavar) if event.argument else ""
            if wanted.startswith("{None}|"):
                wanted = f"{wanted.removeprefix('{None}|').strip('{}')} or None"
            return f"{name}: expected {wanted}" if several else f"{name}: {plainly(event.message)}"
    return None


def plainly(message: str) -> str:
    """What Python says of a word that is no number, in ours."""
    number = NO_NUMBER.fullmatch(message)
    if number is None:
        return message
    return f"expected a {'whole ' * bool(number['whole'])}number, not {number['word']}"


NO_NUMBER = re.compile(
    r"(?:(?P<whole>invalid literal for int\(\) with base 10)|could not convert string to float): "
    r"(?P<word>.*)"
)


def called(argument: Any) -> str:
    """--flag, or the WORD of a positional argument."""
    return argument.lowered.metavar if argument.is_positional() else argument.display_name()


def unrecognized(tokens: list[str], command: str, commands: Mapping[str, type]) -> str:
    """What to say of words that a command does not take: near flags, or who does take them."""
    typed = [token.partition("=")[0] for token in tokens if token.startswith("--")]
    there = flag_names(commands[command]) if command in commands else []
    near = [flag for each in typed for flag in containing(each, there)]
    group = [name for name in commands if name.split()[0] == command.partition(" ")[0]]
    all_takers = [name for name in commands if set(typed) & set(flag_names(commands[name]))]
    takers = [name for name in all_takers if name in group] or all_takers
    hint = f"; {' and '.join(takers)} would" if takers else ""
    if not near and not takers:
        near = [flag for each in typed for flag in similar(each, there)]
    asked_methods = command == recipes.PRETRAIN or (command == "transfer" and not near)
    others = of_methods(typed) if asked_methods else []
    if others:
        hint = f"; {' and '.join(others)} would"
    elif near:
        hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?"
    elif not typed and "--data" in there and all(Path(token).exists() for token in tokens):
        hint = f"; did you mean --data {' '.join(tokens)}?"
    return f"{command or 'mae-bench'} does not take {' '.join(tokens)}{hint}"


def of_methods(typed: list[str]) -> list[str]:
    """How to call pretrain so that it takes one of these flags: by the methods that have it."""
    asked = set(typed) - NO_FLAGS
    found = [n for n, each in METHODS.items() if asked & set(flag_names(each.recipe_type))]
    return [f"{recipes.PRETRAIN} --method {name}" for name in found]


def flag_names(kind: type) -> list[str]:
    """The flags of a command's class."""
    kinds, names = get_type_hints(kind), []
    for each in fields(kind):
        if is_dataclass(kinds[each.name]):
            names += flag_names(kinds[each.name])
        else:
            names.append("--" + each.name.replace("_", "-"))
    return names


def containing(flag: str, there: list[str]) -> list[str]:
    """Flags of which `flag` is a part."""
    name = flag.removeprefix("--").replace("_", "-")
    return [each for each in there if name and name in each]


def similar(flag: str, there: list[str]) -> list[str]:
    """Flags that are written almost the same."""
    name = flag.removeprefix("--").replace("_", "-")
    names = [each.removeprefix("--") for each in there]
    return [f"--{n}" for n in difflib.get_close_matches(name, names, n=2, cutoff=0.75)]
