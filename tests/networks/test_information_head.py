import torch

from pyro_amortized.networks.information_head import InformationHead
from pyro_amortized.numerics.gaussians import Gaussians


def priors(num, d):
    return Gaussians(torch.zeros(num, d), torch.eye(d).expand(num, d, d))


def test_a_gaussian_likelihood_gives_the_exact_posterior():
    """Whatever G and a the network gives, under any prior."""
    torch.manual_seed(0)
    head = InformationHead(4, 3).double()
    with torch.no_grad():
        head.layer.weight.normal_()
        head.layer.bias.normal_()
        head.unit.copy_(torch.tensor([0.5, 1.0, 2.0]))
        head.center.copy_(torch.tensor([1.0, 0.0, -1.0]))
    hidden = torch.randn(1, 4, dtype=torch.float64)
    location, diagonal, below = head.layer(hidden)[0].split([3, 3, 3])
    factor = torch.diag((8 * torch.tanh(diagonal / 8)).exp())
    factor[1, 0], factor[2, 0], factor[2, 1] = below
    factor = factor / head.unit.unsqueeze(-1)
    center = head.center + head.unit * location
    for scale in (0.1, 1.0, 30.0):
        root = scale * (torch.eye(3) + 0.4 * torch.ones(3, 3).tril(-1)).double()
        prior = Gaussians(torch.tensor([[0.3, -2.0, 5.0]]).double(), root.unsqueeze(0))
        found = head(hidden, prior)
        # The prior is N(m, S S') and the likelihood N(G' u; G' a, I).
        inverse = torch.linalg.inv(root @ root.T)
        precision = inverse + factor @ factor.T
        score = inverse @ prior.loc[0] + factor @ factor.T @ center
        mean = torch.linalg.solve(precision, score)
        assert torch.allclose(prior.scaled(found.mean)[0], mean)
        covariance = root @ torch.linalg.inv(found.root[0] @ found.root[0].T) @ root.T
        assert torch.allclose(covariance, torch.linalg.inv(precision))


def test_standardized_values_return():
    head = InformationHead(2, 3).double()
    found = head(torch.randn(5, 2).double(), priors(5, 3).map(torch.Tensor.double))
    eta = torch.randn(7, 5, 3, dtype=torch.float64)
    assert torch.allclose(found.scaled(found.standardized(eta)), eta)
    jacobian = torch.autograd.functional.jacobian(found.standardized, eta[:1, :])
    assert torch.allclose(jacobian[0, 2, :, 0, 2].detach().logdet(), found.log_det[2].detach())


def test_weights_that_are_not_finite_give_no_exception():
    head = InformationHead(2, 2)
    with torch.no_grad():
        head.layer.bias.fill_(torch.nan)
    assert head(torch.zeros(3, 2), priors(3, 2)).mean.isnan().all()
