"""A Keras model's configuration as one flat graph, whatever is nested in what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepregions.errors import UnreadableError

MAX_LAYERS = 1000  # Xception has 134
MAX_DEPTH = 8
_MODELS = ("Model", "Functional", "Sequential")
_KNOWN = {
    "InputLayer",
    "Conv2D",
    "SeparableConv2D",
    "BatchNormalization",
    "BatchNormalizationV1",
    "Activation",
    "ReLU",
    "MaxPooling2D",
    "Add",
    "GlobalAveragePooling2D",
    "Dropout",
    "Flatten",
    "Dense",
    "Softmax",
    "Rescaling",
}


@dataclass(frozen=True)
class Node:
    """A layer in the graph.

    Attributes:
        name: Its name.
        kind: Its class.
        config: Its settings.
        models: Names of the models that it is nested in, from the outside, without the outermost.
        place: Its path in Keras 3's own format: classes numbered in the order of a model's layers.
        inputs: Which layers feed it.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    models: tuple[str, ...]
    place: str
    inputs: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name!r} ({self.kind})"


class Layout:
    """Lays a model and the models in it out as one list of nodes."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.shapes: list[Any] = []  # of inputs, outermost first

    def add_model(
        self, model: Mapping[str, Any], models: tuple[str, ...], place: str, feed: int | None
    ) -> int:
        """Adds a model's layers, fed by a node or by an input of their own; returns its output."""
        config = model["config"]
        layers = config if isinstance(config, list) else config["layers"]
        if len(models) > MAX_DEPTH or len(layers) + len(self.nodes) > MAX_LAYERS or not layers:
            raise UnreadableError(f"a model of {len(layers)} layers, {len(models)} deep")
        named = {_name(layer): layer for layer in layers}
        if len(named) < len(layers):
            raise UnreadableError("two layers of a model have the same name")
        places = dict(zip(named, _places(layers, place), strict=True))
        if model["class_name"] == "Sequential":
            if feed is None and layers[0]["class_name"] not in ("InputLayer", *_MODELS):
                feed = self._add_input(layers[0], "input", models, None)
            for name, layer in named.items():
                if layer["class_name"] == "InputLayer":
                    feed = self._add_input(layer, name, models, feed)
                else:
                    feeds = () if feed is None else (feed,)
                    feed = self._add_layer(layer, name, models, places[name], *feeds)
            return -1 if feed is None else feed
        return self._add_functional(config, named, models, places, feed)

    def _add_functional(
        self,
        config: Mapping[str, Any],
        named: Mapping[str, Mapping[str, Any]],
        models: tuple[str, ...],
        places: Mapping[str, str],
        feed: int | None,
    ) -> int:
        feeds = {name: _feeds(name, layer) for name, layer in named.items()}
        outputs: dict[str, int] = {}
        waiting = list(named)
        while waiting:
            ready = [name for name in waiting if all(source in outputs for source in feeds[name])]
            if not ready:
                raise UnreadableError(f"layer {waiting[0]!r} is fed by a layer that is not there")
            for name in ready:
                layer = named[name]
                sources = [outputs[source] for source in feeds[name]]
                if layer["class_name"] == "InputLayer":
                    if feed is not None and feed in outputs.values():
                        raise UnreadableError(f"a model has a second input, layer {name!r}")
                    outputs[name] = feed = self._add_input(layer, name, models, feed)
                else:
                    outputs[name] = self._add_layer(layer, name, models, places[name], *sources)
            waiting = [name for name in waiting if name not in outputs]
        ends = list(_histories(config["output_layers"]))
        if len(ends) != 1:
            raise UnreadableError(f"a model has {len(ends)} outputs", "one is wanted")
        return outputs[ends[0]]

    def _add_layer(
        self,
        layer: Mapping[str, Any],
        name: str,
        models: tuple[str, ...],
        place: str,
        *feeds: int,
    ) -> int:
        kind = str(layer["class_name"])
        if kind in _MODELS:
            if len(feeds) > 1:
                raise UnreadableError(f"model {name!r} has {len(feeds)} inputs", "one is wanted")
            return self.add_model(layer, (*models, name), place, feeds[0] if feeds else None)
        module = str(layer.get("module") or "keras").partition(".")[0]
        if kind not in _KNOWN or module not in ("keras", "tf_keras", "tensorflow"):
            hint = "Xception has none like it there"
            if "Lambda" in kind:
                hint = "its program code is not run; save the model without it"
            raise UnreadableError(f"unexpected layer {name!r} ({kind})", hint)
        kind = kind.removesuffix("V1")
        self.nodes.append(Node(name, kind, layer["config"], models, place, feeds))
        return len(self.nodes) - 1

    def _add_input(
        self, layer: Mapping[str, Any], name: str, models: tuple[str, ...], feed: int | None
    ) -> int:
        """Adds an input, unless the model is nested: then it is what feeds the model."""
        config = layer["config"]
        self.shapes.append(config.get("batch_input_shape") or config.get("batch_shape"))
        if feed is not None:
            return feed
        self.nodes.append(Node(name, "InputLayer", config, models, "", ()))
        return len(self.nodes) - 1


def _name(layer: Mapping[str, Any]) -> str:
    """Returns a layer's name; models in an old Sequential have none outside their own config."""
    name = layer.get("name")
    if name is None and isinstance(layer["config"], Mapping):
        name = layer["config"].get("name")
    return str(name if name is not None else layer["class_name"])


def _places(layers: Sequence[Mapping[str, Any]], place: str) -> Iterator[str]:
    """Yields where Keras 3's own format has layers: by class, numbered from the second on."""
    counts: dict[str, int] = {}
    for layer in layers:
        name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", str(layer["class_name"]))
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
        count = counts[name] = counts.get(name, -1) + 1
        yield f"{place}/layers/{name}{f'_{count}' if count else ''}".removeprefix("/")


def _feeds(name: str, layer: Mapping[str, Any]) -> list[str]:
    """Returns the names of the layers that feed a layer."""
    calls = layer["inbound_nodes"]
    if len(calls) > 1:
        raise UnreadableError(f"layer {name!r} is used {len(calls)} times")
    return list(dict.fromkeys(_histories(calls)))


def _histories(thing: Any, depth: int = 0) -> Iterator[str]:
    """Yields the layers whose outputs a configuration mentions, as Keras 2 and 3 write it."""
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(thing, Mapping):
        if thing.get("class_name") == "__keras_tensor__":
            yield from _histories(thing["config"]["keras_history"], depth + 1)
            return
        thing = list(thing.values())
    if isinstance(thing, list):
        if len(thing) in (3, 4) and isinstance(thing[0], str) and type(thing[1]) is int:
            if thing[2] != 0:
                raise UnreadableError(f"output {thing[2]} of layer {thing[0]!r} is used")
            yield thing[0]
            return
        for part in thing:
            yield from _histories(part, depth + 1)
