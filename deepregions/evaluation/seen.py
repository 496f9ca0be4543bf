"""Which manipulations networks were trained with: scores do not tell, their bundles may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from deepregions.evaluation.protocols import EVALUATION, Scored
from deepregions.system import TrainedNetwork


def manipulations_of(member: TrainedNetwork) -> frozenset[str] | None:
    """Returns the manipulations that a network learned from, or None if its bundle does not say.

    It does where all fakes were made on the way (``data.forge``). Those by which the best epoch
    was chosen count too.
    """
    forge = member.training.get("forge")
    if not isinstance(forge, Mapping) or forge.get("share") != 1:
        return None
    lists = (forge.get("methods"), forge.get("held_out"))
    return frozenset(str(name) for names in lists if isinstance(names, list) for name in names)


def notes_on_manipulations(
    members: Sequence[TrainedNetwork], scored: Sequence[Scored]
) -> Iterator[str]:
    """Yields which manipulations of evaluation parts are new to networks, where bundles say it.

    Args:
        members: The networks.
        scored: The databases.
    """
    fakes: set[str] = set()
    for each in scored:
        part = each.table.part(EVALUATION)
        fakes |= {str(name).partition(":")[0] for name in part.method[part.fake]}
    known = {member.name: manipulations_of(member) for member in members}
    kinds = {seen for seen in known.values() if seen is not None}
    for seen in sorted(kinds, key=sorted):
        own = [name for name, of in known.items() if of == seen]
        who = "all networks" if len(own) == len(known) else ", ".join(own)
        new = sorted(fakes - seen)
        yield (
            f"by their bundles, {who} learned from {', '.join(sorted(seen))}; never seen in "
            f"training: {', '.join(new) or 'none of the manipulations here'}"
        )
    silent = [name for name, seen in known.items() if seen is None]
    if kinds and silent:
        yield f"bundles do not say which manipulations were seen in training by {', '.join(silent)}"
