"""Write a small file of fitted models by the version of skae that is on the path, which later versions have to read.

    python tests/releases/write.py

makes skae-VERSION.joblib in this folder, once for each release; a file that is there stays. Every model is in it twice,
as pickle and as skops have it.
"""

import pickle
from pathlib import Path

import joblib
from sklearn.datasets import load_iris

import skae

SMALL = dict(hidden_layer_sizes=(4,), max_iter=5, random_state=0)
MODELS = {
    "AutoEncoder": dict(activation="tanh"),
    "DenoisingAutoEncoder": dict(),
    "ContractiveAutoEncoder": dict(),
    "SparseAutoEncoder": dict(n_active=1),
    "VAE": dict(prior="vamp"),
    "VQVAE": dict(n_codes=4, n_codebooks=2),
    "ConditionalVAE": dict(condition_features=[3]),
    "AdversarialAutoEncoder": dict(),
}
# What a model read from the file has to give again.
RESULTS = {
    "transform": lambda model, X: model.transform(X),
    "score_samples": lambda model, X: model.score_samples(X),
    "inverse_transform": lambda model, X: model.inverse_transform(model.transform(X), **condition(model, X)),
    "sample": lambda model, X: model.sample(5, random_state=0) if type(model).__name__ in ("VAE", "VQVAE") else None,
}


def condition(model, X):
    return {"condition": X[:, [3]]} if type(model).__name__ == "ConditionalVAE" else {}


def contents():
    import skops.io  # who reads a release's file needs it not

    X = load_iris().data[::5]
    models = {name: getattr(skae, name)(2, **SMALL, **own).fit(X) for name, own in MODELS.items()}
    return {
        "version": skae.__version__,
        "X": X,
        "pickle": {name: pickle.dumps(model) for name, model in models.items()},
        "skops": {name: skops.io.dumps(model) for name, model in models.items()},
        "results": {
            name: {what: result(model, X) for what, result in RESULTS.items()} for name, model in models.items()
        },
    }


if __name__ == "__main__":
    path = Path(__file__).with_name(f"skae-{skae.__version__}.joblib")
    if path.exists():
        raise SystemExit(f"{path.name} is there, and the file of a release stays as it is.")
    joblib.dump(contents(), path, compress=("xz", 9))
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
