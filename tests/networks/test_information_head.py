import torch

from pyro_amortized.networks.information_head import InformationHead


def test_a_gaussian_likelihood_gives_the_exact_posterior():
    """Whatever G and a the network gives, under any prior."""
    torch.manual_seed(0)
    head = InformationHead(4, 3).double()
    with torch.no_grad():
        head.layer.weight.normal_()
        head.layer.bias.normal_()
        head.unit.copy_(torch.tensor([0.5, 1.0, 2.0]))
    hidden = torch.randn(1, 4, dtype=torch.float64)
    location, diagonal, below = head.layer(hidden)[0].split([3, 3, 3])
    factor = torch.diag((8 * torch.tanh(diagonal / 8)).exp())
    factor[1, 0], factor[2, 0], factor[2, 1] = below
    factor = factor / head.unit.unsqueeze(-1)
    for scale in (0.1, 1.0, 30.0):
        root = scale * (torch.eye(3) + 0.4 * torch.ones(3, 3).tril(-1)).double()
        found = head(hidden, root.unsqueeze(0))
        # In u - m the prior is N(0, S S') and the likelihood N(G' u; a, I).
        precision = torch.linalg.inv(root @ root.T) + factor @ factor.T
        mean = torch.linalg.solve(precision, factor @ location)
        assert torch.allclose(root @ found.mean[0], mean)
        covariance = root @ torch.linalg.inv(found.root[0] @ found.root[0].T) @ root.T
        assert torch.allclose(covariance, torch.linalg.inv(precision))


def test_standardized_values_return():
    head = InformationHead(2, 3).double()
    found = head(torch.randn(5, 2).double(), torch.eye(3).double().expand(5, 3, 3))
    eta = torch.randn(7, 5, 3, dtype=torch.float64)
    assert torch.allclose(found.scaled(found.standardized(eta)), eta)
    jacobian = torch.autograd.functional.jacobian(found.standardized, eta[:1, :])
    assert torch.allclose(jacobian[0, 2, :, 0, 2].detach().logdet(), found.log_det[2].detach())


def test_weights_that_are_not_finite_give_no_exception():
    head = InformationHead(2, 2)
    with torch.no_grad():
        head.layer.bias.fill_(torch.nan)
    assert head(torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2)).mean.isnan().all()
