r"""Mathematics on plain tensors: Cholesky factors, Newton steps, maximisation, Laplace
approximations, finite differences, the Muon optimizer. This package knows no model and no data.
"""
