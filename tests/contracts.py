"""Properties that every summary network and every flow must have."""

import torch


def check_summary(network, num_features, num_static, ordered=False):
    """What is masked cannot matter: not its value, not the padding, not the rest of the batch."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(6, 7, num_features, generator=generator)
    static = torch.randn(6, num_static, generator=generator)
    mask = torch.rand(6, 7, generator=generator) > 0.4
    mask[0] = False  # nothing recorded
    base = network(tokens, mask, static)
    assert base.shape == (6, network.num_summary)
    assert base.isfinite().all()

    def same(other, rows=slice(None)):
        assert torch.allclose(other, base[rows], atol=1e-5)

    for fill in (0.0, 1e6, float("nan"), float("inf")):
        same(network(torch.where(mask.unsqueeze(-1), tokens, fill), mask, static))
    padded = torch.cat([tokens, torch.full((6, 5, num_features), 9.0)], 1)
    same(network(padded, torch.cat([mask, torch.zeros(6, 5, dtype=torch.bool)], 1), static))
    same(network(tokens[2:4], mask[2:4], static[2:4]), slice(2, 4))
    if not ordered:
        order = torch.randperm(7, generator=generator)
        same(network(tokens[:, order], mask[:, order], static))
    moved = tokens.clone()
    moved[mask] += 0.5
    assert not torch.allclose(network(moved, mask, static)[1:], base[1:], atol=1e-3)


def check_flow(flow, context):
    """Inverse, Jacobian by autograd, density that integrates to one, gradients for every weight."""
    posterior = flow(context)
    draws = posterior.rsample((50,))
    assert draws.shape == (50, *context.shape[:-1], flow.num_latent)
    state = flow.prepare(context)
    standard = posterior.standard.standardized(draws)
    z, _ = flow.to_base(standard, state)
    again, log_abs_det = flow.from_base(z, state)
    assert torch.allclose(again, standard, atol=1e-5)
    assert torch.allclose(log_abs_det, flow.to_base(standard, state)[1], atol=1e-5)
    drawn, log_prob = posterior.sample_with_log_prob(torch.Size([50]))
    assert torch.allclose(log_prob, posterior.log_prob(drawn), atol=1e-5)
    _check_jacobian(flow, context)
    _check_total_mass(flow, context)
    posterior.log_prob(draws.detach()).mean().backward()
    for name, weight in flow.named_parameters():
        idle = flow.num_latent == 1 and name.endswith("given.weight")  # nothing comes before
        assert weight.grad is not None
        assert idle or weight.grad.abs().sum() > 0, name


def _check_jacobian(flow, context):
    posterior = flow(context[:1])

    def to_base(x):
        return flow.to_base(posterior.standard.standardized(x), flow.prepare(context[:1]))[0]

    x = posterior.sample()
    jacobian = torch.autograd.functional.jacobian(to_base, x)[0, :, 0, :]
    base = torch.distributions.Normal(0.0, 1.0).log_prob(to_base(x)).sum()
    expected = base + torch.linalg.slogdet(jacobian).logabsdet
    assert torch.allclose(posterior.log_prob(x)[0], expected, atol=1e-5)


def _check_total_mass(flow, context):
    """E_r[q / r] = 1 under a wide normal r, within Monte Carlo error."""
    posterior = flow(context[:1])
    draws = posterior.sample((4000,))[:, 0]
    wide = torch.distributions.MultivariateNormal(
        draws.mean(0), 1.6 * torch.cov(draws.T).reshape(flow.num_latent, flow.num_latent)
    )
    points = wide.sample((60_000,))
    ratio = (posterior.log_prob(points.unsqueeze(1))[:, 0] - wide.log_prob(points)).exp().detach()
    error = ratio.std() / len(ratio) ** 0.5
    assert abs(ratio.mean() - 1) < 4 * error + 1e-3
    assert error < 0.05
