"""Functions under vmap that are, to the last bit, what they are alone."""

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

try:  # private parts of torch, that another version need not have
    from torch._C import _functorch
    from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
except ImportError:
    _functorch = None

__all__ = ["as_alone", "padded"]

# Matrices begin at a multiple of so many numbers, as those of tensors of their own do: the order in which MKL sums a
# product depends on where in 16 bytes an operand begins.
ALIGNMENT = 4
# Products of fewer multiplications are not made by MKL, if they are of a stack.
LEAST_PRODUCT = 400


def as_alone() -> AbstractContextManager:
    """Within, stacked networks under vmap compute what each network computes alone, in the same order.

    Adam divides a gradient by its own size: one that should be zero, as many are at principal axes, becomes a step in
    the direction of its rounding errors. Products of other operands, or of transposed ones, as vmap makes them, have
    other errors, and after a few epochs the network is another one. These here are also faster, as the gradients of the
    weights need no copy to transpose them. Of the cross-entropy vmap has a formula of its own.
    """
    if _functorch is None:
        raise NotImplementedError(f"Networks are not stacked with torch {torch.__version__}.")
    return _AsAlone()


class _AsAlone(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, stacked = kwargs or {}, STACKED.get(function)
        tensors = [argument for argument in args if isinstance(argument, Tensor)]
        if stacked is None or len(_functorch.get_interpreter_stack() or ()) != 1 or not all(map(_is_stack, tensors)):
            return function(*args, **kwargs)
        level = _functorch.current_level()
        # vmap would not let a function with a backward of its own through but by a detour in Python
        with temporarily_pop_interpreter_stack():
            y = stacked(
                *(_functorch.get_unwrapped(each) if isinstance(each, Tensor) else each for each in args), **kwargs
            )
        return _functorch._add_batch_dim(y, 0, level)


def _is_stack(tensor: Tensor) -> bool:
    return _functorch.is_batchedtensor(tensor) and _functorch.maybe_get_bdim(tensor) == 0


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layers of n networks: (n, ..., n_in), (n, n_out, n_in) and (n, n_out) -> (n, ..., n_out)."""
    y = _Linear.apply(x.reshape(len(x), -1, x.shape[-1]), weight, bias)
    return y.reshape(*x.shape[:-1], weight.shape[1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = aligned(x)
        context.save_for_backward(x, weight)
        return product(x, weight.mT, bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = context.saved_tensors
        of_x, of_weight, of_bias = context.needs_input_grad
        gradient = aligned(gradient)
        return (
            product(gradient, weight) if of_x else None,
            product(gradient.mT, x) if of_weight else None,
            gradient.sum(1) if of_bias else None,
        )


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Products of n matrices, each aligned as one alone, plus a bias (n, n_columns)."""
    shape = torch.Size((len(a), a.shape[1], b.shape[2]))
    if 1 in shape[1:] or shape[1:].numel() * a.shape[2] < LEAST_PRODUCT:  # torch has loops of its own for a stack
        out = empty(shape, a)
        for place, part in enumerate(out):
            if bias is None:
                torch.mm(a[place], b[place], out=part)
            else:
                torch.addmm(bias[place], a[place], b[place], out=part)
        return out
    out = None if shape[1:].numel() % ALIGNMENT == 0 else empty(shape, a)
    return torch.bmm(a, b, out=out) if bias is None else torch.baddbmm(bias[:, None], a, b, out=out)


def aligned(x: Tensor) -> Tensor:
    """The same, with the part of each network aligned as a tensor of its own."""
    if x.stride(0) % ALIGNMENT == 0 and x.stride(-1) == 1 and x.data_ptr() % (ALIGNMENT * x.element_size()) == 0:
        return x
    return empty(x.shape, x).copy_(x)


def empty(shape: torch.Size, like: Tensor) -> Tensor:
    """A tensor of which each part along the first axis is aligned."""
    size = shape[1:].numel()
    return like.new_empty(shape[0], padded(size))[:, :size].unflatten(1, shape[1:])


def padded(size: int) -> int:
    return math.ceil(size / ALIGNMENT) * ALIGNMENT


STACKED = {
    nn.functional.linear: linear,
    nn.functional.binary_cross_entropy_with_logits: nn.functional.binary_cross_entropy_with_logits,
}
