import pytest

from pyro_amortized import nlme
from pyro_amortized.commands.regimen_text import (
    named_regimen,
    numbers_from,
    regimen_from,
    two_numbers,
    values_from,
)
from pyro_amortized.errors import SettingError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", nlme.regimen(100)),
        ("100 every 12 x 7", nlme.regimen(100, 12, 7)),
        ("100 every 12 x7 loading 200", nlme.regimen(100, 12, 7, loading=200)),
        (
            "5 per weight every 24 steady-state",
            nlme.regimen(5, 24, per="weight", steady_state=True),
        ),
        (
            "100 every 24 x 3 + 50 every 24 x 3 at 8",
            nlme.regimen(100, 24, 3) + nlme.regimen(50, 24, 3, start=8),
        ),
        ("9 over .5 every 8 x 9 into 2 at 4", nlme.regimen(9, 8, 9, 0.5, compartment=2, start=4)),
    ],
)
def test_regimens(text, expected):
    assert regimen_from(text) == expected
    assert named_regimen(f"name={text}") == ("name", expected)
    assert named_regimen(text) == (expected.label, expected)


@pytest.mark.parametrize("text", ["", "often", "100 daily 3", "100 every", "100 every day"])
def test_what_is_no_regimen(text):
    with pytest.raises(SettingError, match="The regimen is"):
        regimen_from(text)


def test_numbers_and_values():
    assert numbers_from("1, 2.5,", "--times") == [1.0, 2.5]
    assert two_numbers("1,2", "--range") == (1.0, 2.0)
    assert values_from("weight=70, age=3", "--values") == {"weight": 70.0, "age": 3.0}
    for call in (
        lambda: numbers_from("a", "--times"),
        lambda: two_numbers("1,2,3", "--times"),
        lambda: values_from("weight", "--times"),
        lambda: values_from("weight=heavy", "--times"),
    ):
        with pytest.raises(SettingError, match="--times"):
            call()
