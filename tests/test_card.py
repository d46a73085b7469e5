"""The model card has what was fitted, how, and to what, in one call."""

import hashlib
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from skae import VAE, AdversarialAutoEncoder, AutoEncoder

QUICK = dict(hidden_layer_sizes=8, max_iter=3, random_state=0)


def rendered(card):
    """Lines without the spaces that align the columns of tables."""
    return [" ".join(line.split()) for line in card.render().split("\n")]


def test_a_card_has_parameters_curves_data_and_scores(table, tmp_path):
    pytest.importorskip("skops")
    X, X_test = table[:150], table[150:]
    model = AutoEncoder(2, alpha=0.7, **QUICK).fit(X)
    card = model.model_card(X, X_test)
    lines = rendered(card)
    assert "| alpha | 0.7 |" in lines
    assert f"| 3 | {model.loss_curve_[-1]:.5g} | {model.validation_curve_[-1]:.5g} |" in lines
    for name, rows in (("fit", X), ("held out", X_test)):
        digest = hashlib.sha256(np.ascontiguousarray(rows)).hexdigest()[:16]
        assert f"| {name} | {len(rows)} | 6 | 0 | {digest} | {model.score(rows):.5g} |" in lines
    assert "AutoEncoder of skae: Autoencoder" in card.render()
    card.save(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == card.render()


def test_a_card_without_data_has_the_size_of_the_fit(table):
    pytest.importorskip("skops")
    lines = rendered(AdversarialAutoEncoder(2, **QUICK).fit(table).model_card())
    assert "| fit | 200 | 6 | | | |" in lines
    assert not any("validation" in line and line.startswith("|") for line in lines)  # it has no validation rows


def test_a_card_of_a_table_with_missing_cells(table):
    pytest.importorskip("skops")
    frame = pd.DataFrame(table[:, :2], columns=["a", "b"]).assign(kind=np.where(table[:, 2] > 1, "high", "low"))
    frame.loc[:9, "kind"] = None
    text = VAE(2, **QUICK).fit(frame).model_card(frame).render()
    assert "Features: a, b, kind." in text
    assert "in nats" in text
    assert "| 200 |" in " ".join(text.split())
    assert "| 10 |" in " ".join(text.split())


def test_errors(table, monkeypatch):
    with pytest.raises(NotFittedError):
        AutoEncoder().model_card()
    model = AutoEncoder(2, **QUICK).fit(table)
    monkeypatch.setitem(sys.modules, "skops.card", None)
    with pytest.raises(ImportError, match="pip install skops"):
        model.model_card()
