"""Right-hand sides that read attributes of modules, classes and instances."""

import dataclasses
import math
import types
from typing import NamedTuple

config = types.ModuleType("config")
config.k = 1.0
config.inner = types.SimpleNamespace(deep=types.SimpleNamespace(k=1.0))


class Case(NamedTuple):
    """A right-hand side, how to double its rate, and whether it is remembered."""

    f: object
    change: object
    known: bool = True


class Rate:
    k = 1.0

    def __init__(self, k=1.0):
        self.own = k

    @property
    def squared(self):
        return self.own**2

    def rate(self):
        return self.own * self.factor()

    @staticmethod
    def factor():
        return Rate.k

    @classmethod
    def of_class(cls):
        return cls.k

    def slope(self, t, x, p):
        return -self.rate() * x

    def unrelated(self):
        return open("no such file")  # never called; not to be read in full

    def through_lambda(self, t, x, p):
        return (lambda: -self.own * x)()


class DerivedRate(Rate):
    def slope(self, t, x, p):
        return super().slope(t, x, p)


class Slotted:
    __slots__ = ("k",)


class Callable:
    def __init__(self, k):
        self.k = k

    def __call__(self, t, x, p):
        return -self.k * x


class Lazy:
    """An attribute that is computed by ``__getattr__``."""

    def __init__(self):
        self.store = {"k": 1.0}

    def __getattr__(self, name):
        if name == "store":
            raise AttributeError(name)
        return self.store[name]


@dataclasses.dataclass
class Record:
    k: float = 1.0


def module_attribute():
    return Case(lambda t, x, p: -config.k * x, lambda: setattr(config, "k", 2.0))


def chain():
    deep = config.inner.deep
    return Case(lambda t, x, p: -config.inner.deep.k * x, lambda: setattr(deep, "k", 2.0))


def chain_whose_middle_is_replaced():
    other = types.SimpleNamespace(k=2.0)
    return Case(
        lambda t, x, p: -config.inner.deep.k * x, lambda: setattr(config.inner, "deep", other)
    )


def module_by_getattr():
    return Case(lambda t, x, p: -getattr(config, "k") * x, lambda: setattr(config, "k", 2.0), False)  # noqa: B009


def module_under_a_local_name():
    def f(t, x, p):
        c = config
        return -c.k * x

    return Case(f, lambda: setattr(config, "k", 2.0), False)


def module_in_a_closure():
    module = config
    return Case(lambda t, x, p: -module.k * x, lambda: setattr(config, "k", 2.0))


def class_attribute():
    return Case(lambda t, x, p: -Rate.k * x, lambda: setattr(Rate, "k", 2.0))


def class_under_a_local_name():
    def f(t, x, p):
        c = Record
        return -c.k * x

    return Case(f, lambda: setattr(Record, "k", 2.0))


def instance_attribute():
    r = Rate()
    return Case(lambda t, x, p: -r.own * x, lambda: setattr(r, "own", 2.0))


def instance_under_a_local_name():
    r = Record()

    def f(t, x, p):
        c = r
        return -c.k * x

    return Case(f, lambda: setattr(r, "k", 2.0))


def instance_attribute_of_its_class():
    r = Rate()
    return Case(lambda t, x, p: -r.k * x, lambda: setattr(Rate, "k", 2.0))


def property_of_an_instance():
    r = Rate()
    return Case(lambda t, x, p: -r.squared * x, lambda: setattr(r, "own", math.sqrt(2.0)))


def computed_attribute():
    r = Lazy()
    return Case(lambda t, x, p: -r.k * x, lambda: r.store.update(k=2.0))


def slot():
    r = Slotted()
    r.k = 1.0

    def f(t, x, p):
        c = r
        return -c.k * x

    return Case(f, lambda: setattr(r, "k", 2.0))


def method_called():
    r = Rate()
    return Case(lambda t, x, p: -r.rate() * x, lambda: setattr(r, "own", 2.0))


def method_called_whose_class_changes():
    r = Rate()
    return Case(lambda t, x, p: -r.rate() * x, lambda: setattr(Rate, "k", 2.0))


def method_replaced():
    r = Rate()
    return Case(lambda t, x, p: -r.rate() * x, lambda: setattr(r, "rate", lambda: 2.0))


def class_method():
    return Case(lambda t, x, p: -Rate.of_class() * x, lambda: setattr(Rate, "k", 2.0))


def bound_method():
    r = Rate()
    return Case(r.slope, lambda: setattr(r, "own", 2.0))


def bound_method_whose_class_changes():
    return Case(Rate().slope, lambda: setattr(Rate, "k", 2.0))


def bound_method_with_self_in_a_lambda():
    r = Rate()
    return Case(r.through_lambda, lambda: setattr(r, "own", 2.0), False)  # `unrelated` opens a file


def inherited_method():
    r = DerivedRate()
    return Case(r.slope, lambda: setattr(r, "own", 2.0), False)  # `unrelated` opens a file


def inherited_method_of_a_simple_class():
    class Base:
        def slope(self, t, x, p):
            return -self.k * x

    class Derived(Base):
        def slope(self, t, x, p):
            return super().slope(t, x, p)

    r = Derived()
    r.k = 1.0
    return Case(r.slope, lambda: setattr(r, "k", 2.0))


def inherited_method_replaced():
    class Base:
        def slope(self, t, x, p):
            return -x

    class Derived(Base):
        def slope(self, t, x, p):
            return super().slope(t, x, p)

    return Case(Derived().slope, lambda: setattr(Base, "slope", lambda self, t, x, p: -2 * x))


def local_variables():
    r = Rate()

    class Own:
        k = 1.0

        def slope(self, t, x, p):
            return -locals()["self"].k * x

    own = Own()
    return Case(own.slope, lambda: setattr(own, "k", r.k + 1))


def closure_by_local_variables():
    k = 1.0

    def f(t, x, p):
        if False:
            return k
        return -locals()["k"] * x

    def change():
        nonlocal k
        k = 2.0

    return Case(f, change)


def callable_instance():
    r = Callable(1.0)
    return Case(r, lambda: setattr(r, "k", 2.0))


CASES = (
    module_attribute,
    chain,
    chain_whose_middle_is_replaced,
    module_by_getattr,
    module_under_a_local_name,
    module_in_a_closure,
    class_attribute,
    class_under_a_local_name,
    instance_attribute,
    instance_under_a_local_name,
    instance_attribute_of_its_class,
    property_of_an_instance,
    computed_attribute,
    slot,
    method_called,
    method_called_whose_class_changes,
    method_replaced,
    class_method,
    bound_method,
    bound_method_whose_class_changes,
    bound_method_with_self_in_a_lambda,
    inherited_method,
    inherited_method_of_a_simple_class,
    inherited_method_replaced,
    local_variables,
    closure_by_local_variables,
    callable_instance,
)


def restore():
    """Set the state of this module, which every case changes, to its first values."""
    Rate.k = Record.k = config.k = 1.0
    config.inner.deep = types.SimpleNamespace(k=1.0)
