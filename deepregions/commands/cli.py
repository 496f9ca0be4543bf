"""``deepregions COMMAND``: finds the command, parses its options, turns errors into one line.

Only the module of the command that runs is imported, so that imports at its top what its parser
needs, and the rest in its functions.
"""

import difflib
import errno
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from deepregions.errors import DeepregionsError, MissingExtraError, UsageError, printable
from deepregions.memory import keep_freed

INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141

# The module in this package and its function; what it does, for the list of commands.
COMMANDS = {
    "detect": ("detect:detect", "Score photographs and videos."),
    "explain": ("explain:explain", "Show why photographs and videos have their scores."),
    "segment": ("segment:segment", "Cut the five region images of each face."),
    "databases list": ("databases:list_databases", "List the supported databases."),
    "databases check": ("databases:check_database", "Check a database before preparing it."),
    "databases describe": ("databases:describe_store", "Describe a face store on a page."),
    "prepare": ("prepare:prepare", "Turn a database into a face store."),
    "forge": ("forge:forge", "Make forged faces from photographs or from a face store."),
    "fit": ("fit:fit", "Train a detector on one region."),
    "fuse": ("fuse:fuse", "Train a fusion of networks and calibrate it."),
    "import": ("import_:import_", "Import other people's checkpoints as bundles."),
    "models list": ("models:list_models", "List bundles here and what others offer."),
    "models show": ("models:show_model", "Show what a bundle is."),
    "models verify": ("models:verify_models", "Check bundles' digests and load them."),
    "models robustness": (
        "models:measure_robustness",
        "Measure errors on small, compressed and blurred faces.",
    ),
    "models fetch": ("models:fetch_model", "Download a bundle or a file of weights."),
    "bundle push": ("models:push_bundle", "Upload a bundle to the Hugging Face Hub."),
    "evaluate": ("evaluate:evaluate", "Measure networks and their fusions on face stores."),
    "reproduce": ("reproduce:reproduce", "Run a whole study from one plan."),
    "export": ("export:export", "Export networks and their fusion as one ONNX file."),
    "archive manifest": ("archive:make_manifest", "List the files of an archive."),
    "archive score": ("archive:score_manifest", "Score the files of a manifest."),
    "archive status": ("archive:show_status", "Show how far it is, and what failed."),
    "archive merge": ("archive:merge_results", "Write the results as one Parquet file."),
    "archive report": ("archive:write_report", "Write a page of what the results say."),
    "serve": ("serve:serve", "Score over HTTP: a REST service and a web page."),
    "serve keys add": ("serve:add_key", "Make a key for the service."),
    "serve keys list": ("serve:list_keys", "List the service's keys."),
    "serve keys revoke": ("serve:revoke_key", "Make a key worthless."),
    "benchmark": ("benchmark:benchmark", "Measure how fast this machine scores."),
    "doctor": ("doctor:doctor", "Show what works on this machine."),
    "schema": ("schema:schema", "Print the JSON Schema of a command's output."),
    "demo": ("demo:demo", "Score a portrait, a forged copy and a clip of both."),
}
_NETWORKS = {"--database": "--trained-on", "--models": "--bundle", "--ddbb": "--trained-on"}
_POOLING = {
    "--rules.track": "--pool.frames",
    "--rules.share": "--pool.share",
    "--rules.input": "--pool.tracks",
}
# Earlier spellings of options and what they are called now: nothing if the value now stands alone;
# two with a slash between if the value was split so.
_RENAMED = {
    "detect": {**_NETWORKS, **_POOLING, "--video": "--annotate"},
    "explain": _NETWORKS,
    "prepare": {"--ddbb": "--database"},
    "evaluate": {
        **_NETWORKS,
        **_POOLING,
        "--rounds": "--bootstrap-samples",
        "--confidence": "--ci",
    },
    "reproduce": {"--config": "", "-c": ""},
    "export": {"--only": "--detector/--region"},
}
_SILENT = {"--ddbb"}  # as the paper's program calls it
_GROUPS = {
    "databases": "List and check databases; describe a face store.",
    "models": "List, show, verify and fetch networks.",
    "bundle": "Publish bundles.",
    "archive": "Score archives of any size, on one machine or many.",
    "serve keys": "Make, list and revoke the service's keys.",
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
        sys.stdout.reconfigure(errors="backslashreplace")
    # PyTorch's threads wait for each other after every operation; on a busy machine, one that
    # spins meanwhile keeps the other from running.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed()
    return run(argv)


def run(argv: Sequence[str]) -> int:
    """Runs one command line.

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
    if list(argv[:1]) == ["--version"]:
        from deepregions import __version__

        sys.stdout.write(f"deepregions {__version__}\n")
        return 0
    name, words, group = "", list(argv), ""
    if tuple(words[:2]) == ("serve", "keys"):  # a group in a command
        group, words = "serve keys", words[2:]
    while name not in COMMANDS:
        if not words or words[0] in {"-h", "--help"}:
            (sys.stdout if words else sys.stderr).write(_overview(group))
            return 0 if words else UsageError.exit_code
        known = _summaries(group)
        if words[0] not in known:
            raise _unknown(words[0], known, f"deepregions {group}".strip())
        name = f"{group} {words.pop(0)}".strip()
        group = name
    words = _modern(words, _RENAMED.get(name, {}))
    module, _, attribute = COMMANDS[name][0].partition(":")
    function: Callable[..., int] = getattr(
        importlib.import_module(f"deepregions.commands.{module}"), attribute
    )
    if name == "fit":  # a LightningCLI, which parses for itself
        return function(words)
    from deepregions.commands.parsing import run_function

    return run_function(function, words, prog=f"deepregions {name}")


def find_config(name: str) -> Path:
    """Returns a configuration file: the path itself, or one that comes with this package."""
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


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command like Ctrl-C, with what was finished kept."""


def _terminate(*_: object) -> None:
    raise Terminated


def _guarded(work: Callable[[], int]) -> int:
    earlier = None
    with suppress(ValueError):  # not the main thread: whoever has it decides
        earlier = signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            return work()
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        finally:
            if earlier is not None:
                signal.signal(signal.SIGTERM, earlier)
            sys.stdout.flush()  # here, or the interpreter fails at its end
    except DeepregionsError as error:
        sys.stderr.write(f"deepregions: error: {error}\n")
        return error.exit_code
    except Terminated:
        sys.stderr.write("deepregions: terminated\n")
        return TERMINATED
    except KeyboardInterrupt:
        sys.stderr.write("deepregions: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        sys.stderr.write(f"deepregions: error: {printable(_sentence(error))}\n")
        return 1


def _missing(error: ModuleNotFoundError) -> Exception:
    package = (error.name or "").partition(".")[0]
    if package in {"", "deepregions"}:
        return error
    return MissingExtraError(
        f"this needs the package {package}, which is not installed", "pip install deepregions"
    )


def _sentence(error: OSError) -> str:
    """Says what the system complains of in a reader's order: which file, what, what to do."""
    where = error.filename
    if where is None:
        try:
            sys.stdout.flush()
            if error.errno == errno.ENOSPC:  # what failed may be lost already
                os.write(1, b"\n")
        except OSError:
            _discard_output()
            where = "standard output"
    if where is None or not error.strerror:
        return str(error)
    return f"{where}: {error.strerror} (check the path, its permissions and free space)"


def _discard_output() -> None:
    with suppress(OSError, ValueError):  # not a stream of the system, as in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _summaries(group: str) -> dict[str, str]:
    """What each command does; of a group its subcommands, else the commands and the groups."""
    if group:
        begin = f"{group} "
        return {k.removeprefix(begin): v[1] for k, v in COMMANDS.items() if k.startswith(begin)}
    names = dict.fromkeys(name.partition(" ")[0] for name in COMMANDS)
    return {name: _GROUPS.get(name) or COMMANDS[name][1] for name in names}


def _unknown(name: str, known: Mapping[str, str], program: str) -> UsageError:
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return UsageError(f"there is no command {name!r}", f"{meant}{program} --help lists them")


def _overview(group: str) -> str:
    program = f"deepregions {group}".strip()
    summaries = _summaries(group)
    width = max(map(len, summaries))
    commands = "\n".join(f"  {name:{width}}  {summary}" for name, summary in summaries.items())
    title = _GROUPS.get(group, "Tell manipulated faces from genuine ones, region by region.")
    return (
        f"usage: {program} COMMAND [options]\n\n{title}\n\ncommands:\n{commands}\n\n"
        f"options:\n  -h, --help  Show this help.\n"
        + ("" if group else "  --version   Show the version.\n")
        + f"\n{program} COMMAND --help describes a command.\n"
    )


def _modern(argv: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Replaces earlier spellings of options, says so, and finds shipped configuration files."""
    words = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name not in renamed:
            if name in {"--config", "-c"} and (equals or rest):
                word = f"--config={_config(value if equals else rest.pop(0), renamed)}"
            words.append(word)
            continue
        new = renamed[name]
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


def _config(name: str, renamed: Mapping[str, str]) -> str:
    """Returns the path of a configuration, or its content if that had earlier keys."""
    path = find_config(name)
    if not path.is_file():
        raise UsageError(f"{name}: no such file", "--config takes a YAML file")
    if not renamed:
        return str(path)
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return str(path)  # the parser says what is wrong
    changed = False
    for old, new in renamed.items():
        *outer, key = old.removeprefix("--").split(".")
        holder = content
        for part in outer:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or key not in holder:
            continue
        value = holder.pop(key)
        if outer and not holder:
            del content[outer[0]]
        target = new.removeprefix("--").replace("-", "_")
        content[target] = [value] if target == "bundle" else value
        _say_renamed(f"{old.removeprefix('--')} in {name}", new.removeprefix("--"))
        changed = True
    return json.dumps(content) if changed else str(path)
