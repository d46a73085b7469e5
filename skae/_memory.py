"""How much memory a fit needs at least, and how much there is: an error before it begins, if it cannot be done."""

from pathlib import Path

import torch
from torch import nn

from ._adam import Adam
from ._mapped import is_mapped

__all__ = ["available", "check_memory", "least_bytes"]

# A fit is refused if the least that it needs is so many times what is available: no fit that could be done is.
MARGIN = 1.25
# Less is not looked at. Networks are counted, which may import torch's compiler, if a square matrix of their widest
# layer or a batch in it takes this share of what is available.
LARGE, SHARE = 2**26, 0.01
WHAT = {
    "rows": ("the rows in float32", "Use a memory map as X: np.load(path, mmap_mode='r')"),
    "networks": ("{n} with gradients and moments", "Lower hidden_layer_sizes or the number of folds"),
    "batch": ("a batch in all layers", "Lower batch_size"),
}


def check_memory(estimator, scaler, X, n_beside, n_folds, seed, continuing):
    """MemoryError if a fit to a valid X clearly needs more memory than there is.

    n_beside: number of validation rows beside those of X. n_folds: how many networks train for each initialization.
    """
    device, n_rows = estimator._device(), X.shape[0]
    is_sparse = hasattr(X, "nnz")  # of which the numbers that are stored are copied, and stay on the host
    rows = 0 if is_mapped(X) or is_sparse else 4 * (n_rows + n_beside) * scaler.n_inputs
    on_host = {"rows": 4 * X.nnz if is_sparse else rows}
    widest = max(scaler.n_inputs, *estimator._hidden_layer_sizes(), 1)
    batch_size = min(estimator._batch_size(n_rows), max(1, n_rows // 2))  # at least half of the rows train
    about = 16 * n_folds * widest**2 + 4 * batch_size * widest
    if on_host["rows"] + about < LARGE:
        return
    there, parts, n_networks = available(device), {}, 0
    if there is not None and about > SHARE * there and (network := _without_memory(estimator, scaler, seed)):
        optimizers = [optimizer for _, optimizer in estimator._optimizers(network)]
        n_networks = n_folds * _n_initializations(estimator, network, len(optimizers), continuing)
        has_moments = all(isinstance(optimizer, Adam) for optimizer in optimizers)
        parts = least_bytes(network, n_networks, has_moments, batch_size, scaler.n_inputs)
    needed = [(device, there, ({"rows": rows} if device.type != "cpu" else on_host) | parts)]
    if device.type != "cpu":
        needed.append((torch.device("cpu"), available(torch.device("cpu")), on_host))
    for where, there, parts in needed:
        if there is not None and sum(parts.values()) > MARGIN * there:
            raise MemoryError(_message(type(estimator).__name__, parts, there, where, n_networks))


def _without_memory(estimator, scaler, seed):
    """The network that the estimator builds, with shapes alone; None if it cannot be built so."""
    n_components = int(estimator.n_components) if estimator.n_components >= 1 else 1
    try:
        with torch.device("meta"):
            return estimator._new_network(scaler, seed, torch.device("meta"), n_components)
    except Exception:  # a constructor that looks at values, or an error that is raised again where it belongs
        return None


def _n_initializations(estimator, network, n_optimizers, continuing):
    """For how many initializations a network trains for each fold."""
    both = estimator.init == "pca" and getattr(network, "has_pca", True) and bool(estimator._hidden_layer_sizes())
    return 2 if both and not (continuing or n_optimizers > 1 or getattr(network, "starts_once", False)) else 1


def least_bytes(
    network: nn.Module, n_networks: int, has_moments: bool, batch_size: int, n_inputs: int
) -> dict[str, int]:
    """Bytes that training takes at least for networks side by side and for a batch in one of them.

    Each network has its weights, their gradients and, with Adam, two moments, and one more is kept as it was built. Of
    a batch there are the rows and the outputs of the linear layers, which wait for their gradients. In float32.
    """
    n_weights = sum(parameter.numel() for parameter in network.parameters())
    widths = sum(module.out_features for module in network.modules() if isinstance(module, nn.Linear))
    return {
        "networks": 4 * n_weights * ((4 if has_moments else 2) * n_networks + 1),
        "batch": 4 * batch_size * (n_inputs + widths),
    }


def _message(name, parts, there, device, n_networks):
    where = "memory" if device.type == "cpu" else f"memory of the device {device}"
    networks = f"{n_networks} network{'s' * (n_networks > 1)}"
    largest = max(parts, key=parts.get)
    listed = ", ".join(f"{_size(size)} for {WHAT[part][0].format(n=networks)}" for part, size in parts.items())
    return (
        f"fit of {name} needs at least {_size(sum(parts.values()))} of {where}, and {_size(there)} are available: "
        f"{listed}. {WHAT[largest][1]}."
    )


def _size(n_bytes):
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.1f} MB"


def available(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that this process can still have on a device; None where that cannot be told. root: of the files of Linux.

    Of a GPU with what torch holds in reserve; of the host with what could be swapped, and no more than the limits of
    the control groups that the process is in leave, as those of a container or of a job of SLURM.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    info = _numbers(root / "proc/meminfo")
    if "MemAvailable" not in info:
        return None
    swap = 1024 * info.get("SwapFree", 0)
    cached = _numbers(root / "proc/spl/kstat/zfs/arcstats").get("size", 0)  # of ZFS, which is not in MemAvailable
    return min([1024 * info["MemAvailable"] + cached, *_left_by_groups(root)]) + swap


def _left_by_groups(root):
    """What the limit of each control group leaves, whose files can be let go: of version 2 and of version 1."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        version_1 = "memory" in controllers.split(",")
        if not version_1 and controllers:
            continue
        mount = root / "sys/fs/cgroup" / ("memory" if version_1 else "")
        limit, used = ("memory.limit_in_bytes", "total_rss") if version_1 else ("memory.max", "anon")
        folder = mount / path.strip("/")
        while folder.is_relative_to(mount):
            limits = [int(value) for value in _lines(folder / limit) if value.isdigit()]
            if limits:
                yield max(0, limits[0] - _numbers(folder / "memory.stat").get(used, 0))
            folder = folder.parent


def _numbers(path):
    """The last whole number in each line of a file, by the first word."""
    found = ((line.replace(":", " ").split(), line) for line in _lines(path))
    return {
        words[0]: next((int(word) for word in reversed(words[1:]) if word.isdigit()), 0) for words, _ in found if words
    }


def _lines(path):
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
