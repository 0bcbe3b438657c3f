"""Whether a guide is right: simulation-based calibration, its tests, and checks of the guide."""
