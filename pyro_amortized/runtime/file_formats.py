r"""Versions of file formats: every file states its version, and older versions can be read.

A file of version v is read by applying ``upgrades[v]``, ``upgrades[v + 1]``, ... to its content.
Each of them gives the content of the next version, so the readers only need to know the newest
format. A newer version, or an older one without an upgrade, is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import AmortizedError

KEY = "format_version"


class Content(NamedTuple):
    """What a file holds: a description that JSON can hold, and tensors by name."""

    description: dict[str, Any]
    tensors: dict[str, Tensor]


Upgrade = Callable[[Content], Content]


@dataclass(frozen=True)
class Format:
    r"""The format of one kind of file.

    Args:
        remedy: What else the user can do if the file cannot be read, for the message.
        version: The version that is written.
        upgrades: For each older version, the function that gives the content of the next version.

    Example:
        >>> def renamed(content):
        ...     return Content({"size": content.description["length"]}, content.tensors)
        >>> fmt = Format("make the file again", version=2, upgrades={1: renamed})
        >>> fmt.newest(Path("file"), {"format_version": 1, "length": 3}, {}).description
        {'size': 3, 'format_version': 2}
    """

    remedy: str
    version: int = 1
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)

    @property
    def oldest(self) -> int:
        """The oldest version that can be read."""
        oldest = self.version
        while oldest - 1 in self.upgrades:
            oldest -= 1
        return oldest

    def stamped(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """The description with the version of the format."""
        return {KEY: self.version, **description}

    def check(self, path: Path, description: Any) -> int:
        r"""The version of a file, if it can be read.

        Args:
            path: The file, for messages.
            description: Its description, as read from the file and not yet checked.

        Raises:
            AmortizedError: The version is absent, or it cannot be read.
        """
        version = description.get(KEY) if isinstance(description, dict) else None
        if type(version) is int and self.oldest <= version <= self.version:
            return version
        older = "" if self.oldest == self.version else f"{self.oldest} to "
        raise AmortizedError(
            f"{path} has format version {version!r}.",
            f"version {older}{self.version}.",
            f"use the version of the library that wrote it, or {self.remedy}.",
        )

    def newest(self, path: Path, description: Any, tensors: dict[str, Tensor]) -> Content:
        r"""The content of a file in the newest version of its format.

        Args:
            path: The file, for messages.
            description: Its description, as read from the file and not yet checked.
            tensors: Its tensors.

        Raises:
            AmortizedError: The version is absent, it cannot be read, or the content does not
                agree with it.
        """
        version, content = self.check(path, description), Content(description, tensors)
        try:
            for step in range(version, self.version):
                content = self.upgrades[step](content)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise AmortizedError(
                f"{path} cannot be used: {error!r}",
                f"a complete file of format version {version}.",
                f"copy it again, or {self.remedy}.",
            ) from error
        return Content({**content.description, KEY: self.version}, content.tensors)
