"""Makes a command line of a function: its parameters are the options, its docstring the help."""

from __future__ import annotations

import inspect
import re
import sys
from argparse import SUPPRESS, Action, ArgumentError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from docstring_parser import parse
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from deepregions.commands.options import OptionGroup, checked_path, inputs_first
from deepregions.errors import UsageError


def run_function(command: Callable[..., int], argv: Sequence[str], prog: str | None = None) -> int:
    """Runs a function with options of a command line.

    Keyword-only parameters are options (a dash may be typed as an underscore), others are
    positional; one with a default may be left out. A list (of strings or paths) takes one value or
    more; a bool that is False by default is a flag; the fields of a dataclass are options of their
    own (``--gates.min-size``), without the prefix if it is an ``OptionGroup``; help comes from the
    docstrings.

    Args:
        command: The function.
        argv: The command line, without the program's name.
        prog: The program's name for the help; by default the process's.

    Returns:
        What the function returns.

    Raises:
        UsageError: An option or its value makes no sense.
        DeepregionsError: What the function raises.
    """
    parser = _parser(command, prog)
    parameters = _parameters(command)
    words = [_dashed(word) for word in argv]
    words = inputs_first(words) if "inputs" in parameters else words
    try:
        options = parser.parse_args(words).as_dict()
    except ArgumentError as error:
        message, hint = _reworded(" ".join(str(error).split()))
        raise UsageError(message, hint or f"see {prog or ''} --help".replace("  ", " ")) from error
    return command(**{name: _value(p.annotation, name, options) for name, p in parameters.items()})


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    if not name.startswith("--") or name == "--print_config":
        return word
    return f"{name.replace('_', '-')}{equals}{value}"


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
    documentation = parse(command.__doc__ or "")
    texts = {entry.arg_name: entry.description or "" for entry in documentation.params}
    parameters = _parameters(command).values()
    parser = ArgumentParser(
        prog=prog or Path(sys.argv[0]).name,
        usage=_usage(parameters),
        description=(documentation.description or "").split("Returns:")[0],
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
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
    required = default is inspect.Parameter.empty
    option = f"--{name.replace('_', '-')}"
    parser.add_argument(option, required=required, help=text, **_how(kind, default))


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


class _HelpFormatter(DefaultHelpFormatter):
    """Shows defaults, but no types: texts and choices say what is taken; keeps paragraphs."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        fill = super()._fill_text
        return "\n\n".join(fill(each, width, indent) for each in paragraphs)

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        default = action.default
        shown = not any(default is each for each in (None, False, SUPPRESS))
        if not shown or action.required or not action.option_strings:
            return text
        value = f"{default:.3g}" if isinstance(default, float) else str(default)
        return f"{text.rstrip('.')} (default: {value})."
