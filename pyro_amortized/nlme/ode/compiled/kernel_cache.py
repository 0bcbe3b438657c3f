r"""Compiled solvers on disk: a solver is compiled once per machine, not once per process.

The compilation of one solver takes 5 to 15 seconds. Its source is written to a folder of the user,
under the hash of its content, and Numba keeps the machine code beside it. Numba compiles anew for
another processor or another version of Numba. Where the folder cannot be written, the solver is
compiled in memory.

The folder is ``pyro_amortized/solvers`` in ``XDG_CACHE_HOME`` (default: ``~/.cache``). The
environment variable ``PYRO_AMORTIZED_CACHE`` names another one; if it is empty, nothing is written.
It may be removed at any time.
"""

import logging
import os
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "PYRO_AMORTIZED_CACHE"
LOG = logging.getLogger("pyro_amortized.nlme")


def cache_folder() -> Path | None:
    """The folder of the compiled solvers; None if there is to be none."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home folder is known
        return None
    return base / "pyro_amortized" / "solvers"


def load_kernel(source: str) -> Any:
    """The function ``kernel`` of the source of a solver, which is compiled at its first call.

    Args:
        source: Python source whose functions are compiled by Numba; ``kernel`` asks for
            ``cache=True``.

    Returns:
        The function, a dispatcher of Numba; :func:`call_kernel` calls it.
    """
    folder = cache_folder()
    if folder is not None:
        try:
            return _from_folder(folder, source)
        except (OSError, RuntimeError) as reason:  # not writable; no place for machine code
            LOG.info("Solvers are compiled in memory, not kept in %s: %s.", folder, reason)
    names: dict[str, Any] = {}
    code = source.replace("cache=True", "cache=False")
    exec(compile(code, "<pyro_amortized solver>", "exec"), names)
    return names["kernel"]


def call_kernel(kernel: Any, *arguments: Any) -> None:
    """Call a kernel; if its machine code cannot be written to the disk, it remains in memory."""
    try:
        kernel(*arguments)
    except OSError:  # the disk is full; the kernel itself reads and writes no file
        kernel(*arguments)


def _from_folder(folder: Path, source: str) -> Any:
    content = source.encode()
    name = f"solver_{sha256(content).hexdigest()[:32]}"
    path = folder / f"{name}.py"
    # Numba's machine code is valid as long as the file has not been written again.
    if not (path.is_file() and path.read_bytes() == content):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f"{name}.{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)
    module = ModuleType(name)
    sys.modules[name] = module  # Numba finds the constants of cached code by the module's name
    exec(compile(source, str(path), "exec"), vars(module))
    return vars(module)["kernel"]
