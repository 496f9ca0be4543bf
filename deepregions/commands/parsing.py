"""Parsing: a function's parameters become the options, and its docstring the help."""

import inspect
import re
import sys
from argparse import SUPPRESS, Action, ArgumentError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from docstring_parser import parse
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from deepregions.commands.options import OptionGroup, checked_path, inputs_first
from deepregions.errors import UsageError

_REQUIRED = inspect.Parameter.empty


class _Option(NamedTuple):
    name: str
    kind: Any
    default: Any
    positional: bool
    help: str

    @property
    def is_group(self) -> bool:
        return isinstance(self.kind, type) and is_dataclass(self.kind)

    @property
    def prefix(self) -> str:
        return "" if issubclass(self.kind, OptionGroup) else f"{self.name}."

    @property
    def items(self) -> tuple[Any, ...]:
        """The type of a list's items; empty if it is no list."""
        lists = [kind for kind in (self.kind, *get_args(self.kind)) if get_origin(kind) is list]
        return get_args(lists[0]) if lists else ()


def run_function(
    command: Callable[..., int | None], argv: Sequence[str], prog: str | None = None
) -> int:
    """Runs a function with the options of a command line; one that returns nothing did its work.

    Keyword-only parameters are options (a dash may be typed as an underscore), others are
    positional; one with a default may be left out. A list (of strings or paths) takes one value or
    more, ``list | bool`` none or more; a bool that is False by default is a flag; the fields of a
    dataclass are options of their own (``--gates.min-size``), without the prefix if it is an
    ``OptionGroup``; help comes from the docstrings.

    Raises:
        UsageError: An option or its value makes no sense.
        DeepregionsError: What the function raises.
    """
    options = _options(command)
    words = [_dashed(word) for word in argv]
    if any(option.name == "inputs" for option in options):
        words = inputs_first(words)
    try:
        values = _parser(command, options, prog).parse_args(words).as_dict()
    except ArgumentError as error:
        message, hint = _reworded(" ".join(str(error).split()))
        raise UsageError(
            message, hint or " ".join(["see", *(prog or "").split(), "--help"])
        ) from error
    return command(**{option.name: _value(option, values) for option in options}) or 0


def _options(source: Any) -> list[_Option]:
    """Returns the parameters of a function, or the fields of a dataclass, as options.

    Not by jsonargparse's ``add_class_arguments``, which imports whatever ``if TYPE_CHECKING`` does.
    """
    texts = {
        entry.arg_name: entry.description or "" for entry in parse(source.__doc__ or "").params
    }
    return [
        _Option(
            name,
            parameter.annotation,
            parameter.default,
            not isinstance(source, type) and parameter.kind is not parameter.KEYWORD_ONLY,
            texts.get(name, ""),
        )
        for name, parameter in inspect.signature(source, eval_str=True).parameters.items()
    ]


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


def _value(option: _Option, values: Mapping[str, Any]) -> Any:
    if option.is_group:
        inner = values[option.name] if option.prefix else values
        return option.kind(**{each.name: _value(each, inner) for each in _options(option.kind)})
    value = values[option.name]
    if isinstance(value, list) and Path in option.items:
        return [checked_path(item) for item in value]
    return checked_path(str(value)) if isinstance(value, Path) else value


def _parser(
    command: Callable[..., int | None], options: Sequence[_Option], prog: str | None
) -> ArgumentParser:
    parser = ArgumentParser(
        prog=prog or Path(sys.argv[0]).name,
        usage=_usage(options),
        description=parse(command.__doc__ or "").description or "",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "-c", "--config", action="config", help="YAML file with any of these options."
    )
    for option in options:
        if option.is_group:
            title = parse(option.kind.__doc__ or "").short_description or option.name
            group = parser.add_argument_group(title.rstrip("."))
            for each in _options(option.kind):
                _add(group, each, option.prefix)
        else:
            _add(parser, option)
    return parser


def _usage(options: Sequence[_Option]) -> str:
    words = ["%(prog)s"]
    for option in options:
        required = option.default is _REQUIRED
        name = option.name.upper()
        if option.positional:
            name += "..." if option.items else ""
            words.append(name if required else f"[{name}]")
        elif required and not option.is_group:
            words.append(f"--{option.name.replace('_', '-')} {name}")
    return " ".join([*words, "[options]"])


def _add(parser: Any, option: _Option, prefix: str = "") -> None:
    required = option.default is _REQUIRED
    how: dict[str, Any] = {"help": option.help}
    if option.items:
        maybe_none = (option.positional and not required) or bool in get_args(option.kind)
        how |= {"nargs": "*" if maybe_none else "+", "type": str}
    elif option.default is False:
        how["action"] = "store_true"
    elif option.default is True:
        how["action"] = ActionYesNo(no_prefix="no-")
    else:
        how["type"] = option.kind
    if not required:
        how["default"] = option.default
    if option.positional:
        optional = {} if required or option.items else {"nargs": "?"}
        parser.add_argument(option.name, **how, **optional)
    else:
        name = f"--{prefix}{option.name}".replace("_", "-")
        parser.add_argument(name, required=required, **how)


class _HelpFormatter(DefaultHelpFormatter):
    """Shows defaults, but no types: texts and choices say what is taken; keeps paragraphs."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(each, width, indent) for each in text.strip().split("\n\n"))

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        default = action.default
        shown = not any(default is each for each in (None, False, True, SUPPRESS))
        if not shown or action.required or not action.option_strings:
            return text
        value = f"{default:.3g}" if isinstance(default, float) else str(default)
        return f"{text.rstrip('.')} (default: {value})."
