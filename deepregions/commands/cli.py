"""``deepregions COMMAND``: finds the command, parses its options, turns errors into one line.

A command is a function whose parameters are its options. Only the module of the command that runs
is imported, so a module of a command imports at its top what its parser needs, and the rest in
its functions.
"""

from __future__ import annotations

import difflib
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from deepregions.errors import DeepregionsError, UsageError, printable

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
        renamed: Its options' earlier spellings, and what they are called now: nothing, where the
            value now stands alone; two with a slash between, where the value was split so.
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
    "export": Command(
        "export:export",
        "Export networks and their fusion as one ONNX file.",
        {"--only": "--detector/--region"},
    ),
    "doctor": Command("doctor:doctor", "Show what works on this machine."),
    "schema": Command("schema:schema", "Print the JSON Schema of a command's output."),
    "demo": Command("demo:demo", "Score a portrait, a forged copy and a clip of both."),
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
    from deepregions.commands.parsing import run_function

    return _guarded(lambda: run_function(command, argv))


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
    from deepregions.commands.parsing import run_function

    return run_function(function, words, prog=f"deepregions {name}")


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
    if name == "benchmark":
        raise UsageError(
            "benchmark is no command any more",
            "in the repository: python benchmarks/runtimes.py and benchmarks/stages.py",
        )
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
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        new = renamed.get(name)
        if new is None:
            words.append(word)
            continue
        _say_renamed(name, new)
        if "/" in new:  # one value was two
            value = value if equals or not rest else rest.pop(0)
            parts = value.split("/")
            if len(parts) != new.count("/") + 1 or not all(parts):
                raise UsageError(f"{name} is {value!r}", f"now {new.replace('/', ' and ')}")
            for option, part in zip(new.split("/"), parts, strict=True):
                words += [option, part]
        elif new:
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
