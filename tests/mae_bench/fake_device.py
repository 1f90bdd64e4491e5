"""A device that computes on the CPU and notes what would make the host wait for a GPU.

Its tensors say that they are elsewhere (on "meta", which autograd runs in the calling thread), and
hold a CPU tensor each, so that every operation has real values.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten.unique_dim,
    aten._unique2,
    aten.unique_consecutive,
    aten.bincount,
    torch.ops.torchvision.nms,
}
"""operations of which the host needs a number: an element, or the size of what they give"""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Elsewhere(Tensor):
    """A tensor of the fake device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=DEVICE, requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        raise AssertionError(f"{func} outside of the fake device")


def there(value: Any) -> bool:
    return isinstance(value, Elsewhere)


def tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, tree)
    return found


class FakeDevice(TorchDispatchMode):
    """While open, the device is there; `waits` says what made the host wait for it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.calls = Calls(self)

    def __enter__(self) -> "FakeDevice":
        self.calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.calls.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[override]
        kwargs = dict(kwargs or {})
        given = tensors((args, kwargs))
        target = kwargs.get("device")
        name = func.overloadpacket
        if name is aten._to_copy or name is aten.copy_:
            return self.copied(func, args, kwargs)
        at_device = any(map(there, given)) or (target is not None and target.type == DEVICE.type)
        if not at_device:
            return func(*args, **kwargs)
        self.refuse_mixture(func, given)
        waits = name in WAITING or masked(name, args) or counts_itself(func, kwargs)
        if waits or places_numbers(func, given):
            self.waits.append(str(name))
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        return self.carried_out(func, args, kwargs)

    def carried_out(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operation on what the tensors hold; what it changes in place stays what it is."""
        owners = {id(each.inner): each for each in tensors((args, kwargs)) if there(each)}
        inside = tree_map(lambda x: x.inner if there(x) else x, (args, kwargs))
        found = func(*inside[0], **inside[1])

        def outside(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return owners[id(value)] if id(value) in owners else Elsewhere(value)

        return tree_map(outside, found)

    def copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        """To the device, from it, or neither; it waits unless it is told not to."""
        if func.overloadpacket is aten.copy_:
            into, source, *flags = args
            crosses = there(into) != there(source)
            patient = not (flags and flags[0]) and not kwargs.get("non_blocking")
            self.waits += ["copy_ between devices"] * (crosses and patient)
            result = func(
                into.inner if there(into) else into,
                source.inner if there(source) else source, *flags, **kwargs,
            )  # fmt: skip
            return into if there(into) else result
        (source,) = args
        target = kwargs.get("device")
        ends_there = there(source) if target is None else target.type == DEVICE.type
        if ends_there != there(source) and not kwargs.get("non_blocking"):
            self.waits.append("copy " + ("to" if ends_there else "from") + " the device")
        if target is not None and ends_there:
            kwargs["device"] = torch.device("cpu")
        found = func(source.inner if there(source) else source, **kwargs)
        return Elsewhere(found) if ends_there else found

    def refuse_mixture(self, func: Any, given: list[Tensor]) -> None:
        """As a GPU does, but for numbers, which travel along, and for indices."""
        host = [x for x in given if not there(x) and x.ndim]
        if host and any(map(there, given)) and func.overloadpacket not in INDEXING:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")


def masked(name: Any, args: Any) -> bool:
    """Whether an index is a mask, whose true elements have to be counted, or lies on the host."""
    if name not in INDEXING:
        return False
    indices = [index for index in args[1] if index is not None]
    if name is aten.index_put_ and len(indices) == 1 and args[2].numel() == 1:
        return False  # torch fills a number in under a mask without counting
    return any(x.dtype in (torch.bool, torch.uint8) or not there(x) for x in indices)


def counts_itself(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether repeats are summed up for the size of the result."""
    return (
        func.overloadpacket is aten.repeat_interleave
        and "Tensor" in func._overloadname
        and kwargs.get("output_size") is None
    )


def places_numbers(func: Any, given: list[Tensor]) -> bool:
    """Whether it copies a number to the device first, as `where` does and arithmetic does not."""
    if func.overloadpacket is not aten.where:
        return False
    return "Scalar" in func._overloadname or not all(map(there, given))


class Calls(TorchFunctionMode):
    """Sees what makes a tensor of Python's numbers at the device, which waits to copy them."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):  # type: ignore[override]
        kwargs = dict(kwargs or {})
        target = kwargs.get("device")
        made = func in (torch.tensor, torch.as_tensor, torch.asarray)
        if made and target is not None and torch.device(target).type == DEVICE.type:
            if not (args and there(args[0])):
                self.device.waits.append(f"{func.__name__} at the device")
            kwargs["device"] = "cpu"
            return Elsewhere(func(*args, **kwargs))
        if func in (Tensor.tolist, Tensor.numpy) and there(args[0]):
            self.device.waits.append(func.__name__)
            return func(args[0].inner, **kwargs)
        return func(*args, **kwargs)
