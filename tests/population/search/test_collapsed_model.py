import pyro
import pytest
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

import pyro_amortized as pa
from tests.exact import TRUTH, exact_fit, exact_log_marginal, linear_program


def test_marginalize_is_a_pyro_program(linear, linear_guide):
    program = pa.marginalize(linear_program, guide=linear_guide, num_draws=2000)
    trace = pyro.poutine.trace(pyro.poutine.condition(program, TRUTH)).get_trace(linear)
    exact = exact_log_marginal(linear, TRUTH).sum()
    value = trace.nodes["log_marginal"]["fn"].log_factor
    assert abs(float(value) - float(exact)) < 0.4
    names = {n for n, s in trace.nodes.items() if s["type"] == "sample"}
    assert names == {"mean", "omega", "sigma", "log_marginal"}


@pytest.mark.slow
def test_marginalized_program_under_nuts_and_svi(linear, linear_guide):
    program = pa.marginalize(linear_program, guide=linear_guide, num_draws=50)
    vector, _, covariance = exact_fit(linear)
    kernel = NUTS(program, max_tree_depth=3)
    mcmc = MCMC(kernel, num_samples=60, warmup_steps=40, disable_progbar=True)
    mcmc.run(linear)
    mean = mcmc.get_samples()["mean"]
    assert ((mean.mean(0) - vector[:2]).abs() < covariance.diagonal()[:2].sqrt()).all()
    guide = AutoNormal(program)
    svi = SVI(program, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(linear) for _ in range(60)]
    assert sum(losses[-20:]) < sum(losses[:20])
