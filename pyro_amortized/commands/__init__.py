r"""Parts of the command line: its inputs, and the commands that follow a fit."""
