"""A whole study from one plan: prepare, train, evaluate, each step once."""
