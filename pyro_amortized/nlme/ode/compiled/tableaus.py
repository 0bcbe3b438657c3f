r"""Coefficients of the Runge-Kutta method and of the Rosenbrock method.

With stages :math:`k_i`, step h and right-hand side f, the explicit method (Tsitouras 5(4)) is

.. math:: k_i = f\Bigl(t + c_i h,\; x + h \sum_{j < i} a_{ij} k_j\Bigr), \qquad
    e = h \sum_i b_i k_i ,

where the last row of A gives the new state, and e estimates the error. The implicit method is
Rodas4, an L-stable method of order 4.

References:
    Tsitouras (2011), Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying
    assumption; Hairer and Wanner (1996), Solving Ordinary Differential Equations II, IV.10 (Rodas).
"""

# Tsitouras 5(4): A weights of the stages, C times of the stages, ERROR weights of the error
# estimate, DENSE coefficients of the interpolation: one row per stage, for the powers 2 to 4 of the
# time within the step, divided by the step.
A = (
    (0.161,),
    (-0.008480655492356989, 0.335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
    (
        5.86145544294642,
        -12.92096931784711,
        8.159367898576159,
        -0.071584973281401,
        -0.028269050394068383,
    ),
    (
        0.09646076681806523,
        0.01,
        0.4798896504144996,
        1.379008574103742,
        -3.290069515436081,
        2.324710524099774,
    ),
)
C = (0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0)
ERROR = (
    0.00178001105222577714,
    0.0008164344596567469,
    -0.007880878010261995,
    0.1447110071732629,
    -0.5823571654525552,
    0.45808210592918697,
    -1 / 66,
)
DENSE = (
    (-2.763706197274826, 2.9132554618219126, -1.0530884977290216),
    (0.13169999999999998, -0.2234, 0.1017),
    (3.9302962368947516, -5.941033872131505, 2.490627285651253),
    (-12.411077166933676, 30.33818863028232, -16.548102889244902),
    (37.50931341651104, -88.1789048947664, 47.37952196281928),
    (-27.896526289197286, 65.09189467479366, -34.87065786149661),
    (1.5, -4.0, 2.5),
)

# Rodas4 in the transformed variables of Hairer and Wanner, gamma = 1/4: RODAS_A weights of the
# stages, RODAS_C weights in the linear systems, RODAS_TIMES times of the stages, RODAS_D factors of
# the derivative in time, RODAS_H coefficients of the interpolation.
RODAS_A = (
    (1.544,),
    (0.9466785280815826, 0.2557011698983284),
    (3.314825187068521, 2.896124015972201, 0.9986419139977817),
    (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950),
)
RODAS_C = (
    (-5.6688,),
    (-2.430093356833875, -0.2063599157091915),
    (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
    (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
    (
        8.083246795921522,
        -7.981132988064893,
        -31.52159432874371,
        16.31930543123136,
        -6.058818238834054,
    ),
)
RODAS_TIMES = (0.0, 0.386, 0.21, 0.63, 1.0, 1.0)
RODAS_D = (0.25, -0.1043, 0.1035, -0.0362)
RODAS_H = (
    (
        10.12623508344586,
        -7.487995877610167,
        -34.80091861555747,
        -7.992771707568823,
        1.025137723295662,
    ),
    (
        -0.6762803392801253,
        6.087714651680015,
        16.43084320892478,
        24.76722511418386,
        -6.594389125716872,
    ),
)
