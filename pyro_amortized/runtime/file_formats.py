r"""Formats of files: every file says which version of its format it has, and older ones are read.

A file of version v is read by carrying its content through ``upgrades[v]``, ``upgrades[v + 1]``,
..., each of which gives the content of the next version, so that the readers themselves know the
newest format alone. A version without such a way, and a newer one, are refused.
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
        remedy: What else a user can do whose file cannot be read, for the message.
        version: The version that is written.
        upgrades: By older version, the function that makes the content of the next one of it.

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
        """A description with the version that is written."""
        return {KEY: self.version, **description}

    def check(self, path: Path, description: Any) -> int:
        r"""The version of a file, one that can be read.

        Args:
            path: The file, for messages.
            description: Its description; nothing about it is known yet.

        Raises:
            AmortizedError: There is no version, or it cannot be read.
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
        r"""The content of a file as the newest version has it.

        Args:
            path: The file, for messages.
            description: Its description; nothing about it is known yet.
            tensors: Its tensors.

        Raises:
            AmortizedError: There is no version, it cannot be read, or the content is not that of
                its version.
        """
        version, content = self.check(path, description), Content(description, tensors)
        try:
            for step in range(version, self.version):
                content = self.upgrades[step](content)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise AmortizedError(
                f"{path} cannot be used: {error!r}",
                f"a whole file of format version {version}.",
                f"copy it again, or {self.remedy}.",
            ) from error
        return Content({**content.description, KEY: self.version}, content.tensors)
