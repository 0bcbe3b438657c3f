import pytest

from pyro_amortized.errors import GuideError
from pyro_amortized.networks import GridNetwork, TokenLayout


def test_tokens_without_fixed_places_are_refused():
    with pytest.raises(GuideError, match="fixed places"):
        GridNetwork(TokenLayout(3, 0))
