"""Clock times: 8:30, 8:30:15, 8:30 PM."""

import re
from typing import Any

CLOCK = re.compile(r"(\d+):(\d{1,2})(?::(\d{1,2})(?:\.0*)?)?(?:\s*([AaPp])\.?[Mm]\.?)?")


def clock(entry: Any) -> float | None:
    """Seconds since midnight; None for what is no clock time."""
    found = CLOCK.fullmatch(str(entry).strip())
    if found is None:
        return None
    hours, minutes, seconds = int(found[1]), int(found[2]), int(found[3] or 0)
    if found[4] is not None:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + (12 if found[4].lower() == "p" else 0)
    valid = hours < 24 and minutes < 60 and seconds < 60
    return 3600.0 * hours + 60.0 * minutes + seconds if valid else None
