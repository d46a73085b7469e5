"""What a fit needs of memory at least, what there is, and the error before a fit that cannot be done."""

import numpy as np
import pytest
import torch
from scipy import sparse

import skae
from skae import VAE, AdversarialAutoEncoder, AutoEncoder
from skae import _memory as memory

MEMBERS = [getattr(skae, name) for name in skae.__all__ if issubclass(getattr(skae, name), skae.BaseAutoEncoder)]
MEMBERS.remove(skae.BaseAutoEncoder)
# to count those of the others torch imports its compiler, which takes seconds
COUNTED = [
    m if not issubclass(m, (VAE, skae.ConditionalVAE)) else pytest.param(m, marks=pytest.mark.slow) for m in MEMBERS
]
QUICK = dict(max_iter=1, random_state=0)


@pytest.fixture
def X():
    return np.random.RandomState(0).standard_normal((100, 8))


@pytest.fixture
def there(monkeypatch):
    """Everything is looked at, and so many bytes are there."""

    def set_bytes(n_bytes):
        monkeypatch.setattr(memory, "LARGE", 0)
        monkeypatch.setattr(memory, "SHARE", 0)
        monkeypatch.setattr(memory, "available", lambda device: n_bytes)

    return set_bytes


def least(model, X, there, **options):
    """Bytes that the fit needs at least: with a byte less, times the margin, it is refused."""
    low, high = 0, 10**7
    while high - low > 100:
        there(middle := (low + high) // 2)
        try:
            memory_of_fit(model, X, **options)
            high = middle
        except MemoryError:
            low = middle
    return high * memory.MARGIN


def memory_of_fit(model, X, n_folds=1):
    scaler = model._build_scaler().fit(scaled := np.asarray(X))
    memory.check_memory(model, scaler, scaled, 0, n_folds, 0, False)


def test_what_networks_rows_and_batches_take(X, there):
    n_weights = sum(p.numel() for p in AutoEncoder(2, **QUICK).fit(X).module_.parameters())
    rows, batch = 4 * 100 * 8, 4 * 50 * (8 + 2 * (2 + 128 + 64) + 2 * 8 - 2 * 2 + 2 * 2)
    expected = rows + 4 * n_weights * (4 * 2 + 1)
    assert least(AutoEncoder(2), X, there) == pytest.approx(expected + batch, abs=5000)
    assert least(AutoEncoder(2), X, there, n_folds=3) - expected == pytest.approx(16 * n_weights * 4 + batch, abs=5000)
    assert least(AutoEncoder(2, init="random"), X, there) == pytest.approx(expected - 16 * n_weights + batch, abs=5000)


@pytest.mark.parametrize("member", COUNTED, ids=lambda member: member.__name__)
def test_a_fit_that_cannot_be_done_is_refused_before_it_begins(member, X, there):
    there(1e6)
    model = member(2, **QUICK)
    with pytest.raises(MemoryError, match=rf"fit of {member.__name__} needs at least .* GB of memory, and 1.0 MB are"):
        model.set_params(hidden_layer_sizes=(20_000, 10_000)).fit(X)
    assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(MemoryError, match=r"networks? with gradients and moments.* Lower hidden_layer_sizes"):
        model.fit(X)
    there(1e9)
    model.set_params(hidden_layer_sizes=(8,)).fit(X)


def test_what_to_change_is_what_takes_most(X, there, monkeypatch):
    there(1e6)
    model = AutoEncoder(2, hidden_layer_sizes=(8,), **QUICK)
    many = np.random.RandomState(0).standard_normal((50_000, 8))
    with pytest.raises(MemoryError, match=r"1.6 MB for the rows in float32, .* Use a memory map as X"):
        model.fit(many)
    monkeypatch.setattr("skae._mapped.LEAST_BYTES", 0)
    model.fit(many.view(np.memmap))
    with pytest.raises(MemoryError, match=r"for a batch in all layers\. Lower batch_size"):
        model.set_params(batch_size=25_000).fit(many.view(np.memmap))
    there(2e6)
    with pytest.raises(MemoryError, match=r"2\.0 MB for the rows"):
        model.set_params(batch_size=100).fit(sparse.csr_array(np.random.RandomState(0).rand(500, 1000)))
    model.fit(sparse.eye_array(500, 1000, format="csr"))


def test_networks_that_cannot_be_counted_are_not(X, there):
    class Own(AutoEncoder):
        def _build_module(self, n_features, n_components, scale, **options):
            module = super()._build_module(n_features, n_components, scale, **options)
            assert float(next(module.parameters()).sum()) != 0  # values that are not there without memory
            return module

    there(1e5)
    Own(2, **QUICK).fit(X)

    class Plain(AutoEncoder):
        def _optimizers(self, module):
            return [(self._loss, "one without moments")]

    assert least(Plain(2), X, there) < 0.65 * least(AutoEncoder(2), X, there)
    assert least(AdversarialAutoEncoder(2), X, there) < least(AutoEncoder(2), X, there)


def test_nothing_is_refused_where_nothing_can_be_told(X, there):
    there(None)
    AutoEncoder(2, **QUICK).fit(X)
    assert memory.available(torch.device("meta")) is None


def files(root, contents):
    for path, text in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


MEMINFO = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:    800 kB\nSwapFree:        50 kB\n"


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 1000 kB\n"}, None),
        ({"proc/meminfo": MEMINFO}, 850 * 1024),
        ({"proc/meminfo": MEMINFO, "proc/spl/kstat/zfs/arcstats": "6 1 0x01\nsize   4    102400\n"}, 950 * 1024),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/memory.max": "409600\n",
                "sys/fs/cgroup/job/memory.stat": "anon 102400\nfile 4096\n",
                "sys/fs/cgroup/job/step/memory.max": "max\n",
            },
            350 * 1024,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "204800\n",
                "sys/fs/cgroup/memory/memory.stat": "rss 1\ntotal_rss 102400\n",
            },
            150 * 1024,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            850 * 1024,
        ),
    ],
)
def test_what_is_available_by_the_files_of_linux(contents, expected, tmp_path):
    assert memory.available(torch.device("cpu"), files(tmp_path, contents)) == expected


def test_what_is_available_here():
    there = memory.available(torch.device("cpu"))
    assert there is None or 2**24 < there < 2**50
