"""
Codes without PyTorch
=====================

A fitted estimator writes its encoder and its decoder as ONNX files, with its mean and scale within. A service, a phone
or a program in C++ computes codes from these alone; onnxruntime is one library that does.
"""

# %%
# The encoder of a denoising autoencoder of digits, the decoder, and how large the files are.

import os
import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import DenoisingAutoEncoder

QUICK = {"max_iter": 3} if os.environ.get("SKAE_EXAMPLES_QUICK") else {}

X_train, X_test = train_test_split(load_digits().data.astype(np.float32) / 16, random_state=0)
model = DenoisingAutoEncoder(10, random_state=0, **QUICK).fit(X_train)

folder = Path(tempfile.mkdtemp())
model.to_onnx(folder / "encoder.onnx")
model.to_onnx(folder / "decoder.onnx", method="inverse_transform")
encoder, decoder = (onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("encoder", "decoder"))

# %%
# The codes are those of `transform` up to the rounding of float32, for one row as for many.

codes = encoder.run(None, {"X": X_test})[0]
rebuilt = decoder.run(None, {"codes": codes})[0]
print(f"files of {', '.join(f'{path.stat().st_size / 1000:.0f} kB' for path in sorted(folder.iterdir()))}")
print(
    f"largest difference of a code: {np.abs(codes - model.transform(X_test)).max() / codes.std():.1e} of their spread"
)

# %%
# For a few rows at a time the answer comes much sooner: no checks of X, no modules of Python. For many rows both do the
# same products, skae in float64.


def milliseconds(function, n_rows, repeats=30):
    times = []
    for _ in range(repeats):
        start = perf_counter()
        function(X_test[:n_rows])
        times.append(perf_counter() - start)
    return 1000 * float(np.median(times))


n_rows = [1, 4, 16, 64, 256]
ways = {"transform": model.transform, "onnxruntime": lambda X: encoder.run(None, {"X": X})}
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
pictures = [np.hstack(np.pad(rows[:12].reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))) for rows in (X_test, rebuilt)]
left.imshow(np.vstack(pictures), cmap="gray_r", vmin=0, vmax=1)
left.set(title="held-out digits, and what both files make of them", xticks=[], yticks=[])
for name, function in ways.items():
    right.loglog(n_rows, [milliseconds(function, n) for n in n_rows], "o-", label=name)
right.set(title="time for one call", xlabel="rows", ylabel="milliseconds")
right.legend()
figure.savefig("onnx.png", dpi=120)
