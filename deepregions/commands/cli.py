"""``deepregions COMMAND``: finds the command, parses its options, turns errors into one line.

A command is a function whose parameters are its options. Only the module of the command that runs
is imported, so a module of a command imports at its top what its parser needs, and the rest in
its functions.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import io
import json
import os
import re
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from deepregions.errors import DeepregionsError, UsageError, printable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141

_OLD_NETWORKS = {"--database": "--trained-on", "--models": "--bundle"}
_OLD_POOLING = {
    "--rules.track": "--pool.frames",
    "--rules.share": "--pool.share",
    "--rules.input": "--pool.tracks",
}
_SILENT = {"--ddbb"}  # as the paper's program calls it


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        entry: The module in this package and its function, as ``module:function``.
        summary: What it does, for the list of commands.
        renamed: Its options' earlier spellings, and what they are called now; nothing, where the
            value now stands alone.
    """

    entry: str
    summary: str
    renamed: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Callable[..., int]:
        """Imports its function."""
        module, _, name = self.entry.partition(":")
        function: Callable[..., int] = getattr(
            importlib.import_module(f"deepregions.commands.{module}"), name
        )
        return function


COMMANDS = {
    "detect": Command(
        "detect:detect",
        "Score photographs and videos.",
        {**_OLD_NETWORKS, **_OLD_POOLING, "--video": "--annotate", "--ddbb": "--trained-on"},
    ),
    "explain": Command(
        "explain:explain",
        "Show why photographs and videos have their scores.",
        {**_OLD_NETWORKS, "--ddbb": "--trained-on"},
    ),
    "segment": Command("segment:segment", "Cut the five region images of each face."),
    "databases list": Command("databases:list_databases", "List the supported databases."),
    "databases check": Command("databases:check_database", "Check a database before preparing it."),
    "databases describe": Command("databases:describe_store", "Describe a face store on a page."),
    "prepare": Command(
        "prepare:prepare", "Turn a database into a face store.", {"--ddbb": "--database"}
    ),
    "forge": Command("forge:forge", "Make forged faces of photographs or of a face store."),
    "fit": Command("fit:fit", "Train a detector on one region."),
    "fuse": Command("fuse:fuse", "Train a fusion of networks and calibrate it."),
    "import": Command("import_:import_", "Import other people's checkpoints as bundles."),
    "models list": Command("models:list_models", "List bundles here and what others offer."),
    "models show": Command("models:show_model", "Show what a bundle is."),
    "models verify": Command("models:verify_models", "Check bundles' digests and load them."),
    "models fetch": Command("models:fetch_model", "Download a bundle or a file of weights."),
    "bundle push": Command("bundle:push_bundle", "Upload a bundle to the Hugging Face Hub."),
    "evaluate": Command(
        "evaluate:evaluate",
        "Measure networks and their fusions on face stores.",
        {
            **_OLD_NETWORKS,
            **_OLD_POOLING,
            "--ddbb": "--trained-on",
            "--rounds": "--bootstrap-samples",
            "--confidence": "--ci",
        },
    ),
    "reproduce": Command(
        "reproduce:reproduce", "Run a whole study from one plan.", {"--config": "", "-c": ""}
    ),
    "export": Command("export:export", "Export networks and their fusion as one ONNX file."),
    "benchmark": Command("benchmark:benchmark", "Measure how fast networks run here."),
    "doctor": Command("doctor:doctor", "Show what works on this machine."),
    "schema": Command("schema:schema", "Print the JSON Schema of a command's output."),
    "demo": Command("demo:demo", "Prepare, train, fuse and score on drawn faces, in minutes."),
}
_GROUPS = {
    "databases": "List and check databases; describe a face store.",
    "models": "List, show, verify and fetch networks.",
    "bundle": "Publish bundles.",
}


def main(argv: Sequence[str]) -> int:
    """Runs the command line of a process of its own; see :func:`run`."""
    for descriptor in range(3):  # or the next file that is opened becomes standard output
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stderr.write(
            "deepregions: error: standard output is closed (send it to a file or to /dev/null)\n"
        )
        return 1
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output(sys.stdout)
    return run(argv)


class _Output(io.TextIOWrapper):
    """Standard output whose errors name it; characters its encoding lacks are shown escaped."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        encoding, line_buffering = stream.encoding, stream.line_buffering
        through = stream.write_through
        super().__init__(
            stream.detach(),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=line_buffering,
            write_through=through,
        )

    def write(self, text: str) -> int:
        with _named():
            return super().write(text)

    def flush(self) -> None:
        with _named():
            super().flush()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_output()
        raise OSError(error.errno, error.strerror, "standard output") from error


def run(argv: Sequence[str]) -> int:
    """Runs one command line.

    Args:
        argv: The arguments after the program's name.

    Returns:
        The exit code: 0 when the work was done, 2 for wrong usage, 1 for any other error that
        its user can act on (a few have their own, such as 4 for a measure that is undefined),
        130 after Ctrl-C, 141 where nobody reads the output, 143 after SIGTERM.
    """
    return _guarded(lambda: dispatch(argv))


def run_program(command: Callable[..., int], argv: Sequence[str]) -> int:
    """Runs a function as a program of its own, as those in ``tools/`` are; see :func:`run`."""
    return _guarded(lambda: _run_function(command, argv, prog=None))


def dispatch(argv: Sequence[str]) -> int:
    """Runs one command line like :func:`run`, but lets errors through.

    Raises:
        DeepregionsError: An error that its user can act on.
    """
    if not argv or argv[0] in {"-h", "--help"}:
        (sys.stdout if argv else sys.stderr).write(_overview())
        return 0 if argv else UsageError.exit_code
    if argv[0] == "--version":
        from deepregions import __version__

        sys.stdout.write(f"deepregions {__version__}\n")
        return 0
    name, *words = argv
    group = [each.partition(" ")[2] for each in COMMANDS if each.startswith(f"{name} ")]
    if group:
        if not words or words[0] in {"-h", "--help"}:
            (sys.stdout if words else sys.stderr).write(_overview(name))
            return 0 if words else UsageError.exit_code
        _check_choice(words[0], group, f"deepregions {name} --help")
        name, words = f"{name} {words[0]}", words[1:]
    else:
        _check_choice(name, _names(), "deepregions --help")
    command = COMMANDS[name]
    words = _modern(words, command.renamed)
    words = _found_configs(words, command.renamed)
    function = command.load()
    if name == "fit":  # a LightningCLI, which parses for itself
        return function(words)
    return _run_function(function, words, prog=f"deepregions {name}")


def find_config(name: str) -> Path:
    """Returns a configuration file: the path itself, or one that comes with this package.

    Args:
        name: A path, or the name of a shipped file such as ``xception.yaml``.
    """
    path = Path(name)
    if path.is_file():
        return path
    package = Path(__file__).parents[1]
    relative = path.relative_to("configs") if path.parts[:1] == ("configs",) else path
    for folder in (package, package.parent):  # installed; a checkout
        shipped = folder / "configs" / relative
        if len(relative.parts) == 1 and shipped.is_file():
            return shipped
    return path


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command like Ctrl-C, with what was finished kept."""


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


def _guarded(work: Callable[[], int]) -> int:
    """Turns errors into one line and an exit code."""
    try:
        with _terminable():
            try:
                return work()
            finally:
                sys.stdout.flush()  # here, or the interpreter fails at its end
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
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        sys.stderr.write(f"deepregions: error: {_plain(error)}\n")
        return 1


def _discard_output() -> None:
    with suppress(OSError, ValueError):  # not a stream of the system, as in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(error: OSError) -> str:
    """The system's complaint in a reader's order: which file, what about it, what to do."""
    if error.filename is None or not error.strerror:
        return printable(str(error))
    message = f"{error.filename}: {error.strerror} (check the path, its permissions and free space)"
    return printable(message)


def _names() -> list[str]:
    return list(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))


def _check_choice(name: str, known: Sequence[str], see: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? {see} lists them" if close else f"{see} lists them"
        raise UsageError(f"there is no command {name!r}", hint)


def _overview(group: str = "") -> str:
    """The help of the program, or of a command with subcommands."""
    if group:
        summaries = {
            name.partition(" ")[2]: command.summary
            for name, command in COMMANDS.items()
            if name.startswith(f"{group} ")
        }
        title = _GROUPS[group]
    else:
        summaries = {
            name: _GROUPS[name] if name in _GROUPS else COMMANDS[name].summary for name in _names()
        }
        title = "Tell manipulated faces from genuine ones, region by region."
    width = max(map(len, summaries))
    lines = [f"  {name:{width}}  {summary}" for name, summary in summaries.items()]
    program = f"deepregions {group}".strip()
    version = [] if group else ["  --version  Show the version."]
    return "\n".join(
        [
            f"usage: {program} COMMAND [options]",
            "",
            title,
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help  Show this help.",
            *version,
            "",
            f"{program} COMMAND --help describes a command.",
            "",
        ]
    )


def _modern(argv: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Replaces earlier spellings of options, and says so."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        new = renamed.get(name)
        if new is None:
            words.append(word)
            continue
        _say_renamed(name, new)
        if new:
            words.append(f"{new}{equals}{value}")
        elif equals:  # the option's value now stands alone
            words.append(value)
    return words


def _say_renamed(old: str, new: str) -> None:
    if not new:
        sys.stderr.write(f"deepregions: give the file without {old}\n")
    elif old not in _SILENT:
        sys.stderr.write(f"deepregions: {old} is now {new}\n")


def _found_configs(argv: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Finds configuration files that come with this package, and replaces old keys in files."""
    words: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name in {"--config", "-c"} and equals:
            words.append(f"--config={_config(value, renamed)}")
        elif words and words[-1] in {"--config", "-c"}:
            words[-1:] = [f"--config={_config(word, renamed)}"]
        else:
            words.append(word)
    return words


def _config(name: str, renamed: Mapping[str, str]) -> str:
    """Returns the path of a configuration, or its content where it had old keys."""
    path = find_config(name)
    keys = {old.removeprefix("--"): new.removeprefix("--") for old, new in renamed.items()}
    if not keys or not path.is_file():
        return str(path)
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return str(path)  # the parser says what is wrong
    if not isinstance(content, dict):
        return str(path)
    changed = False
    for old, new in keys.items():
        outer, _, inner = old.partition(".")
        holder = content.get(outer) if inner else content
        if isinstance(holder, dict) and (inner or outer) in holder:
            value = holder.pop(inner or outer)
            if inner and not holder:
                del content[outer]
            target, _, leaf = new.replace("-", "_").partition(".")
            if leaf:
                content.setdefault(target, {})[leaf] = value
            else:
                content[target] = [value] if target == "bundle" else value
            _say_renamed(f"{old} in {name}", new)
            changed = True
    return json.dumps(content) if changed else str(path)


def _run_function(command: Callable[..., int], argv: Sequence[str], prog: str | None) -> int:
    from deepregions.commands.options import inputs_first

    parser = _parser(command, prog)
    parameters = _parameters(command)
    words = inputs_first(list(argv)) if "inputs" in parameters else list(argv)
    try:
        options = parser.parse_args(words).as_dict()
    except ArgumentError as error:
        message, hint = _reworded(" ".join(str(error).split()))
        raise UsageError(message, hint or f"see {prog or ''} --help".replace("  ", " ")) from error
    return command(**{name: _value(p.annotation, name, options) for name, p in parameters.items()})


def _reworded(message: str) -> tuple[str, str]:
    """Says in a reader's words what jsonargparse says of a value; returns message and hint."""
    found = re.match(r'Parser key "([^"]+)": (.*?)(?:Got|Given) value: (.*)$', message)
    if found is None:
        return message, ""
    key, expected, value = found.groups()
    choices = re.search(r"Literal\[(.*?)\]", expected)
    if choices is not None:
        hint = "one of " + choices[1].replace("'", "")
    elif "'float'" in expected:
        hint = "a number"
    elif "'int'" in expected:
        hint = "a whole number"
    else:
        return message, ""
    return f"{key} is {value!r}", hint


def _value(kind: Any, name: str, options: Mapping[str, Any]) -> Any:
    """Makes a parameter's value of what was parsed."""
    from deepregions.commands.options import OptionGroup, checked_path

    if isinstance(kind, type) and issubclass(kind, OptionGroup):
        values = {each.name: _value(each.type, each.name, options) for each in _fields(kind)}
        return kind(**values)
    value = options[name]
    if isinstance(kind, type) and is_dataclass(kind):
        return kind(**{each.name: _value(each.type, each.name, value) for each in _fields(kind)})
    if value is None:
        return None
    if _is_list(kind) and Path in _inner(kind):
        return [checked_path(item) for item in value]
    if isinstance(value, Path):
        return checked_path(str(value))
    return value


def _parameters(command: Callable[..., int]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(command, eval_str=True).parameters


@dataclass(frozen=True)
class _Field:
    name: str
    type: Any
    default: Any


def _fields(group: Any) -> list[_Field]:
    hints = inspect.get_annotations(group, eval_str=True)
    return [_Field(each.name, hints[each.name], each.default) for each in fields(group)]


def _parser(command: Callable[..., int], prog: str | None) -> ArgumentParser:
    """Makes options of a function's parameters.

    Keyword-only parameters are options (an underscore may be typed as a dash), others are
    positional; one with a default may be left out. A list (of strings or paths) takes one value or
    more; a bool that is False by default is a flag; the fields of a dataclass are options of their
    own (``--gates.min_size``), without the prefix if it is an ``OptionGroup``; help comes from the
    docstrings.
    """
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    from deepregions.commands.options import OptionGroup

    documentation = parse(command.__doc__ or "")
    texts = {entry.arg_name: entry.description or "" for entry in documentation.params}
    parameters = _parameters(command).values()
    parser = ArgumentParser(
        prog=prog or Path(sys.argv[0]).name,
        usage=_usage(parameters),
        description=(documentation.description or "").split("Returns:")[0],
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", action="config", help="YAML file with any of these options."
    )
    for parameter in parameters:
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            prefix = "" if issubclass(kind, OptionGroup) else f"{parameter.name}."
            _add_group(parser, kind, prefix)
        else:
            _add(parser, parameter, texts.get(parameter.name, ""))
    return parser


def _add_group(parser: ArgumentParser, kind: type, prefix: str) -> None:
    """Makes options of a dataclass's fields.

    Not by jsonargparse's ``add_class_arguments``, which imports whatever ``if TYPE_CHECKING`` does.
    """
    from docstring_parser import parse

    described = parse(kind.__doc__ or "")
    group = parser.add_argument_group((described.short_description or prefix).rstrip("."))
    helps = {entry.arg_name: entry.description or "" for entry in described.params}
    for each in _fields(kind):
        text = helps.get(each.name, "")
        _add_option(group, f"{prefix}{each.name}", each.type, each.default, text)


def _usage(parameters: Sequence[inspect.Parameter] | Any) -> str:
    """Inputs come first, then the options that are required."""
    words = ["%(prog)s"]
    for parameter in parameters:
        required = parameter.default is inspect.Parameter.empty
        name = parameter.name.upper()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if required and not is_dataclass(parameter.annotation):
                words.append(f"--{parameter.name.replace('_', '-')} {name}")
        else:
            name += "..." if _is_list(parameter.annotation) else ""
            words.append(name if required else f"[{name}]")
    return " ".join([*words, "[options]"])


def _add(parser: ArgumentParser, parameter: inspect.Parameter, text: str) -> None:
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        _add_option(parser, parameter.name, parameter.annotation, parameter.default, text)
        return
    options = _how(parameter.annotation, parameter.default)
    if parameter.default is not inspect.Parameter.empty:
        options["nargs"] = "*" if "nargs" in options else "?"
    parser.add_argument(parameter.name, help=text, **options)


def _add_option(parser: Any, name: str, kind: Any, default: Any, text: str) -> None:
    names = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
    required = default is inspect.Parameter.empty
    parser.add_argument(*names, dest=name, required=required, help=text, **_how(kind, default))


def _how(kind: Any, default: Any) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if _is_list(kind):
        options |= {"nargs": "+", "type": str}
    elif default is False:
        options["action"] = "store_true"
    else:
        options["type"] = kind
    if default is not inspect.Parameter.empty:
        options["default"] = default
    return options


def _is_list(kind: Any) -> bool:
    return any(get_origin(each) is list for each in (kind, *get_args(kind)))


def _inner(kind: Any) -> tuple[Any, ...]:
    """The types of a list's items."""
    for each in (kind, *get_args(kind)):
        if get_origin(each) is list:
            return get_args(each)
    return ()
