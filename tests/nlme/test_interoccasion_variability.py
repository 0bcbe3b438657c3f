"""Occasions: their numbers, and the density of a model with variability between them."""

import math
from dataclasses import replace

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.cohort import Doses, Series, concatenate
from pyro_amortized.errors import CohortError
from pyro_amortized.model import read_structure
from tests.nlme.kit import f64

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


def occasions_cohort():
    frame = pd.DataFrame(
        {
            "ID": [1] * 6 + [2] * 3,
            "TIME": [0, 1, 5, 24, 25, 30, 0, 2, 4],
            "DV": [math.nan, 9.0, 5.0, math.nan, 8.0, 4.0, math.nan, 7.0, 5.0],
            "AMT": [100, 0, 0, 100, 0, 0, 100, 0, 0],
            "OCC": [1, 1, 1, 2, 2, 2, 1, 1, 1],
        }
    )
    return nlme.read_table(frame, series="y")


def occasions_model(cohort):
    typical = pyro.sample("typical", dist.Normal(f64(0.0, 2.3), 0.3).to_event(1))
    between = pyro.sample("between", dist.HalfNormal(f64(0.3)[0]))
    sigma = pyro.sample("sigma", dist.HalfNormal(f64(1.0)[0]))
    y = cohort["y"]
    visits = nlme.occasions(cohort.time_varying["OCC"], y.times)
    with pyro.plate("individual", len(cohort), dim=-1):
        phi = pyro.sample("phi", dist.Normal(typical, 0.2).to_event(1))
        with pyro.plate("occasion", visits.number, dim=-2):
            kappa = pyro.sample("kappa", dist.Normal(0.0, between))
        cl = phi[..., 0].exp().unsqueeze(-1) * kappa.mT.exp()
        v = phi[..., 1].exp()
        pieces = nlme.Piecewise(visits.changes, {"cl": cl})
        x = nlme.solve(eliminate, f64(0.0), y.times, {"v": v}, doses=cohort.doses, piecewise=pieces)
        normal = dist.Normal(x[..., 0] / v.unsqueeze(-1), sigma[..., None])
        pyro.sample("y", normal.mask(y.observed).to_event(1), obs=y.values)


def eliminate(t, x, p):
    return -(p["cl"] / p["v"]).unsqueeze(-1) * x


def test_occasions_are_numbered_and_padded():
    cohort = occasions_cohort()
    visits = nlme.occasions(cohort.time_varying["OCC"], cohort["y"].times)
    assert visits.number == 2
    assert visits.index.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert visits.changes.tolist() == [[24.0], [math.inf]]
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert nlme.by_occasion(values, visits.index).tolist() == [[1, 1, 2, 2], [3, 3, 3, 3]]


@pytest.mark.slow
def test_variability_between_occasions_in_a_model():
    """A nested plate: four latent coordinates per individual; the density is computed by hand."""
    cohort = occasions_cohort()
    structure = read_structure(occasions_model, cohort)
    assert structure.num_latent == 4
    assert structure.shared == ("sigma",)
    population = {"typical": f64(0.1, 2.2), "between": f64(0.3)[0], "sigma": f64(0.8)[0]}
    u = f64(0.1, 2.3, 0.2, -0.1, -0.2, 2.1, 0.0, 0.4).reshape(1, 2, 4)
    log_density = structure.log_density(cohort, u, population)
    normal = scipy.stats.norm
    for i in range(2):
        a, b, first, second = u[0, i].tolist()
        prior = normal.logpdf([a, b], [0.1, 2.2], 0.2).sum()
        prior += normal.logpdf([first, second], 0.0, 0.3).sum()
        assert float(log_density.individual[0, i]) == pytest.approx(prior)
        amount, now, total = 0.0, 0.0, 0.0
        events = [(0.0, 100.0, None)] + ([(24.0, 100.0, None)] if i == 0 else [])
        y = cohort["y"]
        events += [
            (float(t), 0.0, float(v))
            for t, v, o in zip(y.times[i], y.values[i], y.observed[i], strict=True)
            if o
        ]
        for time, dose, value in sorted(events, key=lambda e: (e[0], -e[1])):
            k = math.exp(a + (second if i == 0 and now >= 24.0 else first) - b)
            amount = amount * math.exp(-k * (time - now)) + dose
            now = time
            if value is not None:
                total += normal.logpdf(value, amount / math.exp(b), 0.8)
        assert float(log_density.observation[0, i]) == pytest.approx(total, rel=1e-6)


def test_time_varying_covariates_stay_with_their_individuals(tmp_path):
    cohort = occasions_cohort()
    joined = concatenate([cohort, replace(cohort[[0]], ids=("repeated",))])
    for part in (
        cohort[[0]],
        cohort.repeat(2)[[0]],
        cohort.to(dtype=torch.float32)[[0]],
        joined[[0]],
    ):
        assert part.time_varying["OCC"].values[0, :6].tolist() == [1, 1, 1, 2, 2, 2]
    with pytest.raises(CohortError, match="Time-varying 'OCC'"):
        replace(
            cohort,
            time_varying={"OCC": Series(f64(0.0).reshape(1, 1), f64(1.0).reshape(1, 1))},
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The weights of")
def test_a_guide_reads_occasions_and_events(tmp_path):
    """The encoding has features of steady states and of covariates over time, also when loaded."""
    cohort = occasions_cohort()
    steady = torch.zeros_like(cohort.doses.steady_state)
    steady[0, 0] = 1
    doses = Doses(
        **(vars(cohort.doses) | {"steady_state": steady, "intervals": 24.0 * steady.double()})
    )
    cohort = replace(cohort, doses=doses)
    options = pa.TrainingOptions(max_epochs=4)
    guide = pa.train(
        occasions_model, cohort, num_simulations=400, seed=1, options=options, progress=False
    )
    form = guide.posterior.encoder.form
    assert form.time_varying == ("OCC",)
    assert form.has_events
    guide.save(tmp_path / "guide")
    loaded = pa.load_guide(tmp_path / "guide", occasions_model, cohort)
    posteriors = [
        pa.sample_individuals(
            g.model,
            cohort,
            {
                "typical": f64(0.1, 2.2),
                "between": f64(0.3)[0],
                "sigma": f64(0.8)[0],
            },
            guide=g,
            num_draws=200,
            seed=2,
            refine=False,  # the draws of the networks themselves
        )
        for g in (guide, loaded)
    ]
    assert torch.equal(posteriors[0].estimate.log_mean, posteriors[1].estimate.log_mean)


def test_what_is_no_record_of_occasions_is_refused_with_the_line_to_write():
    series = occasions_cohort()["y"]
    with pytest.raises(CohortError, match=r'cohort.time_varying\["OCC"\], series.times'):
        nlme.occasions("OCC", series.times)
    with pytest.raises(CohortError, match="`times` is a Series"):
        nlme.occasions(series, series)
