"""Errors arrive complete wherever they are raised, and each has three parts."""

import ast
import copy
import importlib
import pickle
import pkgutil
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedError
from pyro_amortized.runtime.workers import Workers

PARTS = ("Row 3 is -1.", "a time.\nOne of `TIME`.", "correct it:\ntimes = [0.0, 1.0].")
SOURCE = Path(pa.__file__).parent


def every_class():
    """The library's errors, those of modules that are imported late too."""
    for module in pkgutil.walk_packages([str(SOURCE)], "pyro_amortized."):
        importlib.import_module(module.name)
    classes, todo = [], [AmortizedError]
    while todo:
        classes.append(todo.pop())
        todo += classes[-1].__subclasses__()
    return [kind for kind in classes if kind.__module__.startswith("pyro_amortized")]


CLASSES = every_class()


def parts(error):
    return error.found, error.expected, error.fix


def test_all_classes_are_looked_at():
    assert {"AmortizedError", "ModelError", "CohortError"} <= {kind.__name__ for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_in_a_traced_program_arrives_whole(kind):
    def program():
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        raise kind(*PARTS)

    once = pyro.poutine.trace(program)
    for traced in (once, pyro.poutine.trace(once.__call__)):
        with pytest.raises(kind) as caught:
            traced.get_trace()
        assert type(caught.value) is kind
        assert parts(caught.value) == PARTS
        assert str(caught.value) == str(kind(*PARTS))
        assert "x" in "\n".join(caught.value.__notes__)  # Pyro's shapes are not lost


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_is_copied_and_pickled_whole(kind):
    told = kind(*PARTS)
    copied = kind(f"Caught in worker 0.\n{told}")  # as torch's data loader builds it
    assert parts(copied) == (f"Caught in worker 0.\n{PARTS[0]}", *PARTS[1:])
    for error in (told, kind(str(told)), kind(f"{told}\n  Trace Shapes:    \n x 2 | 3")):
        for one in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
            assert type(one) is kind
            assert parts(one) == PARTS
            assert str(one) == str(told)
            assert getattr(one, "__notes__", []) == getattr(error, "__notes__", [])


def test_a_text_in_one_part_is_kept_as_it_is():
    """Other software builds exceptions from one text; building one must never fail."""
    assert str(AmortizedError("Something else")) == "Something else."
    assert parts(AmortizedError("Something else")) == ("Something else.", "", "")


def test_a_message_about_another_error_keeps_its_own_parts():
    inner = AmortizedError(*PARTS)
    outer = AmortizedError(f"The program fails: {inner}", "a program that runs.", "run it alone.")
    assert parts(AmortizedError(str(outer))) == parts(outer)


def _fails_in_a_worker(kind):
    raise kind(*PARTS)


def test_an_error_of_a_worker_process_arrives_whole():
    with pytest.raises(pa.errors.FitError) as caught:
        list(Workers(1).results(_fails_in_a_worker, [(pa.errors.FitError,)]))
    assert parts(caught.value) == PARTS


def refusing(cohort):
    """A public function of the library raises inside a user's model."""
    with pyro.plate("individual", len(cohort)):
        pyro.sample("phi", dist.Normal(0.0, 1.0))
        cohort["no such series"]


@pytest.mark.parametrize(
    "run",
    [
        lambda cohort: pyro.poutine.trace(refusing).get_trace(cohort),
        lambda cohort: MCMC(NUTS(refusing), 1, 1, disable_progbar=True).run(cohort),
        lambda cohort: SVI(refusing, lambda cohort: None, pyro.optim.Adam({}), Trace_ELBO()).step(
            cohort
        ),
        lambda cohort: SVI(
            refusing, lambda cohort: None, pyro.optim.Adam({}), pa.MarginalELBO(2)
        ).step(cohort),
        lambda cohort: Predictive(refusing, num_samples=1)(cohort),
        lambda cohort: pa.read_structure(refusing, cohort),
    ],
    ids=["trace", "nuts", "svi", "marginal-elbo", "predictive", "read"],
)
def test_a_refusal_inside_a_model_is_told_whole_by_every_inference(run, linear):
    with pytest.raises(AmortizedError) as caught:
        run(linear)
    with pytest.raises(AmortizedError) as direct:
        linear["no such series"]
    assert type(caught.value) is type(direct.value)
    assert parts(caught.value) == parts(direct.value)


def calls(*names):
    """Calls of these functions in the source, with the place of each."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in names:
                    yield f"{path.relative_to(SOURCE)}:{node.lineno}", node


def test_every_error_of_the_source_has_three_parts():
    raised = list(calls(*(kind.__name__ for kind in CLASSES)))
    assert len(raised) > 100
    assert [place for place, node in raised if len(node.args) != 3] == []


def test_no_warning_of_the_source_counts_frames():
    places = [place for place, _ in calls("warn", "warn_explicit")]
    assert len(places) == 1
    assert places[0].startswith("runtime/user_warnings.py")
