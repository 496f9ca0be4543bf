"""Other programs' weights: what a file is, and its bundle."""
