"""The rows of the summary of a fit."""

from ...numerics.laplace import delta_method
from .fit_result import PopulationFit
from .reported_parameters import reported_site
from .summary_table import FitSummary, IndividualRow, ParameterRow, estimator_note


def summarized(fit: PopulationFit) -> FitSummary:
    """The fit as a table."""
    return FitSummary(
        title=(
            f"{fit.criterion}, {len(fit.cohort)} individuals, "
            f"{fit.structure.num_observations(fit.cohort)} observations"
            f"{estimator_note(fit.estimator)}"
        ),
        parameters=_parameter_rows(fit),
        individuals=_individual_rows(fit),
        shrinkage=fit.shrinkage(),
        minus2ll=fit.minus2ll,
        minus2ll_mc_error=fit.marginal.minus2ll_mc_error,
        aic=fit.aic,
        bic_individuals=fit.bic.individuals,
        bic_observations=fit.bic.observations,
        num_draws=fit.marginal.numbers,
        converged=fit.converged,
        message=fit.message,
    )


def _parameter_rows(fit: PopulationFit) -> list[ParameterRow]:
    rows = []
    for name in fit.structure.population:
        reported = reported_site(fit.structure, name)
        value, error = delta_method(reported.values, fit.vector, fit.covariance)
        lower, upper = reported.interval(fit.vector, fit.covariance)
        columns = (x.tolist() for x in (value, error, lower, upper))
        rows += [ParameterRow(*row) for row in zip(reported.names, *columns, strict=True)]
    return rows


def _individual_rows(fit: PopulationFit) -> list[IndividualRow]:
    marginal = fit.marginal
    tensors = (
        -2 * marginal.log_likelihood,
        2 * marginal.mc_error,
        marginal.ess,
        marginal.pareto_k,
    )
    columns = [x.tolist() for x in tensors]
    rows = zip(fit.cohort.ids, *columns, marginal.method, strict=True)
    return [IndividualRow(*row) for row in rows]
