"""Targets of known mass, and proposals that miss it."""

import math

import torch

from pyro_amortized.sampling.adaptive_importance import sample_targets
from pyro_amortized.sampling.sampler import Sampler


class NormalProposal:
    has_density = True

    def __init__(self, mean, sd):
        self.distribution = torch.distributions.Normal(
            torch.tensor(mean).double(), torch.tensor(sd).double()
        )

    def draw(self, num_draws, rows, generator):
        noise = torch.randn(num_draws, len(rows), 2, generator=generator, dtype=torch.float64)
        draws = self.distribution.mean + self.distribution.stddev * noise
        return draws, self.log_prob(draws, rows)

    def log_prob(self, draws, rows):
        return self.distribution.log_prob(draws).sum(-1)


class Foreign(NormalProposal):
    has_density = False


def run(log_target, proposal, num_draws=2000, num=4, seed=0):
    wide = NormalProposal(0.0, 4.0)

    def population(num_draws, rows, generator):
        return wide.draw(num_draws, rows, generator)[0]

    sampler = Sampler(lambda x, rows: log_target(x), population, wide.log_prob, proposal)
    drawn = sample_targets(
        sampler, num_draws, num, torch.Generator().manual_seed(seed), refine=True
    )
    return drawn.weighted, tuple(drawn.refinement.refined.tolist())


def two_modes(x):
    """Two separate normals of mass 0.3 and 0.7; total mass 5."""
    part = torch.distributions.Normal(torch.zeros(2).double(), 0.3)
    left = part.log_prob(x + 2).sum(-1) + math.log(0.3)
    right = part.log_prob(x - 2).sum(-1) + math.log(0.7)
    return torch.logaddexp(left, right) + math.log(5.0)


def narrow(x):
    return torch.distributions.Normal(1.0, 0.02).log_prob(x).sum(-1)
