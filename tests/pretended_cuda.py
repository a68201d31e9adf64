"""A pretended CUDA device: tensors on it have shapes but no values, those on the CPU are real.

An operation on tensors of both devices is an error. Everything for which the host would wait for the device is listed.
There are no backward passes; `without_backward` replaces them.
"""

from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nrcg.rng import keyed_generator

CUDA = torch.device("cuda", 0)
COPIES = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default
READ = torch.ops.aten._local_scalar_dense.default  # `.item()`, `float(…)`, `if tensor:`


class Pretended(TorchDispatchMode):
    """Runs operations of the CPU as usual, those of the device with fake tensors; values that are read are zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.pinned: dict[int, torch.Tensor] = {}  # by address; kept, so that no address is used again

    def __torch_dispatch__(self, operation, _types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if operation.namespace == "aten":
            with self:  # in inference mode, operations arrive that consist of others
                if (result := operation.decompose(*args, **kwargs)) is not NotImplemented:
                    return result
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        pin, device = kwargs.pop("pin_memory", False), torch.device(kwargs.get("device") or "cpu")
        if device.type == "cuda" or any(isinstance(tensor, FakeTensor) for tensor in tensors):
            if operation is READ:
                self.waits.append("value read")
                return 0
            result = operation(*args, **kwargs)
            if operation in COPIES and tensors[-1].device != result.device:
                return self._copied(tensors[-1], result, kwargs.get("non_blocking") or args[2:] == (True,))
            return result
        with unset_fake_temporarily():
            result = operation(*args, **kwargs)
        return self.pin(result) if pin else result

    def _copied(self, source, result, at_once):
        """A copy to a GPU waits, except from pinned memory or of one number; a copy from it always does."""
        if result.device.type == "cuda":
            ready = source.ndim == 0 or source.untyped_storage().data_ptr() in self.pinned
        else:
            ready = False
            with unset_fake_temporarily():
                result = torch.zeros(result.shape, dtype=result.dtype)
        if not (at_once and ready):
            self.waits.append(f"{tuple(source.shape)} from {source.device}")
        return result

    def pin(self, tensor):
        self.pinned[tensor.untyped_storage().data_ptr()] = tensor
        return tensor


@contextmanager
def pretended_cuda(monkeypatch):
    """Inside there is a CUDA device, with generators on the CPU. Yields a list of what the host waited for."""
    with FakeTensorMode(allow_non_fake_inputs=True), Pretended() as mode, monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: mode.pin(tensor))
        patch.setattr(FakeTensor, "tolist", lambda tensor: tensor.cpu().tolist())  # one copy, as of a real tensor
        patch.setattr("nrcg.training.common.keyed_generator", lambda *key, device: keyed_generator(*key))
        yield mode.waits


def without_backward(monkeypatch, *networks):
    """Gradients are zeros: autograd's engine wants a real device."""

    def backward(_loss):
        for weight in [weight for network in networks for weight in network.parameters()]:
            weight.grad = torch.zeros_like(weight)

    monkeypatch.setattr(torch.autograd, "grad", lambda _values, x, **_: (torch.zeros_like(x),))
    monkeypatch.setattr(torch.Tensor, "backward", backward)
