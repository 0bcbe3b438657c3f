"""The drawing of a model has all of its sites and dependencies."""

from pyro_amortized.diagnostics import model_drawing


def test_a_model_is_drawn(fit):
    drawing = model_drawing(fit.structure, 40)
    for name in ("mean", "omega", "sigma", "phi", "y", "individual, 40"):
        assert f">{name}<" in drawing
    assert drawing.count("<line") == 2 + 1 + 1  # two on phi, sigma on y, phi on y
