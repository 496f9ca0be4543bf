"""How well systems tell fakes from genuine faces: measures with intervals, protocols, tables."""
