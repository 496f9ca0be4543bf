"""Which of a Keras file's arrays belong to which layer of Xception; never by their order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from deepregions.errors import UnreadableError
from deepregions.weights.convert.keras_files import KerasFile, StoredLayer
from deepregions.weights.convert.keras_graph import XceptionLayers
from deepregions.weights.convert.keras_layers import LAYERS, Slot, head_slot

Assigned = dict[Slot, StoredLayer]


def assign(file: KerasFile, found: XceptionLayers | None) -> Assigned:
    """Gives every layer of Xception, and the head if there is one, its arrays.

    With a configuration by what it says; without one by names, and where Keras numbers layers
    itself (the convolutions beside the blocks) by shapes.

    Raises:
        UnreadableError: A layer or an array is missing, has another shape, or is left over.
    """
    if found is None:
        assigned = _without_config(file)
    elif file.by_path:
        places = {layer.place: layer for layer in file.layers}
        names = {slot: node.name for slot, node in found.layers.items()}
        assigned = _pick({slot: node.place for slot, node in found.layers.items()}, places, names)
    else:
        assigned = _by_group(file, found)
    _refuse_left_over(file, assigned.values())
    return assigned


def _by_group(file: KerasFile, found: XceptionLayers) -> Assigned:
    """Layers of the outermost model have a group each, a nested model has one for all of it."""
    groups: dict[str, list[StoredLayer]] = {}
    for layer in file.layers:
        groups.setdefault(layer.place, []).append(layer)
    single = {place: layers[0] for place, layers in groups.items() if len(layers) == 1}
    outer = {slot: node.name for slot, node in found.layers.items() if not node.models}
    assigned = _pick(outer, single, outer)
    nested: dict[str, dict[Slot, str]] = {}
    for slot, node in found.layers.items():
        if node.models:
            nested.setdefault(node.models[0], {})[slot] = node.name
    for place, wanted in nested.items():
        assigned |= _by_name(wanted, groups.get(place, []))
    return assigned


def _pick(
    wanted: Mapping[Slot, str], stored: Mapping[str, StoredLayer], names: Mapping[Slot, str]
) -> Assigned:
    assigned = {}
    for slot, place in wanted.items():
        if place not in stored:
            raise UnreadableError(f"layer {names[slot]!r} has no arrays in the file")
        assigned[slot] = _fitting(slot, stored[place], names[slot])
    return assigned


def _by_name(wanted: Mapping[Slot, str], stored: Sequence[StoredLayer]) -> Assigned:
    """Matches by name and shapes; a session's suffix on a name (``conv1_3``) does not matter."""
    rounds: tuple[Callable[[str, StoredLayer | Slot], Hashable], ...] = (
        lambda name, layer: (_stem(name), _shapes(layer)),
        lambda name, layer: (name, _shapes(layer)),
        lambda name, layer: _shapes(layer),  # noqa: ARG005
    )
    assigned: Assigned = {}
    for last, key in zip((False, False, True), rounds, strict=True):
        left = [layer for layer in stored if layer not in assigned.values()]
        slots = {
            key(name, slot): slot
            for slot, name in wanted.items()
            # Where nothing but shapes is left, only what Keras itself numbers may be matched.
            if slot not in assigned and (not last or "residual" in slot.name)
        }
        slot_counts = Counter(
            key(name, slot) for slot, name in wanted.items() if slot not in assigned
        )
        counts = Counter(key(layer.name, layer) for layer in left)
        for layer in left:
            own = key(layer.name, layer)
            if own in slots and counts[own] == slot_counts[own] == 1:
                assigned[slots[own]] = layer
    for slot, name in wanted.items():
        if slot not in assigned:
            left = [layer for layer in stored if layer not in assigned.values()]
            _refuse_missing(slot, name, left)
        _fitting(slot, assigned[slot], name)
    return assigned


def _without_config(file: KerasFile) -> Assigned:
    heads = [layer for layer in file.layers if _is_head(layer)]
    if len(heads) > 1:
        raise UnreadableError(f"it has {len(heads)} fully connected layers", "one is wanted")
    layers = [layer for layer in file.layers if layer not in heads]
    if file.by_path and not all(layer.name for layer in layers):
        assigned = _by_count(layers)
    else:
        assigned = _by_name({slot: slot.stem for slot in LAYERS}, layers)
    for head in heads:
        slot = head_slot(head.arrays["kernel"].shape[1], bias="bias" in head.arrays)
        assigned[slot] = _fitting(slot, head, head.name or head.place)
    return assigned


def _by_count(layers: Sequence[StoredLayer]) -> Assigned:
    """Keras 3's own format without names: classes, numbered as ``keras.applications`` builds."""
    models = Counter(layer.place.rpartition("/")[0] for layer in layers)
    if not models:
        raise UnreadableError("it has no arrays")
    model = models.most_common(1)[0][0]
    counts: Counter[str] = Counter()
    places = {}
    for slot in LAYERS:
        number = f"_{counts[slot.kind]}" if counts[slot.kind] else ""
        places[slot] = f"{model}/{slot.kind}{number}"
        counts[slot.kind] += 1
    return _pick(places, {layer.place: layer for layer in layers}, places)


def _is_head(layer: StoredLayer) -> bool:
    kernel = layer.arrays.get("kernel")
    return kernel is not None and len(kernel.shape) == 2 and kernel.shape[0] == 2048


def _fitting(slot: Slot, layer: StoredLayer, name: str) -> StoredLayer:
    for kind, shape in slot.shapes.items():
        array = layer.arrays.get(kind)
        if array is None:
            raise UnreadableError(f"layer {name!r} lacks its array {kind}")
        if array.shape != shape:
            raise UnreadableError(
                f"array {array.path} of layer {name!r} is {list(array.shape)}, not {list(shape)}",
                "it is no Xception's",
            )
        if array.dtype.kind != "f":
            raise UnreadableError(f"array {array.path} of layer {name!r} holds {array.dtype}")
    extra = sorted(layer.arrays.keys() - slot.shapes.keys())
    if extra:
        raise UnreadableError(f"layer {name!r} has an array {extra[0]}, which Xception's has not")
    return layer


def _refuse_missing(slot: Slot, name: str, left: Iterable[StoredLayer]) -> None:
    for layer in left:
        if _stem(layer.name) == _stem(name) and "residual" not in slot.name:
            _fitting(slot, layer, name)
    shapes = ", ".join(f"{kind} {list(shape)}" for kind, shape in slot.shapes.items())
    called = name if name == slot.name else f"{name} ({slot.name})"
    raise UnreadableError(f"layer {called!r} is missing in the file: {shapes}")


def _refuse_left_over(file: KerasFile, used: Iterable[StoredLayer]) -> None:
    places = {id(layer) for layer in used}
    left = [layer.name or layer.place for layer in file.layers if id(layer) not in places]
    if left:
        names = ", ".join(left[:5]) + (" and others" if len(left) > 5 else "")
        raise UnreadableError(
            f"{len(left)} of its layers with arrays are not Xception's: {names}",
            "nothing may be left over",
        )


def _shapes(layer: StoredLayer | Slot) -> Hashable:
    if isinstance(layer, Slot):
        return frozenset(layer.shapes.items())
    return frozenset((kind, array.shape) for kind, array in layer.arrays.items())


def _stem(name: str) -> str:
    return re.sub(r"(_\d+)+$", "", name)
