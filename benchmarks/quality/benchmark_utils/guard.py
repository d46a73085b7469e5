"""Calls a function in a process of its own: what hangs or runs out of memory there does not end the benchmark.

The process stays for the next call, as starting one takes seconds. It computes on one thread, so that figures do not
depend on how many runs share the machine.
"""

import ctypes
import functools
import gc
import multiprocessing
import os
import threading
from multiprocessing.util import Finalize

from joblib import wrap_non_picklable_objects
from pebble import ProcessExpired, ProcessPool

LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM", "BLIS", "NUMEXPR")


class Failed(Exception):
    """Why there is no result, in one line."""


def call(function, *arguments, seconds, gigabytes):
    """function(*arguments), or Failed. What hinders the process from starting is raised as it is."""
    pool = _pool()
    try:
        # the benchmark's modules are loaded from files, so they travel by value
        task = wrap_non_picklable_objects(functools.partial(_limited, gigabytes, function, *arguments))
        result, reason = pool.schedule(task, timeout=seconds).result()
    except TimeoutError:
        raise Failed(f"ran past its limit of {seconds} s") from None
    except ProcessExpired as end:
        raise Failed(f"its process ended with code {end.exitcode}: -9 is most often want of memory") from None
    if reason is not None:
        raise Failed(reason)
    return result


def one_line(error):
    """What an exception says, short enough for a cell."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@functools.cache
def _pool():
    if multiprocessing.current_process().daemon:
        raise RuntimeError("Dask's workers must not be daemons: set DASK_DISTRIBUTED__WORKER__DAEMON=false")
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in LIBRARIES})  # read by the process when it starts
    multiprocessing.set_start_method(
        "spawn", force=True
    )  # in joblib's workers it is "loky", which children do not know
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(max_workers=1, context=context, initializer=wrap_non_picklable_objects(_end_with_parent))
    Finalize(None, _end, args=(pool,), exitpriority=1)  # before this process would wait for its children for ever
    pool.schedule(int).result()  # it has started: limits are for what is called
    return pool


def _end(pool):
    pool.stop()
    pool.join()


def _end_with_parent():
    """A process whose benchmark was killed ends, whatever it computes."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _limited(gigabytes, function, *arguments):
    """In the process: (result, None) or (None, reason); memory for data limited to so much more than it holds now."""
    gc.collect()
    held = _status("VmData")
    if held is not None:  # Linux says what a process holds; elsewhere only the limit of time holds
        import resource  # not to be had on Windows

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = held + int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    try:
        return function(*arguments), None
    except MemoryError:
        return None, f"needed more than its {gigabytes} GB of memory"
    except Exception as error:  # as text: not every exception can be pickled
        return None, one_line(error)


class PeakMemory:
    """Within `with`: the most memory above that at its start, `.bytes`; NaN where the system is not Linux."""

    def __enter__(self):
        gc.collect()
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # or memory that earlier calls gave back would be used unseen
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the high-water mark starts anew
        except OSError:
            self.start = None
        else:
            self.start = _status("VmRSS")
        return self

    def __exit__(self, *error):
        self.bytes = float("nan") if self.start is None else max(_status("VmHWM") - self.start, 0)


def _status(name):
    """An entry of /proc/self/status in bytes, or None."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
    except OSError:
        return None
