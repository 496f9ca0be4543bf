"""Colours of tracks, the same on the page and in the annotated video."""

from __future__ import annotations

# Of Okabe and Ito's palette (Color Universal Design, 2008), told apart by the colour-blind, those
# that stand out from white and from near-black alike (contrast 3:1, WCAG 2.2, 1.4.11), and a grey;
# each with the colour of text on it. There are more people than colours: a number always stands
# beside the colour.
TRACKS = (
    ("#0072b2", "#ffffff"),
    ("#d55e00", "#000000"),
    ("#009e73", "#000000"),
    ("#cc79a7", "#000000"),
    ("#656565", "#ffffff"),
)


def track_colours(track: int) -> tuple[str, str]:
    """A track's colour, and that of text on it, as ``#rrggbb``."""
    return TRACKS[track % len(TRACKS)]
