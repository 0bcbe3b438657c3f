"""Wrong inputs: the table of ``tests/system/test_bad_inputs.py`` and
``docs/reliability.md``.

Every entry is a label, what is done wrongly (a function of a :class:`~tests.bad_inputs.kit.Kit`),
and a fragment that the message must contain.
"""

from .cohorts import COHORTS
from .fits import FITS
from .folders import FOLDERS
from .models import MODELS
from .outcomes import OUTCOMES
from .settings import SETTINGS
from .tables import TABLES
from .warned import FINE, WARNED

ERRORS = {
    **COHORTS,
    **MODELS,
    **OUTCOMES,
    **SETTINGS,
    **FITS,
    **FOLDERS,
    **TABLES,
}
__all__ = ["ERRORS", "FINE", "WARNED"]
