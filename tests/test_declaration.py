"""Declared parameters: constructor, constraints and documentation come from one line each."""

import inspect
import pickle
from numbers import Real

import pytest
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, InvalidParameterError

import skae
from skae import AutoEncoder, BaseAutoEncoder
from skae._losses import squared_error


class Weighted(BaseAutoEncoder):
    """Autoencoder with a weight.

    Parameters
    ----------
    weight : float, default=2.0
        Weight of the squared error.

    init : {"pca", "random"}, default="random"
        Another default, with a text of its own.

    See Also
    --------
    AutoEncoder : Without a weight.
    """

    weight: float = skae.parameter(Interval(Real, 0, None, closed="left"), default=2.0)
    width: int = skae.parameter(default=3, defines_network=True)
    init: str = skae.parameter(default="random")

    def _loss(self, module, x):
        return self.weight * squared_error(x, module.decode(module.encode(x)))


class Fixed(Weighted):
    """The same without a choice of the initialization."""

    init = "random"


class Plain(Weighted):
    def _loss(self, module, x):
        return super()._loss(module, x) + 1


class ByHand(BaseAutoEncoder):
    """A member with a constructor as scikit-learn's own have it."""

    _parameter_constraints = {**BaseAutoEncoder._parameter_constraints, "power": [Interval(Real, 1, 2, closed="both")]}

    def __init__(self, n_components=2, *, power=2.0, max_iter=None, random_state=None):
        super().__init__(n_components, max_iter=max_iter, random_state=random_state)
        self.power = power

    def _loss(self, module, x):
        return (x - module.decode(module.encode(x))).abs().pow(self.power).sum(-1)


def test_signature_is_explicit_with_the_own_parameters_first():
    signature = inspect.signature(Weighted)
    assert list(signature.parameters)[:5] == ["n_components", "weight", "width", "init", "hidden_layer_sizes"]
    assert str(signature).startswith("(n_components=2, *, weight=2.0, width=3, init='random', hidden_layer_sizes=")
    assert signature.parameters["init"].default == "random"
    assert inspect.signature(AutoEncoder).parameters["init"].default == "pca"


def test_constructor_stores_and_refuses_as_a_written_one_does():
    model = Weighted(5, weight=1)
    assert (model.n_components, model.weight, model.width, model.alpha) == (5, 1, 3, 0.3)
    assert vars(model).keys() == Weighted._parameters.keys()
    with pytest.raises(TypeError, match=r"Weighted.__init__\(\) got an unexpected keyword argument 'wieght'"):
        Weighted(wieght=1)
    with pytest.raises(TypeError, match=r"Weighted.__init__\(\) takes from 1 to 2 positional arguments"):
        Weighted(5, 1)


def test_parameters_clone_and_are_validated(table):
    model = clone(Weighted(weight=0.5, max_iter=1))
    assert model.get_params()["weight"] == 0.5
    assert repr(model) == "Weighted(max_iter=1, weight=0.5)"
    assert model.fit(table).score(table) <= 1
    with pytest.raises(InvalidParameterError, match="The 'weight' parameter of Weighted must be"):
        Weighted(weight=-1).fit(table)
    Weighted(width="anything", max_iter=1).fit(table)  # it has no constraint


def test_documentation_has_own_texts_and_those_of_the_base():
    text = inspect.getdoc(Weighted)
    assert "Another default, with a text of its own." in text
    assert "Initialization. With" not in text
    assert text.count("\ninit : ") == text.count("\nalpha : ") == text.count("\nloss_curve_ : ") == 1
    order = ["n_components :", "weight :", "\ninit :", "\nalpha :", "Attributes\n---", "module_ :", "See Also\n---"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_a_value_in_place_of_a_parameter_fixes_it(table):
    assert "init" not in inspect.signature(Fixed).parameters
    assert "init" not in Fixed().get_params()
    assert "\ninit : " not in inspect.getdoc(Fixed)
    assert "weight : float" in inspect.getdoc(Fixed)
    model = Fixed(max_iter=2, random_state=0).fit(table)
    torch.testing.assert_close(
        model.transform(table), Weighted(max_iter=2, random_state=0).fit(table).transform(table), atol=0, rtol=0
    )
    with pytest.raises(TypeError, match="unexpected keyword argument 'init'"):
        Fixed(init="pca")


class OtherDefaults(Weighted):
    n_components: int = skae.parameter(default=1)
    hidden_layer_sizes: tuple = skae.parameter(default=(8,))


def test_a_parameter_declared_again_keeps_what_is_not_stated_anew(table):
    assert str(inspect.signature(OtherDefaults)).startswith("(n_components=1, *, hidden_layer_sizes=(8,), weight=2.0")
    assert OtherDefaults(3).n_components == 3
    with pytest.raises(InvalidParameterError, match="The 'n_components' parameter"):
        OtherDefaults(0).fit(table)
    model = OtherDefaults(max_iter=1, random_state=0).fit(table).set_params(hidden_layer_sizes=(9,))
    with pytest.raises(ValueError, match="hidden_layer_sizes defines the network"):
        model.partial_fit(table)


class Shift:
    """A mixin that is no estimator."""

    shift: float = skae.parameter(default=1.5)


class Both(Shift, OtherDefaults, Fixed):
    pass


def test_parameters_of_all_bases_are_collected(table):
    names = list(inspect.signature(Both).parameters)
    assert names[:3] == ["n_components", "shift", "hidden_layer_sizes"]
    assert {"weight", "width"} < set(names)
    assert "init" not in names
    model = Both(max_iter=1, random_state=0).fit(table)
    assert (model.shift, model.n_components, model.init) == (1.5, 1, "random")


def test_a_base_written_by_hand_needs_a_subclass_written_by_hand():
    with pytest.raises(
        TypeError, match="Sub declares or fixes parameters, but a base has a constructor written by hand"
    ):
        type("Sub", (ByHand,), {"extra": skae.parameter(default=1.0)})

    class Sub(ByHand):
        def _loss(self, module, x):
            return super()._loss(module, x)

    assert Sub(power=1.5).power == 1.5


@pytest.mark.parametrize("default", [[1, 2], {}, set()])
def test_defaults_must_not_be_mutable(default):
    with pytest.raises(TypeError, match=r"default of a parameter must not be mutable, got .*Use a tuple or None"):
        skae.parameter(default=default)


class Documented(Weighted):
    """In numpydoc's other manners.

    Parameters
    ----------
    weight: float
        Without a blank.

    low, high : int
        Two at once, of a constructor that is not this one's.
    """


def test_what_a_class_documents_is_kept():
    text = inspect.getdoc(Documented)
    assert text.count("Parameters\n---") == 1
    assert "weight: float\n    Without a blank." in text
    assert text.count("low, high : int") == 1
    assert text.count("\nweight") == 1


def test_a_subclass_without_parameters_has_the_constructor_of_its_base():
    assert inspect.signature(Plain) == inspect.signature(Weighted)
    assert Plain(weight=3).get_params()["weight"] == 3
    assert Plain.__doc__ is None


def test_a_constructor_written_by_hand_is_kept(table):
    assert list(inspect.signature(ByHand).parameters) == ["n_components", "power", "max_iter", "random_state"]
    model = ByHand(3, power=1.5, max_iter=2, random_state=0).fit(table)
    codes = model.transform(table)
    assert (pickle.loads(pickle.dumps(model)).transform(table) == codes).all()
    assert "power : " not in inspect.getdoc(ByHand)
    assert "max_iter : " in inspect.getdoc(ByHand)
    assert "alpha : " not in inspect.getdoc(ByHand)
    with pytest.raises(InvalidParameterError, match="The 'power' parameter of ByHand"):
        ByHand(power=3).fit(table)


def test_a_fitted_estimator_is_no_dataclass(table):
    # libraries take dataclasses with equal fields for equal
    import dataclasses

    assert not dataclasses.is_dataclass(AutoEncoder)
    assert not dataclasses.is_dataclass(AutoEncoder().fit(table[:20]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"width": 4}, "Cannot continue training: width defines the network and has changed"),
        ({"width": 4, "n_components": 3}, "n_components, width define the network and have changed"),
    ],
)
def test_parameters_that_define_the_network_cannot_change_while_training_continues(table, changed, message):
    model = Weighted(warm_start=True, max_iter=2, random_state=0).fit(table)
    model.set_params(weight=1.0).fit(table)
    with pytest.raises(ValueError, match=message):
        model.set_params(**changed).fit(table)
    by_hand = ByHand(max_iter=2, random_state=0).fit(table).set_params(power=1.0)
    with pytest.raises(ValueError, match="power defines the network and has changed"):  # undeclared: it may
        by_hand.partial_fit(table)
