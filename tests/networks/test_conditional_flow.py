import subprocess
import sys

import pytest
import torch

from pyro_amortized.networks.conditional_flow import ConditionalFlow, FlowSizes
from tests.contracts import check_flow


def disturb(flow, size):
    """Away from the identity that splines start at."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(size * torch.randn_like(parameter))
        flow.loc.copy_(torch.randn(flow.num_latent))
        ones = torch.ones(flow.num_latent, flow.num_latent)
        flow.scale_tril.copy_(torch.eye(flow.num_latent) + 0.3 * ones.tril())
    return flow.double()


@pytest.mark.parametrize("has_priors", [False, True])
@pytest.mark.parametrize(("num_latent", "num_layers"), [(1, 1), (2, 1), (3, 2), (6, 2), (4, 0)])
def test_flow_keeps_the_contract(num_latent, num_layers, has_priors):
    torch.manual_seed(num_latent)
    sizes = FlowSizes(num_layers=num_layers, width=16, layer_width=8)
    flow = ConditionalFlow(num_latent, 4, sizes, has_priors)
    check_flow(
        disturb(flow, 0.2 if num_latent < 4 else 0.1), torch.randn(3, 4, dtype=torch.float64)
    )


def test_a_dimension_sees_only_the_ones_before_it():
    torch.manual_seed(0)
    flow = disturb(ConditionalFlow(3, 4, FlowSizes(width=16, layer_width=8)), 0.3)
    (layer,) = flow.layers
    context = layer.context(flow.trunk(torch.randn(1, 4, dtype=torch.float64)))
    x = torch.randn(1, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x, context)[0], x)[0, :, 0]
    assert torch.equal(jacobian.triu(1), torch.zeros(3, 3).double())
    assert jacobian.tril(-1).abs().sum() > 0


def test_flow_distribution_batches():
    flow = ConditionalFlow(2, 4)
    posterior = flow(torch.randn(3, 4))
    assert posterior.batch_shape == (3,)
    assert posterior.event_shape == (2,)
    assert posterior.expand((5, 3)).sample().shape == (5, 3, 2)
    assert posterior.take(torch.tensor([2])).sample((4,)).shape == (4, 1, 2)
    x = posterior.sample()
    assert torch.allclose(
        posterior.expand((5, 3)).log_prob(x), posterior.log_prob(x).expand(5, 3), atol=1e-5
    )


@pytest.mark.slow
def test_importing_leaves_torch_validation_on():
    """Whatever the libraries below do on import, in a fresh process."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import torch, pyro_amortized\n"
        "from torch.distributions import Distribution\n"
        "assert Distribution._validate_args is True\n"
        "assert torch.get_default_dtype() == torch.float32\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
