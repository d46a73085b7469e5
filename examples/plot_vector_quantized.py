"""
Digits in a few bits
====================

A vector-quantized autoencoder codes a row by the indices of a few vectors: its codes are discrete. With one codebook it
is a k-means that decodes; with several, each row is a combination, and a few hundred vectors make 48 bits.
"""

# %%
# k-means spends a centre on every combination: beyond ten bits it would have more centres than there are training rows.
# With one codebook nothing is better; several codebooks reach further.

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from skae import VQVAE

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

X_train, X_test = train_test_split(load_digits().data / 16, random_state=0)


def r2(X_hat):
    return r2_score(X_test, X_hat, multioutput="variance_weighted")


by_bits = {"k-means": {}, "VQVAE, codebooks of 64": {}}
for bits in (2, 4, 6, 8, 10):
    kmeans = KMeans(2**bits, n_init=3, random_state=0).fit(X_train)
    by_bits["k-means"][bits] = r2(kmeans.cluster_centers_[kmeans.predict(X_test)])
models = {}
for n_codebooks in (1, 2, 3, 4, 6, 8):
    models[n_codebooks] = VQVAE(24, n_codebooks=n_codebooks, random_state=0, **QUICK).fit(X_train)
    by_bits["VQVAE, codebooks of 64"][6 * n_codebooks] = models[n_codebooks].score(X_test)
for name, scores in by_bits.items():
    print(name, {bits: round(float(score), 3) for bits, score in scores.items()})
print(f"share of the codes in use: {np.mean([(m.code_frequencies_ > 0).mean() for m in models.values()]):.0%}")

# %%
# Held-out digits, and the same after 6, 24 and 48 bits.

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
for (name, scores), style in zip(by_bits.items(), ("s--", "o-"), strict=True):
    left.plot(list(scores), list(scores.values()), style, label=name)
left.set(title="digits", xlabel="bits for each row", ylabel="R2 of held-out rows")
left.legend()
rows = [X_test[:12], *(models[g].inverse_transform(models[g].transform(X_test[:12])) for g in (1, 4, 8))]
pictures = [np.hstack(np.pad(row.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))) for row in rows]
right.imshow(np.vstack(pictures), cmap="gray_r", vmin=0, vmax=1)
right.set(title="held-out digits after quantization", xticks=[], yticks=[4.5, 14.5, 24.5, 34.5])
right.set_yticklabels(["as they are", "6 bits", "24 bits", "48 bits"])
figure.savefig("vector_quantized.png", dpi=120)
