"""``deepregions demo``: the whole main job in minutes, with toy networks on drawn faces."""


def demo() -> int:
    """Demo."""
    return 0
