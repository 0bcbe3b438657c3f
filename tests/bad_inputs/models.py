"""Programs that are not mixed-effects models."""

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa

from .kit import cohort


def _program(
    phi=lambda: dist.Normal(0.0, 1.0),
    distribution=None,
    name="y",
    plate="individual",
    obs=lambda y: y.values,
    before=lambda c: None,
    inside=lambda c: None,
):
    def model(c):
        before(c)
        with pyro.plate(plate, len(c)):
            x = pyro.sample("phi", phi())
            inside(c)
            y = c["y"]
            mean = x.reshape(len(c), -1)[:, :1] + 0.0 * y.times
            normal = dist.Normal(mean, 1.0).mask(y.observed).to_event(1)
            pyro.sample(name, normal if distribution is None else distribution(mean, y), obs=obs(y))

    return model


def _read(model, num=4):
    return pa.read_structure(model, cohort(num))


def _half(num=4):
    full = cohort(num)
    mask = torch.arange(4).expand(num, -1) < 3
    return full.with_observed({"y": mask.contiguous()})


def _loop(c):
    for i in pyro.plate("individual", len(c)):
        phi = pyro.sample(f"phi_{i}", dist.Normal(0.0, 1.0))
        pyro.sample(f"y_{i}", dist.Normal(phi, 1.0), obs=c["y"].values[i, 0])


def _holes(num=4):
    """A multivariate normal distribution of values that are not all recorded."""

    def model(c):
        y = c["y"]
        with pyro.plate("individual", len(c)):
            x = pyro.sample("phi", dist.Normal(0.0, 1.0))
            mean = x[..., None] + 0.0 * y.times
            root = torch.eye(y.times.shape[1], dtype=mean.dtype)
            pyro.sample("y", dist.MultivariateNormal(mean, scale_tril=root), obs=y.values)

    return pa.read_structure(model, _half(num))


def _scaled(scale):
    def model(c):
        with pyro.plate("individual", len(c)), pyro.poutine.scale(scale=scale):
            x = pyro.sample("phi", dist.Normal(0.0, 1.0))
            y = c["y"]
            normal = dist.Normal(x[..., None] + 0.0 * y.times, 1.0).mask(y.observed).to_event(1)
            pyro.sample("y", normal, obs=y.values)

    return model


def _no_plate(c):
    pyro.sample("phi", dist.Normal(0.0, 1.0))


def _size(c):
    with pyro.plate("individual", len(c) + 1):
        pyro.sample("phi", dist.Normal(0.0, 1.0))


def _subsample(c):
    with pyro.plate("individual", len(c), subsample_size=2):
        phi = pyro.sample("phi", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(phi, 1.0))


def _nothing_latent(c):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("individual", len(c)):
        distribution = dist.Normal(mean + 0 * c["y"].times, 1.0).to_event(1)
        pyro.sample("y", distribution, obs=c["y"].values)


def _nothing_observed(c):
    with pyro.plate("individual", len(c)):
        pyro.sample("phi", dist.Normal(0.0, 1.0))


def _outside(c):
    with pyro.plate("individual", len(c)):
        pyro.sample("phi", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(torch.zeros(len(c), 4), 1.0).to_event(2), obs=c["y"].values)


def _own_parameter(c):
    with pyro.plate("individual", len(c)):
        phi = pyro.param("phi", lambda: torch.zeros(len(c), 1), event_dim=1)
        distribution = dist.Normal(phi + 0 * c["y"].times, 1.0).to_event(1)
        pyro.sample("y", distribution, obs=c["y"].values)


def _two_plates(c):
    with pyro.plate("individual", len(c)), pyro.plate("time", 4):
        pyro.sample("phi", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=c["y"].values)


def _depends_on_number(c):
    each = pyro.sample("each", dist.Normal(torch.zeros(len(c)), 1.0).to_event(1))
    with pyro.plate("individual", len(c)):
        phi = pyro.sample("phi", dist.Normal(each, 1.0))
        distribution = (
            dist.Normal(phi[:, None] + 0 * c["y"].times, 1.0).mask(c["y"].observed).to_event(1)
        )
        pyro.sample("y", distribution, obs=c["y"].values)


def _named_by_number(c):
    """One population site per individual, by name."""
    each = [pyro.sample(f"each_{i}", dist.Normal(0.0, 1.0)) for i in range(len(c))]
    with pyro.plate("individual", len(c)):
        phi = pyro.sample("phi", dist.Normal(torch.stack(each), 1.0))
        distribution = (
            dist.Normal(phi[:, None] + 0 * c["y"].times, 1.0).mask(c["y"].observed).to_event(1)
        )
        pyro.sample("y", distribution, obs=c["y"].values)


def _mixes(c):
    with pyro.plate("individual", len(c)):
        phi = pyro.sample("phi", dist.Normal(0.0, 1.0))
        y = c["y"]
        distribution = dist.Normal((phi - phi.mean())[:, None] + 0 * y.times, 1.0)
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def _centred(c):
    """A covariate counted from the mean of the cohort."""
    weight = c.covariates["weight"]
    with pyro.plate("individual", len(c)):
        phi = pyro.sample("phi", dist.Normal((weight - weight.mean()) / 10, 0.5))
        y = c["y"]
        distribution = dist.Normal(phi[:, None] + 0 * y.times, 1.0)
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def _reversed(c):
    with pyro.plate("individual", len(c)):
        phi = pyro.sample("phi", dist.Normal(0.0, 1.0))
        y = c["y"]
        distribution = dist.Normal(phi.flip(0)[:, None] + 0 * y.times, 1.0)
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def _random_structure(c):
    if float(torch.rand(())) < 0.5:
        pyro.sample("sometimes", dist.Normal(0.0, 1.0))
    _program()(c)


def _random_effect_outside(c):
    shift = torch.randn(())  # random, but not a site
    with pyro.plate("individual", len(c)):
        phi = pyro.sample("phi", dist.Normal(0.0, 1.0))
        y = c["y"]
        distribution = dist.Normal(phi[:, None] + shift + 0 * y.times, 1.0)
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def _nan_density(c):
    with pyro.plate("individual", len(c)):
        phi = pyro.sample("phi", dist.Normal(0.0, 1.0))
        y = c["y"]
        distribution = dist.Normal(phi[:, None] + 0 * y.times, torch.tensor(float("nan")))
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def _transposed_mask(mean, y):
    return dist.Normal(mean, 1.0).mask(y.observed.T).to_event(1)


MODELS = {
    f"model: {n}": x
    for n, x in {
        "a factor": (
            lambda k: _read(_program(inside=lambda c: pyro.factor("extra", torch.zeros(4)))),
            "the factor 'extra'",
        ),
        "a factor of the population": (
            lambda k: _read(_program(before=lambda c: pyro.factor("extra", torch.zeros(())))),
            "pyro.factor",
        ),
        "a scaled density": (lambda k: _read(_scaled(0.5)), "poutine.scale"),
        "densities with weights": (lambda k: _read(_scaled(torch.arange(4.0))), "is scaled"),
        "holes in a multivariate normal": (lambda k: _holes(), "NanMaskedMultivariateNormal"),
        "tensors in place of a cohort": (
            lambda k: pa.fit_population(_program(), (torch.zeros(4, 3), torch.zeros(4, 3))),
            "pa.adapt",
        ),
        "not a function": (lambda k: _read("model"), "callable"),
        "no argument": (lambda k: _read(lambda: None), "fails"),
        "raises": (lambda k: _read(lambda c: 1 / 0), "ZeroDivisionError"),
        "samples nothing": (lambda k: _read(lambda c: None), "no plate"),
        "no plate": (lambda k: _read(_no_plate), "no plate"),
        "another plate": (lambda k: _read(_program(plate="subject")), "'subject'"),
        "a sequential plate": (lambda k: _read(_loop), "sequential"),
        "a plate of another size": (lambda k: _read(_size), "size 5"),
        "a plate that subsamples": (lambda k: _read(_subsample), "size 2"),
        "nothing latent": (lambda k: _read(_nothing_latent), "no latent site"),
        "nothing observed": (lambda k: _read(_nothing_observed), "no observed site"),
        "observes outside the plate": (lambda k: _read(_outside), "outside the plate"),
        "a parameter per individual": (lambda k: _read(_own_parameter), "per individual"),
        "two plates that do not fit": (lambda k: _read(_two_plates), "'y'"),
        "a site outside as long as the cohort": (
            lambda k: _read(_depends_on_number),
            "'each'",
        ),
        "a population site for every individual": (
            lambda k: _read(_named_by_number),
            "'each_3'",
        ),
        "individuals that know each other": (lambda k: _read(_mixes), "other individuals"),
        "a covariate less the mean of the cohort": (
            lambda k: pa.read_structure(
                _centred, cohort(4, covariates={"weight": torch.tensor([50.0, 60.0, 80.0, 95.0])})
            ),
            "fixed references",
        ),
        "individuals in another order": (lambda k: _read(_reversed), "other individuals"),
        "sites that come and go": (lambda k: _read(_random_structure), "'sometimes'"),
        "randomness without a site": (
            lambda k: _read(_random_effect_outside),
            "same values",
        ),
        "a discrete individual site": (
            lambda k: _read(_program(phi=lambda: dist.Bernoulli(0.5))),
            "discrete",
        ),
        "a discrete population site": (
            lambda k: _read(_program(before=lambda c: pyro.sample("kind", dist.Bernoulli(0.5)))),
            "discrete",
        ),
        "an improper population site": (
            lambda k: _read(
                _program(
                    before=lambda c: pyro.sample(
                        "flat", dist.ImproperUniform(dist.constraints.real, (), ())
                    )
                )
            ),
            "fails",
        ),
        "an improper individual site": (
            lambda k: _read(
                _program(phi=lambda: dist.ImproperUniform(dist.constraints.real, (), ()))
            ),
            "fails",
        ),
        "another name than the series": (
            lambda k: _read(_program(name="concentration")),
            "'concentration'",
        ),
        "a site twice": (
            lambda k: _read(_program(inside=lambda c: pyro.sample("phi", dist.Normal(0.0, 1.0)))),
            "phi",
        ),
        "values transformed inside": (
            lambda k: _read(_program(obs=lambda y: y.values.log())),
            "other values",
        ),
        "half of the values": (
            lambda k: _read(
                _program(
                    distribution=lambda m, y: dist.Normal(m[:, :2], 1.0).to_event(1),
                    obs=lambda y: y.values[:, :2],
                )
            ),
            "(4, 2)",
        ),
        "no event for the times": (
            lambda k: _read(_program(distribution=lambda m, y: dist.Normal(m, 1.0))),
            "y",
        ),
        "no mask": (
            lambda k: pa.read_structure(
                _program(distribution=lambda m, y: dist.Normal(m, 1.0).to_event(1)), _half()
            ),
            "not recorded",
        ),
        "a mask too many": (
            lambda k: pa.read_structure(
                _program(
                    distribution=lambda m, y: dist.Normal(m, 1.0).mask(y.times < 2).to_event(1)
                ),
                cohort(4),
            ),
            "declares as recorded",
        ),
        "a mask transposed where N equals T": (
            lambda k: pa.read_structure(_program(distribution=_transposed_mask), _half()),
            "recorded",
        ),
        "a mask of the individuals along the times": (
            lambda k: pa.read_structure(
                _program(
                    distribution=lambda m, y: (
                        dist.Normal(m, 1.0).mask(y.observed[:, -1]).to_event(1)
                    )
                ),
                _half(),
            ),
            "recorded",
        ),
        "a density that is never a number": (
            lambda k: pa.train(_nan_density, cohort(4), num_simulations=500, progress=False),
            "not finite",
        ),
        "a factor in the plate": (
            lambda k: _read(_program(inside=lambda c: pyro.factor("extra", torch.zeros(len(c))))),
            "'extra'",
        ),
    }.items()
}
