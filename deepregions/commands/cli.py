"""``deepregions COMMAND``: finds the command, parses its options, turns errors into one line."""

from __future__ import annotations

import inspect
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from docstring_parser import parse
from jsonargparse import ArgumentParser

from deepregions import __version__
from deepregions.commands import (
    benchmark,
    bundle,
    databases,
    demo,
    detect,
    doctor,
    evaluate,
    explain,
    export,
    forge,
    import_,
    models,
    prepare,
    reproduce,
    schema,
    segment,
)
from deepregions.errors import DeepregionsError, UsageError, printable

INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141
_PATHS = (list[Path], list[Path] | None)

_ALIASES = {"database": ("--ddbb",)}  # as the paper's program calls it

_COMMANDS: tuple[Callable[..., int], ...] = (
    detect.detect,
    explain.explain,
    segment.segment,
    databases.databases,
    prepare.prepare,
    forge.forge,
    import_.import_,
    models.models,
    bundle.bundle,
    evaluate.evaluate,
    reproduce.reproduce,
    export.export,
    benchmark.benchmark,
    doctor.doctor,
    schema.schema,
    demo.demo,
)


def run(argv: Sequence[str]) -> int:
    """Runs one command line.

    Args:
        argv: The arguments after the program's name.

    Returns:
        The exit code: 0 when the work was done, 2 for wrong usage, 1 for any other error that
        its user can act on (a few have their own, such as 4 for a measure that is undefined),
        130 after Ctrl-C, 143 after SIGTERM.
    """
    return _guarded(lambda: dispatch(argv))


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, with what was finished kept."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM raise in the main thread, for as long as a command runs."""

    def raise_(*_: object) -> None:
        raise _Terminated

    try:
        earlier = signal.signal(signal.SIGTERM, raise_)
    except ValueError:  # not the main thread: whoever has it decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def run_program(command: Callable[..., int], argv: Sequence[str]) -> int:
    """Runs a function as a program of its own, as those in ``tools/`` are.

    Args:
        command: Its parameters become options as those of a command do.
        argv: The arguments after the program's name.

    Returns:
        The exit code, as :func:`run`.
    """

    def call() -> int:
        parser = _command_parser(command)
        try:
            options = parser.parse_args(list(argv)).as_dict()
        except ArgumentError as error:
            raise UsageError(" ".join(str(error).split()), "see --help") from error
        return _call(command, options)

    return _guarded(call)


def _guarded(work: Callable[[], int]) -> int:
    """Turns errors into one line and an exit code."""
    try:
        with _terminable():
            return work()
    except DeepregionsError as error:
        sys.stderr.write(f"deepregions: error: {error}\n")
        return error.exit_code
    except _Terminated:
        sys.stderr.write("deepregions: terminated\n")
        return TERMINATED
    except KeyboardInterrupt:
        sys.stderr.write("deepregions: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        sys.stderr.write(f"deepregions: error: {_plain(error)}\n")
        return 1


def _plain(error: OSError) -> str:
    """The system's complaint in a reader's order: which file, what about it, what to do."""
    if error.filename is None or not error.strerror:
        return printable(str(error))
    message = f"{error.filename}: {error.strerror} (check the path, its permissions and free space)"
    return printable(message)


def dispatch(argv: Sequence[str]) -> int:
    """Runs one command line, as :func:`run`, but lets errors through.

    Raises:
        DeepregionsError: An error that its user can act on.
    """
    if argv and argv[0] == "fit":
        from deepregions.fit import fit

        return fit(argv[1:])
    parser = _parser()
    if not argv:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    try:
        arguments = parser.parse_args(list(argv))
    except ArgumentError as error:
        message = " ".join(str(error).split())
        raise UsageError(message, f"see deepregions {_named(argv)}--help") from error
    command = next(each for each in _COMMANDS if _name(each) == arguments.command)
    return _call(command, arguments[arguments.command].as_dict())


def _call(command: Callable[..., int], options: dict[str, Any]) -> int:
    options.pop("config", None)
    for name, parameter in _parameters(command).items():
        if parameter.annotation in _PATHS and options[name] is not None:
            options[name] = [Path(item) for item in options[name]]
        kind: Any = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            options[name] = kind(**options[name])
        elif (item := _dataclass_in(kind)) is not None:
            options[name] = [item(**fields) for fields in options[name] or ()]
    return command(**options)


def _dataclass_in(kind: Any) -> Callable[..., Any] | None:
    """The dataclass of which an option is a list; such options are for config files."""
    if get_origin(kind) is not list:
        return None
    (item,) = get_args(kind)
    return item if isinstance(item, type) and is_dataclass(item) else None


def _parameters(command: Callable[..., int]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(command, eval_str=True).parameters


def _name(command: Callable[..., int]) -> str:
    return command.__name__.rstrip("_")  # import_ is "import", which is Python's own word


def _named(argv: Sequence[str]) -> str:
    names = [_name(command) for command in _COMMANDS]
    return f"{argv[0]} " if argv[0] in names else ""


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="deepregions",
        description="Tell manipulated faces from genuine ones, region by region.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"deepregions {__version__}")
    commands = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        summary = parse(command.__doc__ or "").short_description or ""
        commands.add_subcommand(_name(command), _command_parser(command), help=summary)
    commands.add_subcommand(
        "fit", ArgumentParser(), help="Trains a detector on a region, or a fusion (fit --help)."
    )
    return parser


def _command_parser(command: Callable[..., int]) -> ArgumentParser:
    """Makes options of a function's parameters.

    Keyword-only parameters are options (an underscore may be typed as a dash), others are
    positional; one with a default may be left out. A list (of strings or paths) takes one value or
    more; a bool that is False by default is a flag; the fields of a dataclass are options of their
    own (``--gates.min_size``); help comes from the docstring.
    """
    documentation = parse(command.__doc__ or "")
    texts = {entry.arg_name: entry.description or "" for entry in documentation.params}
    parser = ArgumentParser(
        description=(documentation.description or "").split("Returns:")[0],
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    for parameter in _parameters(command).values():
        _add(parser, parameter, texts.get(parameter.name, ""))
    return parser


def _add(parser: ArgumentParser, parameter: inspect.Parameter, text: str) -> None:
    if is_dataclass(parameter.annotation):
        parser.add_class_arguments(parameter.annotation, parameter.name)
        return
    required = parameter.default is inspect.Parameter.empty
    options: dict[str, Any] = {"help": text}
    kinds = (parameter.annotation, *get_args(parameter.annotation))
    if _dataclass_in(parameter.annotation) is not None:
        options["type"] = parameter.annotation
    elif any(get_origin(kind) is list for kind in kinds):
        options |= {"nargs": "+", "type": str}
    elif parameter.default is False:
        options["action"] = "store_true"
    else:
        options["type"] = parameter.annotation
    if not required:
        options["default"] = parameter.default
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        if not required:
            options["nargs"] = "*" if "nargs" in options else "?"
        parser.add_argument(parameter.name, **options)
    else:
        spelled = (parameter.name, parameter.name.replace("_", "-"))
        names = dict.fromkeys(
            (*(f"--{name}" for name in spelled), *_ALIASES.get(parameter.name, ()))
        )
        parser.add_argument(*names, required=required, **options)
