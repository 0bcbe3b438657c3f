r"""Running other people's code, and other processes, safely.

Checks of arguments, isolation of global state, random numbers, parallel work, files that are
complete or absent, progress bars. This package knows no model and no data.
"""
