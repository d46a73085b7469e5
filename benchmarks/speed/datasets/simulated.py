import numpy as np
from benchopt import BaseDataset

NETWORKS = {  # widths from the features to the code, rows in a batch
    "small": ((64, 128, 8), 128),
    "middle": ((50, 256, 128, 10), 256),
    "large": ((784, 512, 128, 32), 256),
}


class Dataset(BaseDataset):
    """Correlated normal rows: what they hold does not matter to the speed."""

    name = "simulated"
    parameters = {"network": list(NETWORKS), "n_samples": [20_000], "n_epochs": [6]}

    def get_data(self):
        widths, batch_size = NETWORKS[self.network]
        rng = np.random.RandomState(0)
        X = rng.standard_normal((self.n_samples, widths[-1])) @ rng.standard_normal((widths[-1], widths[0]))
        X += rng.standard_normal(X.shape)
        return dict(X=X.astype(np.float32), widths=widths, batch_size=batch_size, n_epochs=self.n_epochs)
