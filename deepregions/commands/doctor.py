"""``deepregions doctor``: what works here, and what to do about the rest."""

from deepregions.commands import checks


def doctor(*, json: bool = False) -> int:
    """Shows what is installed, which weights are cached, which devices work, and what to do.

    Downloads nothing. Exits with 1 if something that scoring needs is broken.

    Args:
        json: Print JSON instead of tables.
    """
    from rich.text import Text

    from deepregions.doctor import State, examine

    found = list(examine())
    if json:
        checks.print_json([check._asdict() for check in found])
    else:
        colours = {State.OK: "green", State.OPTIONAL: "yellow", State.BROKEN: "bold red"}
        rows = []
        for before, check in zip(["", *(check.group for check in found)], found, strict=False):
            group = "" if check.group == before else check.group
            rows.append((group, check.name, Text(check.state, colours[check.state]), check.detail))
        checks.print_table(("", "what", "state", "found"), rows)
        checks.print_lines(
            *(f"{check.group}, {check.name}: {check.advice}" for check in found if check.advice)
        )
    return int(any(check.state is State.BROKEN for check in found))
