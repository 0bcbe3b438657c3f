r"""Simulation of models whose distributions read recorded values from the cohort.

The values are drawn in the order in which they are read: series by series in the order of the
model, and within a series from its first time to its last, each by a run of the model with the
values that were drawn before.
"""

from torch import Tensor

from ..cohort import Cohort
from .population_parameters import ParameterRoles, Population
from .program_run import Assign, run_program
from .sites import individual_rows


def values_in_order(
    structure: ParameterRoles, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    """Values of the observation sites, in their layout, each drawn given those before it."""
    current = cohort
    done: dict[str, Tensor] = {}
    for name, site in structure.observed.items():

        def drawn(current: Cohort, name: str = name) -> Tensor:
            later = frozenset(n for n in structure.observed if n not in done)
            assign = Assign(
                population, structure.individual, unconstrained, simulate=later, observations=done
            )
            value: Tensor = run_program(structure.model, current, assign).nodes[name]["value"]
            return value

        value = drawn(current)
        if name in structure.readers:
            rows = individual_rows(site, value).double().clone()
            for j in range(1, rows.shape[1]):
                known = current[site.series].values.clone()
                known[:, :j] = rows[:, :j].nan_to_num(1.0, 1.0, 1.0)
                current = current.with_values({site.series: known})
                again = individual_rows(site, drawn(current))
                rows[:, j] = again[:, j].double()
            value = rows.movedim(0, site.dim - site.event_dim)
        done[name] = value
        rows = individual_rows(site, value).double()
        current = current.with_values({site.series: rows.nan_to_num(1.0, 1.0, 1.0)})
    return done
