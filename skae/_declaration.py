"""How an estimator declares its parameters: each once, with default, constraints and documentation."""

import inspect
import re
from dataclasses import dataclass, field, make_dataclass
from typing import Any, dataclass_transform

__all__ = ["Declared", "parameter"]


@dataclass(frozen=True)
class Parameter:
    constraints: tuple
    default: Any
    defines_network: bool
    kw_only: bool


def parameter(*constraints: Any, default: Any, defines_network: bool = False, kw_only: bool = True) -> Any:
    """Declare a parameter of an estimator, in the body of the class.

    Parameters
    ----------
    *constraints : str, None or constraints of scikit-learn
        What values may be, as in scikit-learn's ``_parameter_constraints``: one of them must hold when `fit` is called.
        Without any, every value is valid.
    default : object
        Default, not mutable.
    defines_network : bool, default=False
        Whether the network is built from the parameter, so that it cannot change while training continues with the same
        network.
    kw_only : bool, default=True
        Whether the constructor takes it by keyword only, as scikit-learn's do except for the first.

    Returns
    -------
    parameter : object
        The declaration. If a base has declared the parameter too, what is not stated anew stays as it is there.

    Raises
    ------
    TypeError
        If the default is mutable.

    Examples
    --------
    >>> from numbers import Real
    >>> from sklearn.utils._param_validation import Interval
    >>> from skae import AutoEncoder, parameter
    >>> class WeightedAutoEncoder(AutoEncoder):
    ...     weight: float = parameter(Interval(Real, 0, None, closed="left"), default=1.0)
    ...
    ...     def _loss(self, module, x):
    ...         return self.weight * super()._loss(module, x)
    >>> WeightedAutoEncoder(3, weight=0.5)
    WeightedAutoEncoder(n_components=3, weight=0.5)
    """
    if type(default).__hash__ is None:
        raise TypeError(f"The default of a parameter must not be mutable, got {default!r}. Use a tuple or None.")
    return Parameter(constraints, default, defines_network, kw_only)


@dataclass_transform(kw_only_default=True, field_specifiers=(parameter,))
class Declared:
    """Gives each subclass the constructor, the constraints and the documentation of what it and its bases declare.

    The constructor is as scikit-learn's are: explicit arguments, stored as they are, positional ones first, then those
    of the class, then those of its bases. A plain value in a class body in place of an inherited parameter fixes it:
    ``init = "random"``. A subclass that defines ``__init__`` and ``_parameter_constraints`` itself keeps them.
    """

    _parameters: dict[str, Parameter] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._declared = {name: value for name, value in vars(cls).items() if isinstance(value, Parameter)}
        for name in cls._declared:
            delattr(cls, name)
        inherited, cls._parameters = cls._parameters, _collected(cls)
        if cls._parameters != inherited and "__init__" not in vars(cls):
            if not hasattr(cls.__init__, "is_generated") and cls.__init__ is not object.__init__:
                raise TypeError(
                    f"{cls.__name__} declares or fixes parameters, but a base has a constructor written by hand. Write "
                    f"{cls.__name__}.__init__ too, or declare the parameters of the base with parameter()."
                )
            cls.__init__ = _constructor(cls)
        if cls._parameters != inherited and "_parameter_constraints" not in vars(cls):
            cls._parameter_constraints = {
                name: list(value.constraints) or "no_validation" for name, value in cls._parameters.items()
            }
        if cls.__doc__:
            cls.__doc__ = _documentation(cls)

    def _defining_parameters(self) -> list[str]:
        """Names of the parameters that define the network; one that is not declared may, and is counted."""
        declared = self._parameters
        return [n for n in self._get_param_names() if n not in declared or declared[n].defines_network]


def _collected(cls: type) -> dict[str, Parameter]:
    """Parameters of a class and its bases, also of those that are no estimators: positional ones first."""
    collected: dict[str, Parameter] = {}
    fixed: set[str] = set()
    for base in cls.__mro__:
        own = {name: value for name, value in vars(base).items() if isinstance(value, Parameter)}
        own |= vars(base).get("_declared", {})
        for name, value in own.items():
            if name in collected:
                value = _again(collected[name], value)
            if name not in fixed:
                collected[name] = value
        fixed |= vars(base).keys() - own.keys()
    return dict(sorted(collected.items(), key=lambda item: item[1].kw_only))


def _again(parameter: Parameter, base: Parameter) -> Parameter:
    """A parameter that a base has declared already."""
    constraints = parameter.constraints or base.constraints
    return Parameter(constraints, parameter.default, parameter.defines_network or base.defines_network, base.kw_only)


def _constructor(cls: type) -> Any:
    # dataclasses writes it, for a class that is thrown away: an estimator must not be a dataclass, as libraries take
    # two dataclasses with the same fields for equal, however differently they were fitted
    fields = [
        (name, Any, field(default=value.default, kw_only=value.kw_only)) for name, value in cls._parameters.items()
    ]
    constructor = make_dataclass(cls.__name__, fields).__init__
    constructor.__qualname__, constructor.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    constructor.__annotations__ = {}
    constructor.is_generated = True
    return constructor


def _documentation(cls: type) -> str:
    """The docstring, completed with the parameters and attributes that only the bases document."""
    sections = _sections(cls.__doc__)
    signature = list(inspect.signature(cls.__init__).parameters)
    for title in ("Parameters", "Attributes"):
        entries = _entries(sections.get(title, ""))
        for base in cls.__bases__:
            for name, entry in _entries(_sections(base.__doc__ or "").get(title, "")).items():
                if title == "Attributes" or name in signature:
                    entries.setdefault(name, entry)
        if title == "Parameters":
            place = {name: i for i, name in enumerate(signature)}
            entries = dict(sorted(entries.items(), key=lambda entry: place.get(entry[0], len(place))))
        if entries:
            sections[title] = "\n\n".join(dict.fromkeys(entries.values()))
    summary = sections.pop("")
    order = ["Parameters", "Attributes", *(title for title in sections if title not in ("Parameters", "Attributes"))]
    parts = [f"{title}\n{'-' * len(title)}\n{sections[title]}" for title in order if title in sections]
    return "\n\n".join([summary, *parts]) + "\n"


def _sections(doc: str) -> dict[str, str]:
    """Text of each section of a numpydoc docstring; what comes before the first is under the empty title."""
    summary, *rest = re.split(r"^([A-Z][\w ]*\w) *\n-{3,} *\n", inspect.cleandoc(doc), flags=re.MULTILINE)
    return {"": summary.strip()} | {title: text.strip() for title, text in zip(rest[::2], rest[1::2], strict=True)}


def _entries(section: str) -> dict[str, str]:
    """Text of the entry of each name in a section: ``name : type`` or ``name, other : type``."""
    texts = [text.strip() for text in re.split(r"\n(?=\S)", section) if text.strip()]
    return {name: text for text in texts for name in re.split(r"\s*:", text)[0].split(", ")}
