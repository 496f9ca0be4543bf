"""How well systems tell fake from genuine: measures, protocols, tables, figures."""
