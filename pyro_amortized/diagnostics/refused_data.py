"""What a program may raise on data that nobody wrote: times before its start, a value that its own
table lacks. Checks that change the data leave such a change out.
"""

from ..errors import AmortizedError

REFUSALS = (AmortizedError, ArithmeticError, IndexError, KeyError, RuntimeError, ValueError)
