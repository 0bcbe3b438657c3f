r"""Trackers record the losses."""

from tests.small import train


class Listener:
    def __init__(self):
        self.params, self.metrics = {}, []

    def log_params(self, params):
        self.params = dict(params)

    def log_metric(self, key, value, step):
        self.metrics.append((key, value, step))


def test_a_tracker_hears_the_losses(linear):
    listener = Listener()
    guide = train(linear, tracker=listener)
    heard = [value for key, value, _ in listener.metrics if key == "validation_loss"]
    assert heard == guide.history.validation_loss
    assert listener.params["batch_size"] == 128
    assert {key for key, _, _ in listener.metrics} >= {"training_loss", "learning_rate"}
