"""The command line: one module a command, each a function whose signature is its options."""
