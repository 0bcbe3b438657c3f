import subprocess
import sys

import pytest
import torch

from pyro_amortized.flows import ConditionalFlow

from .contracts import check_flow


@pytest.mark.parametrize(("num_latent", "num_couplings"), [(1, 2), (2, 2), (3, 4), (6, 4)])
def test_flow_keeps_the_contract(num_latent, num_couplings):
    torch.manual_seed(num_latent)
    flow = ConditionalFlow(num_latent, 4, num_couplings, width=16)
    with torch.no_grad():  # away from the identity that splines start at
        for parameter in flow.parameters():
            parameter.add_((0.2 if num_latent < 4 else 0.1) * torch.randn_like(parameter))
        flow.loc.copy_(torch.randn(num_latent))
        flow.scale_tril.copy_(
            torch.eye(num_latent) + 0.3 * torch.ones(num_latent, num_latent).tril()
        )
    check_flow(flow.double(), torch.randn(3, 4, dtype=torch.float64))


def test_flow_distribution_batches():
    flow = ConditionalFlow(2, 4)
    law = flow(torch.randn(3, 4))
    assert law.batch_shape == (3,)
    assert law.event_shape == (2,)
    assert law.expand((5, 3)).sample().shape == (5, 3, 2)
    assert law.take(torch.tensor([2])).sample((4,)).shape == (4, 1, 2)
    x = law.sample()
    assert torch.allclose(law.expand((5, 3)).log_prob(x), law.log_prob(x).expand(5, 3), atol=1e-5)


def test_importing_leaves_torch_validation_on():
    """zuko switches it off; in a fresh process the library must not."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import torch, pyro_amortized\n"
        "from torch.distributions import Distribution\n"
        "assert Distribution._validate_args is True\n"
        "assert torch.get_default_dtype() == torch.float32\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
