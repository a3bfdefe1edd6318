"""The command line: one module for each subcommand, thin; see :mod:`gpt2lab.cli.main`."""
