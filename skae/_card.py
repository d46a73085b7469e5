"""A model card: what was fitted, to which data, how training went, and what it is worth on other rows."""

import hashlib
import platform

import numpy as np
import sklearn
import torch

__all__ = ["card"]

USE = """```python
import joblib

model = joblib.load("model.joblib")  # only if you trust who wrote it
codes = model.transform(X)
```"""
# A table of curves has about so many lines.
N_LINES = 20


def card(estimator, X, X_test):
    """A card of skops for a fitted estimator; X and X_test: rows of the fit and others, or None."""
    try:
        from skops.card import Card
    except ImportError as error:
        raise ImportError("model_card needs the package skops: pip install skops.") from error
    name = type(estimator).__name__
    filled = Card(estimator, model_diagram=False)
    filled.delete("Model description/Training Procedure/Model Plot")
    filled.add(**{"Model description": f"{name} of skae: {_first_sentence(type(estimator))}"})
    procedure = "Model description/Training Procedure"
    filled.add(**{procedure: _of_training(estimator)})
    table = "Loss of each row, on average; the validation loss chose the epoch." if _validated(estimator) else None
    _add_table(filled, f"{procedure}/Loss curves", _curves(estimator), folded=True, description=table)
    rows = {"fit": X, "held out": X_test}
    described = [_described(estimator, which, X) for which, X in rows.items() if which == "fit" or X is not None]
    columns = {key: [row[key] for row in described] for key in described[0]}
    _add_table(filled, "Model description/Evaluation Results", columns, description=_about_data(estimator))
    filled.add(**{"How to Get Started with the Model": USE})
    return filled


def _add_table(card, section, columns, **options):
    card.add_table(**{section: columns}, **options)
    card.select(section).title = section.split("/")[-1]  # skops takes the whole path


def _first_sentence(estimator):
    return estimator.__doc__.strip().split("\n")[0].strip() if estimator.__doc__ else ""


def _of_training(estimator):
    import skae

    versions = {"skae": skae.__version__, "scikit-learn": sklearn.__version__, "PyTorch": torch.__version__}
    versions |= {"NumPy": np.__version__, "Python": platform.python_version()}
    return (
        f"{estimator.n_iter_} epochs; the weights are those of epoch {estimator.best_iter_}. The code has "
        f"{estimator.n_components_} components. This card was written with "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}."
    )


def _validated(estimator):
    return estimator.validation_curve_ is not None


def _curves(estimator):
    """Losses of some epochs, evenly spaced, the first and the last among them."""
    curves = {"training": np.asarray(estimator.loss_curve_)}
    if _validated(estimator):
        curves["validation"] = np.asarray(estimator.validation_curve_)
    # the validation curve may begin with epoch 0, before training
    n_epochs = len(curves["training"])
    epochs = np.unique(np.linspace(1, n_epochs, min(N_LINES, n_epochs)).round().astype(int))
    return {"epoch": epochs.tolist()} | {
        name: [f"{curve[len(curve) - n_epochs + epoch - 1]:.5g}" for epoch in epochs] for name, curve in curves.items()
    }


def _described(estimator, which, X):
    """Size, fingerprint and score of rows; of those of the fit the size alone, if they are not given."""
    sizes = {"rows": which, "number": estimator.n_samples_, "features": estimator.n_features_in_}
    if X is None:
        return sizes | {"missing cells": "", "SHA-256": "", "score": ""}
    valid = estimator._validate(X)
    digest, n_missing = hashlib.sha256(), 0
    for _, x in estimator._pieces(valid):
        values = x.numpy(force=True)
        digest.update(values.tobytes())
        n_missing += int(np.isnan(values).sum())
    found = {"missing cells": n_missing, "SHA-256": digest.hexdigest()[:16], "score": f"{estimator.score(X):.5g}"}
    return sizes | {"number": valid.shape[0]} | found


def _about_data(estimator):
    names, r2 = getattr(estimator, "feature_names_in_", None), "the R2 of the reconstruction"
    score = "a bound on the mean log-likelihood of a row, in nats" if hasattr(estimator, "elbo") else r2
    text = (
        f"The score is what `score` gives: {score}. The fingerprint is the beginning of the SHA-256 digest of the "
        "values in float64, row by row."
    )
    return text if names is None else f"{text} Features: {', '.join(map(str, names))}."
