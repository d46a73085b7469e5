"""What the methods share: a file in solvers/ is a name, a grid of parameters, and the estimator they make."""

import warnings
from contextlib import suppress
from time import perf_counter

import numpy as np
from benchopt import BaseSolver

from benchmark_utils.guard import Failed, PeakMemory, call


class Method(BaseSolver):
    """A dimensionality reduction: an estimator of scikit-learn's kind, made by `estimator`.

    It is fitted in a process of its own, on one thread; in the first repetition again, with another seed. What it
    cannot do it does not offer: it has no `transform`, no `inverse_transform`, an error of its own for a target or a
    number of components.
    """

    sampling_strategy = "run_once"
    requirements = []
    uses_y = False

    def estimator(self, n_components, random_state, X):
        """The unfitted estimator; X are the training rows, for what depends on their shape or scale."""
        raise NotImplementedError

    def warm_up_once(self):
        """What is compiled or loaded at the first use, so that it is not timed."""

    def inverse_transform(self, model, Z):
        return model.inverse_transform(Z) if hasattr(model, "inverse_transform") else None

    def log_likelihood(self, model, X):
        """Mean over the rows of X of what a density says of them, in nats; NaN if the method has none."""
        return np.nan

    def set_objective(self, task, limits, twice):
        self.task, self.limits, self.twice = task, limits, twice

    def run(self, _):
        try:
            if self.uses_y and self.task["target"] != "classes":
                raise Failed("needs a target of classes")
            self.outcome = dict(call(measure, self, self.task, **self.limits), reason="")
        except Failed as failure:
            self.outcome = dict(reason=str(failure))
        if self.twice and not self.outcome["reason"]:
            with suppress(Failed):  # no agreement of two seeds, then; all else stands
                self.outcome["twin"] = call(codes_of_another_seed, self, self.task, **self.limits)

    def get_result(self):
        return dict(outcome=self.outcome, uses_y=self.uses_y)


def measure(method, task):
    """Fit to the training rows; codes and reconstructions of all groups of rows; times in s and memory in bytes."""
    X, groups = task["X"], task["groups"]
    warnings.simplefilter("ignore")  # of the methods, in this process: what matters is in the figures
    method.warm_up_once()
    transform_seconds = np.nan
    with PeakMemory() as memory:
        model = method.estimator(task["n_components"], task["random_state"], X)
        start = perf_counter()
        codes = {"train": model.fit_transform(X, _target(method, task))}
        fit_seconds = perf_counter() - start
        if hasattr(model, "transform"):
            start = perf_counter()
            codes["test"] = model.transform(groups["test"])
            transform_seconds = perf_counter() - start
            codes |= {name: model.transform(rows) for name, rows in groups.items() if name != "test"}
    codes = {name: _finite(Z, f"codes of the {name} rows") for name, Z in codes.items()}
    rebuilt = {name: method.inverse_transform(model, Z) for name, Z in codes.items()}
    return dict(
        codes=codes,
        log_likelihoods={
            "train": method.log_likelihood(model, X),
            "test": method.log_likelihood(model, groups["test"]),
        },
        rebuilt={name: _finite(rows, f"rebuilt {name} rows") for name, rows in rebuilt.items() if rows is not None},
        fit_seconds=fit_seconds,
        transform_seconds=transform_seconds,
        peak_memory=memory.bytes,
    )


def codes_of_another_seed(method, task):
    """Of the training rows."""
    model = method.estimator(task["n_components"], task["random_state"] + 1, task["X"])
    return _finite(model.fit_transform(task["X"], _target(method, task)), "codes of another seed")


def _target(method, task):
    """UMAP, and others, take part of a target into their codes if they are given one."""
    return task["y"] if method.uses_y else None


def _finite(rows, what):
    rows = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(rows).all():
        raise ValueError(f"the {what} are not finite")
    return rows
