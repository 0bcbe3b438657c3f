import pytest
import torch

from pyro_amortized import Cohort, Doses, Series, concatenate, datasets
from pyro_amortized.cohort.time_grid import common_grid
from pyro_amortized.encode import Deletion, FillIn, Indicator, TimeLabels, Tokens
from pyro_amortized.errors import GuideError
from pyro_amortized.guide.files.network_descriptions import encoder_of
from tests.encode.kit import fitted, gridded, wider
from tests.programs import growth_cohort


@pytest.fixture
def encoder():
    return fitted(growth_cohort(200), ["y"])


def test_fill_padding_and_neighbours_do_not_matter(encoder):
    cohort = growth_cohort(6, 3)
    y = cohort["y"]
    base = encoder(cohort)
    filled = Cohort(
        {"y": Series(y.times, torch.where(y.observed, y.values, 1e9), y.observed)},
        covariates=cohort.covariates,
    )
    assert torch.equal(encoder(filled).tokens, base.tokens)
    longer = concatenate([cohort, wider(cohort)])
    assert torch.allclose(encoder(longer).tokens[:6, :5], base.tokens)
    assert not encoder(longer).mask[:6, 5:].any()
    assert torch.allclose(encoder(cohort[2:4]).tokens, base.tokens[2:4])


def test_scales_come_from_recorded_values_only():
    cohort = growth_cohort(300)
    y = cohort["y"]
    blanked = Cohort(
        {"y": Series(y.times, torch.where(y.observed, y.values, -1e6), y.observed)},
        covariates=cohort.covariates,
    )
    one, two = fitted(cohort, ["y"]), fitted(blanked, ["y"])
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])


def test_doses_are_tokens():
    cohort = datasets.theophylline()
    encoded = fitted(cohort, ["concentration"])(cohort)
    assert encoded.mask.shape == (12, 12)
    more = Cohort(
        cohort.series,
        Doses(cohort.doses.times, 2 * cohort.doses.amounts, given=cohort.doses.given),
        cohort.covariates,
    )
    encoder = fitted(cohort, ["concentration"])
    assert not torch.equal(encoder(more).tokens, encoder(cohort).tokens)


def test_cohorts_of_another_form_are_refused(encoder):
    cohort = growth_cohort(3)
    with pytest.raises(GuideError, match="covariates"):
        encoder.check(Cohort(cohort.series))
    with pytest.raises(GuideError, match="series"):
        encoder.check(Cohort({"z": cohort["y"]}, covariates=cohort.covariates))
    doses = Doses(torch.zeros(3, 1), torch.ones(3, 1))
    with pytest.raises(GuideError, match="doses"):
        encoder.check(Cohort(cohort.series, doses, cohort.covariates))


def test_columns_are_brought_onto_the_grid_by_their_times():
    cohort = gridded()
    encoder = fitted(cohort, ["y"], common_grid(cohort, ["y"]))
    base, y = encoder(cohort), cohort["y"]
    observed = y.observed.clone()
    observed[:, 1] = False
    fewer = Cohort(
        {"y": Series(y.times[:, [0, 2, 3]], y.values[:, [0, 2, 3]], y.observed[:, [0, 2, 3]])}
    )
    masked = encoder(Cohort({"y": Series(y.times, y.values, observed)}))
    assert torch.equal(encoder(fewer).tokens, masked.tokens)
    assert torch.equal(encoder(fewer).mask, masked.mask)
    extra = torch.cat([y.times, torch.full((30, 1), 9.0)], 1)  # an unrecorded time off the grid
    longer = Series(
        extra,
        torch.cat([y.values, y.values[:, :1]], 1),
        torch.cat([y.observed, torch.zeros(30, 1, dtype=torch.bool)], 1),
    )
    assert torch.equal(encoder(Cohort({"y": longer})).tokens, base.tokens)


def test_times_off_the_grid_are_refused_with_the_individual():
    cohort = gridded()
    encoder = fitted(cohort, ["y"], common_grid(cohort, ["y"]))
    times = torch.tensor([[0.0, 1.0], [0.0, 1.3]])
    with pytest.raises(GuideError, match=r"Individual 'b' has values of 'y' at time 1.3"):
        encoder(Cohort({"y": Series(times, torch.ones(2, 2))}, ids=("a", "b")))
    with pytest.raises(GuideError, match="two values"):
        encoder(Cohort({"y": Series(torch.tensor([[0.0, 1.0, 1.0]]), torch.ones(1, 3))}))


@pytest.mark.parametrize(
    "encoding", [FillIn(-1.0), Indicator(-1.0), TimeLabels(), Deletion(), Tokens(), Tokens(3)]
)
@pytest.mark.parametrize("channels", [0, 2])
def test_encodings_share_one_interface(encoding, channels):
    """Scales come from recorded values; settings and scales give an equal encoder."""
    generator = torch.Generator().manual_seed(1)
    shape = (40, 4, channels) if channels else (40, 4)
    values = torch.randn(shape, generator=generator).double()
    observed = torch.rand(shape, generator=generator) > 0.3
    times = torch.tensor([0.0, 1.0, 2.5, 4.0]).double().expand(40, -1)
    series = {n: Series(times, values + k, observed) for k, n in enumerate(("y", "z"))}
    doses = Doses(torch.zeros(40, 1), torch.rand(40, 1) + 1)
    cohort = Cohort(series, doses, {"age": torch.rand(40)})
    grid = common_grid(cohort, ["y", "z"])
    encoder = fitted(cohort, ["y", "z"], grid, encoding)
    encoded = encoder(cohort)
    layout = encoder.layout
    assert encoded.tokens.shape == (40, 9, layout.num_features)
    assert encoded.static.shape == (40, layout.num_static)
    blank = {
        n: Series(s.times, torch.where(s.observed, s.values, 1e6), s.observed)
        for n, s in series.items()
    }
    same = encoder(Cohort(blank, doses, cohort.covariates))
    assert torch.equal(same.tokens, encoded.tokens)
    assert torch.equal(same.static, encoded.static)
    copy = encoder_of(encoder.settings, ())
    copy.load_state_dict(encoder.state_dict())
    assert torch.equal(copy(cohort).tokens, encoded.tokens)
