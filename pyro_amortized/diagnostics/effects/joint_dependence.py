r"""Whether the means of several random effects together depend on a variable.

What moves all parameters a little, as a laboratory that reads too much, may be significant in none
of them. With the posterior means :math:`\bar e_{ij}` of the standardised effects and their
reliabilities :math:`r_{ij}`, :math:`\bar e_{ij} / \sqrt{r_{ij}}` is regressed on
:math:`\sqrt{r_{ij}}\,(1, x_i)` for every effect j. The coefficients of :math:`x_i` of all effects
are tested together with the covariance of the residuals,

.. math:: T = b^\top C^{-1} b / \nu, \quad C_{jk} = \hat\Sigma_{jk}\, (D_j^\top D_j)^{-1}
          D_j^\top D_k (D_k^\top D_k)^{-1},

with the designs D of the effects and :math:`\nu` degrees of freedom. For equal reliabilities this
is the trace of Hotelling and Lawley, whose distribution is approximated by that of F. The residuals
of the regression do not contain what the variable explains, so an effect of the variable does not
hide in the variances that were estimated without it.

References:
    McKeon (1974), F approximations to the distribution of Hotelling's T0^2, Biometrika 61; Zellner
    (1962), An efficient method of estimating seemingly unrelated regressions, JASA 57.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.stats

from ..variables.compared_variables import Variable
from ..variables.variable_tests import columns_of, contrast, dependence_p_value, known_values
from .effect_dependence import DEPENDENCE, EffectTest
from .random_effects import RandomEffects


def joint_dependence(
    effects: RandomEffects, tested: Sequence[int], variable: Variable
) -> Iterator[EffectTest]:
    r"""The test of the means of several effects against one variable.

    Args:
        effects: Standardised random effects.
        tested: Indices of the effects; nothing is tested of fewer than two.
        variable: The variable.
    """
    reliability = effects.reliability[:, list(tested)].numpy()
    used = known_values(variable) & (reliability > DEPENDENCE.min_reliability).all(1)
    if len(tested) < 2 or not used.any():
        return
    root = np.sqrt(reliability[used])
    y = effects.means[:, list(tested)].numpy()[used] / root
    if _joint_p_value(y, root, columns_of(variable, used)) is None:
        return

    def p_value_of(columns: np.ndarray) -> float:
        found = _joint_p_value(y, root, columns)
        return 1.0 if found is None else found

    p_value = dependence_p_value(variable, used, p_value_of)
    found = [contrast(y[:, k], root[:, k], variable, used) for k in range(len(tested))]
    sizes = [x.slope * float(effects.sd[:, j].mean()) for x, j in zip(found, tested, strict=True)]
    strongest = int(np.argmax([x.gain for x in found]))
    names = [effects.names[j] for j in tested]
    parts = ", ".join(
        f"{n} {s:+.2f} (a factor of {math.exp(min(s, 50.0)):.2f})"
        for n, s in zip(names, sizes, strict=True)
    )
    words = (
        f"{', '.join(names[:-1])} and {names[-1]} together depend on {variable.name} "
        f"(p = {p_value:.1g}): {parts}, {found[strongest].where} (factors, if they are logarithms)"
    )
    name = " and ".join(names)
    yield EffectTest("joint", name, variable.name, p_value, sizes[strongest], words)


def _joint_p_value(y: np.ndarray, root: np.ndarray, columns: np.ndarray) -> float | None:
    """P-value of the slopes of all effects; None where individuals are too few.

    Args:
        y: Posterior means with variance one, shape ``(individual, effect)``.
        root: Roots of their reliabilities, same shape.
        columns: Columns of the variable, shape ``(individual, column)``.
    """
    num, d = y.shape
    q = columns.shape[1]
    freedom = num - 1 - q
    half = (freedom - d - 1) / 2
    design = np.column_stack([np.ones(num), columns])
    if half <= 1 or np.linalg.matrix_rank(design) < 1 + q:
        return None
    designs = root.T[:, :, None] * design  # (effect, individual, column)
    inverses = np.linalg.inv(designs.transpose(0, 2, 1) @ designs)
    maps = inverses @ designs.transpose(0, 2, 1)  # from values to coefficients
    coefficients = np.einsum("jcn,nj->jc", maps, y)
    residuals = y - np.einsum("jnc,jc->nj", designs, coefficients)
    sigma = residuals.T @ residuals / freedom
    covariance = np.einsum("jk,jcn,kdn->jckd", sigma, maps, maps)[:, 1:, :, 1:]
    slopes = coefficients[:, 1:].ravel()
    wald = slopes @ np.linalg.lstsq(covariance.reshape(d * q, d * q), slopes, rcond=None)[0]
    # The approximation of McKeon, in the words of his paper: b, then the degrees of freedom.
    b = (d + 2 * half) * (q + 2 * half) / (2 * (2 * half + 1) * (half - 1))
    second = 4 + (d * q + 2) / (b - 1)
    scale = (second - 2) / (2 * half)
    statistic = wald / freedom / scale * second / (d * q)
    return float(scipy.stats.f.sf(statistic, d * q, second))
