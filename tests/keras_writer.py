"""Xceptions in every layout in which Keras has written them.

Keras 3 writes its own; what only older versions wrote is written here after their layouts: whole
models and weights alone, flat and nested, with a session's suffixes. All are
guises of one network with the same numbers, so that Keras is asked once for its answer.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")


class Example:
    """One network of random numbers, and its guises in Keras 3.

    Args:
        size: Height and width of its input.
        weights: Numbers of another example, in the order of ``flat.get_weights()``.
    """

    def __init__(self, size: int, weights: list[np.ndarray] | None = None) -> None:
        import keras

        keras.utils.set_random_seed(0)
        layers = keras.layers
        shape = (size, size, 3)
        self.size = size
        self.base = keras.applications.Xception(input_shape=shape, weights=None, include_top=False)
        self.dense = layers.Dense(2, activation="softmax")
        self.mean = layers.GlobalAveragePooling2D()
        self.flat = keras.Model(self.base.input, self.dense(self.mean(self.base.output)))
        if weights is None:
            self._randomise()
        else:
            self.flat.set_weights(weights)
        random = np.random.default_rng(1)
        coarse = random.integers(0, 256, (2, 8, 8, 3)).repeat(size // 8, 1).repeat(size // 8, 2)
        noise = random.integers(-20, 21, coarse.shape)
        both = (coarse + noise).clip(0, 255)
        both[1] = 20 + both[1] // 8  # dark and flat, so that answers differ
        self.images = both.astype(np.uint8)
        self.features = keras.Model(self.base.input, self.mean.output)
        self.x = self.images.astype(np.float32) / 255

    def _randomise(self) -> None:
        random = np.random.default_rng(0)
        for layer in self.base.layers:
            if type(layer).__name__ == "BatchNormalization":
                n = layer.gamma.shape
                values = [random.uniform(0.5, 1.5, n), random.normal(0, 0.2, n)]
                values += [random.normal(0, 0.02, n), random.uniform(0.02, 0.2, n)]
                layer.set_weights(values)

    def head(self, model: Any, weights: list[np.ndarray]) -> Any:
        """Returns a model after giving its last layer numbers."""
        model.layers[-1].set_weights(weights)
        return model

    def sequential(self, *, units: int = 2, activation: str = "softmax") -> Any:
        """The network as the first layer of a Sequential, with another head of the same kind."""
        import keras

        layers = keras.layers
        dense = layers.Dense(units, activation=activation)
        model = keras.Sequential(
            [self.base, layers.GlobalAveragePooling2D(), layers.Dropout(0.5), dense]
        )
        model.build((None, self.size, self.size, 3))
        return model

    def nested(self, *, rescaling: bool = False) -> Any:
        """The network within another functional model."""
        import keras

        layers = keras.layers
        images = keras.Input((self.size, self.size, 3))
        x = layers.Rescaling(1 / 127.5, offset=-1)(images) if rescaling else images
        x = layers.GlobalAveragePooling2D()(self.base(x))
        return keras.Model(images, layers.Dense(2, activation="softmax")(x))

    def top(self, units: int, activation: str) -> Any:
        """The flat network with another head."""
        import keras

        dense = keras.layers.Dense(units, activation=activation)
        return keras.Model(self.base.input, dense(self.mean.output))


@dataclass
class Layer:
    """A layer in the older layouts."""

    name: str
    kind: str
    config: dict[str, Any]
    sources: list[str]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def old_layers(model: Any, *, first: int = 0) -> list[Layer]:
    """Returns a flat Keras 3 model's layers as Keras 2 had them.

    Args:
        model: A functional model without models in it.
        first: The number of the first layer that Keras names itself: 1 in Keras 2.2, and 0, which
            is not written, in tf.keras. Later Xceptions of a session begin higher.
    """
    new: dict[str, str] = {}
    counts: dict[str, int] = {}
    layers = []
    for layer, entry in zip(model.layers, model.get_config()["layers"], strict=True):
        name = layer.name
        kind = entry["class_name"]
        if not name.startswith("block"):
            stem = {"InputLayer": "input"}.get(kind, name.rstrip("0123456789").rstrip("_"))
            count = counts[stem] = counts.get(stem, first - 1) + 1
            name = f"{stem}_{count}" if count else stem
        new[layer.name] = name
        config = {key: value for key, value in entry["config"].items() if key not in _NEW}
        config |= {"name": name, "dtype": "float32", "trainable": True}
        if "batch_shape" in config:
            config["batch_input_shape"] = config.pop("batch_shape")
        if "axis" in config:
            config["axis"] = [3]
        kinds = [variable.name for variable in layer.weights]
        arrays = dict(zip(kinds, layer.get_weights(), strict=True))
        sources = [new[source] for source in _sources(entry["inbound_nodes"])]
        layers.append(Layer(name, kind, config, sources, arrays))
    return layers


_NEW = {"groups", "renorm", "renorm_clipping", "renorm_momentum", "synchronized", "keepdims"}
_NEW |= {"optional", "ragged", "quantization_config"}


def _sources(nodes: Any) -> Iterator[str]:
    if isinstance(nodes, dict):
        if nodes.get("class_name") == "__keras_tensor__":
            yield nodes["config"]["keras_history"][0]
            return
        nodes = list(nodes.values())
    if isinstance(nodes, list | tuple):
        for node in nodes:
            yield from _sources(node)


def functional_config(layers: list[Layer], name: str, kind: str = "Model") -> dict[str, Any]:
    """Returns the configuration of a functional model as Keras 2 wrote it."""
    return {
        "class_name": kind,
        "config": {
            "name": name,
            "layers": [
                {
                    "name": layer.name,
                    "class_name": layer.kind,
                    "config": layer.config,
                    "inbound_nodes": [[[s, 0, 0, {}] for s in layer.sources]]
                    if layer.sources
                    else [],
                }
                for layer in layers
            ],
            "input_layers": [[layers[0].name, 0, 0]],
            "output_layers": [[layers[-1].name, 0, 0]],
        },
    }


@dataclass
class Old:
    """A file of an older Keras."""

    version: str
    first: int = 0
    nested: str = ""  # "list" (TF 1.10's Sequential), "dict" (later ones), "model" (functional)
    weights_only: bool = False
    suffix: Callable[[str], str] = str  # what a session makes of a layer's name in variables
    optimizer: bool = False
    hollow: bool = False  # arrays of which nothing is stored

    def write(self, model: Any, path: Path) -> Path:
        """Writes a flat Keras 3 model."""
        layers = old_layers(model, first=self.first)
        functional = "Functional" if self.version.startswith("2.15") else "Model"
        with h5py.File(path, "w") as file:
            root = file if self.weights_only else file.create_group("model_weights")
            for group in {file, root}:
                group.attrs["keras_version"] = self.version.encode()
                group.attrs["backend"] = b"tensorflow"
            if self.nested:
                config = self._nested(root, layers, functional)
            else:
                config = functional_config(layers, "model_1", functional)
                self._groups(root, {layer.name: [layer] for layer in layers})
            if not self.weights_only:
                file.attrs["model_config"] = json.dumps(config).encode()
                file.attrs["training_config"] = b"{}"
            if self.optimizer:
                group = file.create_group("optimizer_weights")
                group.attrs["weight_names"] = [b"training/Adam/block1_conv1/kernel/m:0"]
                group["training/Adam/block1_conv1/kernel/m:0"] = np.zeros((3, 3, 3, 32), "f4")
        return path

    def _nested(self, root: h5py.Group, layers: list[Layer], functional: str) -> dict[str, Any]:
        """The layers up to the last convolution as one model, then the mean and the head."""
        *inner, mean, dense = layers
        shape = inner[0].config["batch_input_shape"]
        groups = {"xception": inner, mean.name: [], dense.name: [dense]}
        config = functional_config(inner, "xception", functional)
        if self.nested == "model":
            outer = Layer(
                "input_9", "InputLayer", {"name": "input_9", "batch_input_shape": shape}, []
            )
            model = Layer("xception", functional, config["config"], ["input_9"])
            mean.sources = ["xception"]
            self._groups(root, {"input_9": [], **groups})
            return functional_config([outer, model, mean, dense], "model_2", functional)
        self._groups(root, groups)
        listed: Any = [config] + [
            {"class_name": layer.kind, "config": layer.config} for layer in (mean, dense)
        ]
        if self.nested == "dict":
            listed = {"name": "sequential_1", "layers": listed}
        return {"class_name": "Sequential", "config": listed}

    def _groups(self, root: h5py.Group, groups: dict[str, list[Layer]]) -> None:
        """Writes each group's variables, and the lists of names that go with them."""
        root.attrs["layer_names"] = np.array([place.encode() for place in groups])
        for place, layers in groups.items():
            group = root.create_group(place)
            arrays = {
                f"{self.suffix(layer.name)}/{kind}:0": values
                for layer in layers
                for kind, values in layer.arrays.items()
            }
            names = np.array([name.encode() for name in arrays])  # of fixed length, as Keras does
            group.attrs["weight_names"] = names if arrays else np.zeros(0)
            for name, values in arrays.items():
                data = None if self.hollow else values
                group.create_dataset(name, values.shape, "f4", data=data)


def session(name: str) -> str:
    """A name when the same model is loaded a second time in one TensorFlow session.

    The first free number is added: ``conv2d`` cannot become ``conv2d_1``, which there is too.
    """
    return {"conv2d": "conv2d_4", "batch_normalization": "batch_normalization_4"}.get(
        name, f"{name}_1"
    )


def without_names(path: Path) -> Path:
    """Makes a ``.weights.h5`` of Keras 3 what TensorFlow 2.15's Keras wrote: no layer names."""
    with h5py.File(path, "r+") as file:

        def strip(name: str, thing: Any) -> None:
            if "name" in thing.attrs:
                del thing.attrs["name"]

        file.visititems(strip)
        file.create_group("metrics/mean/vars")["0"] = np.float32(1)
    return path


def old_archive(model: Any, path: Path) -> Path:
    """Writes a ``.keras`` archive as TensorFlow 2.15's Keras did."""
    weights = path.with_suffix(".weights.h5")
    model.save_weights(weights)
    without_names(weights)
    config = functional_config(old_layers(model), "model", "Functional")
    for layer in config["config"]["layers"]:
        layer |= {"module": "keras.layers", "registered_name": None}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
        archive.writestr("config.json", json.dumps(config))
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return path


def saved(model: Any, path: Path) -> Path:
    """Saves with Keras 3, in the format that the name's ending asks for."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def partly_frozen(example: Example, path: Path, *, optimizer: bool = False) -> Path:
    """Saves the nested network with its first 100 layers frozen."""
    model = example.head(example.sequential(), example.dense.get_weights())
    for layer in example.base.layers[:100]:
        layer.trainable = False
    if optimizer:
        model.compile("adam", "categorical_crossentropy")
        model.optimizer.build(model.trainable_variables)
    saved(model, path)
    for layer in example.base.layers:
        layer.trainable = True
    return path


Write = Callable[[Example, Path], Path]


def _keras3(ending: str, guise: str = "flat", **options: Any) -> Write:
    def write(example: Example, folder: Path) -> Path:
        model = example.flat
        if guise != "flat":
            model = getattr(example, guise)(**options)
            example.head(model, example.dense.get_weights())
        return saved(model, folder / f"model{ending}")

    return write


def _old(**options: Any) -> Write:
    return lambda example, folder: Old(**options).write(example.flat, folder / "model.hdf5")


def _nameless(guise: str) -> Write:
    write = _keras3(".weights.h5", guise)
    return lambda example, folder: without_names(write(example, folder))


KERAS22, TF110, TF215 = "2.2.2", "2.1.6-tf", "2.15.0"

# (who wrote it, layout): how to write it. All have two softmax classes and give one answer.
LAYOUTS: dict[tuple[str, str], Write] = {
    ("Keras 2.2", "HDF5, flat"): _old(version=KERAS22, first=1),
    ("Keras 2.2", "HDF5, flat, later in a session"): _old(version=KERAS22, first=9),
    ("Keras 2.2", "HDF5, flat, weights only"): _old(version=KERAS22, first=1, weights_only=True),
    ("Keras 2.2", "HDF5, in a Sequential"): _old(version=KERAS22, first=1, nested="dict"),
    ("tf.keras 1.10", "HDF5, flat, session suffix, optimizer"): _old(
        version=TF110, suffix=session, optimizer=True
    ),
    ("tf.keras 1.10", "HDF5, in a Sequential (list)"): _old(version=TF110, nested="list"),
    ("tf.keras 1.10", "HDF5, nested, weights only"): _old(
        version=TF110, nested="list", weights_only=True
    ),
    ("tf.keras 1.10", "HDF5, flat, weights only, session suffix"): _old(
        version=TF110, weights_only=True, suffix=session
    ),
    ("tf.keras 1.10", "HDF5, nested, session suffix"): _old(
        version=TF110, nested="list", suffix=session
    ),
    ("tf.keras 2.15", "HDF5, in a Model"): _old(version=TF215, nested="model"),
    ("tf.keras 2.15", ".keras"): lambda e, folder: old_archive(e.flat, folder / "model.keras"),
    ("tf.keras 2.15", ".weights.h5, flat"): _nameless("flat"),
    ("tf.keras 2.15", ".weights.h5, in a Model"): _nameless("nested"),
    ("Keras 3", ".h5, flat"): _keras3(".h5"),
    ("Keras 3", ".h5, in a Model"): _keras3(".h5", "nested"),
    ("Keras 3", ".h5, in a Sequential, partly frozen, optimizer"): lambda e, folder: partly_frozen(
        e, folder / "model.h5", optimizer=True
    ),
    ("Keras 3", ".keras, flat"): _keras3(".keras"),
    ("Keras 3", ".keras, in a Sequential"): _keras3(".keras", "sequential"),
    ("Keras 3", ".keras, partly frozen, optimizer"): lambda e, folder: partly_frozen(
        e, folder / "model.keras", optimizer=True
    ),
    ("Keras 3", ".weights.h5, flat"): _keras3(".weights.h5"),
    ("Keras 3", ".weights.h5, in a Sequential"): _keras3(".weights.h5", "sequential"),
}


def hollow(example: Example, path: Path, **options: Any) -> Path:
    """Writes a whole file in which no number was ever stored: some 150 kB, read as zeros."""
    Old(version=KERAS22, first=1, hollow=True, **options).write(example.flat, path)
    return path


def hollow_archive(example: Example, path: Path) -> Path:
    """Writes such a file as a compressed ``.keras`` archive."""
    layers = old_layers(example.flat)
    weights = path.with_suffix(".h5")
    counts: dict[str, int] = {}
    with h5py.File(weights, "w") as file:
        for layer in layers:
            name = _SNAKE.get(layer.kind, layer.kind.lower())
            count = counts[name] = counts.get(name, -1) + 1
            group = file.create_group(f"layers/{name}{f'_{count}' if count else ''}/vars")
            for i, values in enumerate(layer.arrays.values()):
                group.create_dataset(str(i), values.shape, "f4")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.0"}))
        archive.writestr("config.json", json.dumps(functional_config(layers, "m", "Functional")))
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return path


_SNAKE = {
    "Conv2D": "conv2d",
    "SeparableConv2D": "separable_conv2d",
    "BatchNormalization": "batch_normalization",
}
