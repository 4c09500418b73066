"""What captum's rules trip on, repaired on a copy.

DeepLIFT and guided backpropagation act on modules, by hooks: a ReLU that is a function escapes them, one that is used
twice confuses them, one that works in place spoils what they keep. The copy has a module of its own for each use.
Two more of captum's (0.9) troubles are DeepLIFT's: where a pooling follows a ReLU at once, both have hooks on the same
tensor and the ReLU's sees a gradient that the pooling's has not changed yet; and of windows that overlap, the rule for
max pooling keeps one where several chose the same pixel. The copy passes clones, and lays such windows side by side.
What is no module that DeepLIFT knows a rule for (a GELU, a B-cos layer's scale) is left, and keeps its gradient.
"""

import copy
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from bcos_core.nn import GELU, SelfAttention
from bcos_core.nn.detachable import Detachable
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.node import Argument
from torch.overrides import TorchFunctionMode

_RULED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.ReLU: ("relu", "relu_"),
    nn.MaxPool1d: ("max_pool1d",),
    nn.MaxPool2d: ("max_pool2d",),
    nn.MaxPool3d: ("max_pool3d",),
    nn.ELU: ("elu", "elu_"),
    nn.LeakyReLU: ("leaky_relu", "leaky_relu_"),
    nn.Sigmoid: ("sigmoid", "sigmoid_"),
    nn.Tanh: ("tanh", "tanh_"),
    nn.Softplus: ("softplus",),
    nn.Softmax: ("softmax",),
}
"""Modules that DeepLIFT has rules for, and the functions that compute the same."""
_REPLACED = (nn.ReLU, nn.MaxPool2d)
"""Those whose functions are made modules."""
_WITHOUT_RULE = (
    *("gelu", "silu", "silu_", "mish", "relu6", "hardswish", "hardsigmoid", "hardtanh", "selu", "celu"),
    *("layer_norm", "group_norm", "scaled_dot_product_attention", "multi_head_attention_forward"),
)


@dataclass(frozen=True)
class PreflightReport:
    """What was changed in the copy, and what could not be."""

    repaired: tuple[str, ...] = ()
    """Changes, in words."""
    unrepaired: tuple[str, ...] = ()
    """What the rules would get wrong, in words; empty where the copy is sound."""
    kept: tuple[str, ...] = ()
    """Non-linearities that are known to have no rule and keep their gradient: there DeepLIFT does not add up."""


def preflight(network: nn.Module, encoded: Float[Tensor, "n c h w"]) -> tuple[nn.Module, PreflightReport]:
    """A copy of a network that captum's hooks can work on; it gives bit-identical logits.

    Functions and modules used twice are found by running the network, and replaced with :mod:`torch.fx`, where it can
    be traced. Whether that succeeded is found by running the copy.

    Args:
        network: In evaluation mode. It is not changed.
        encoded: Inputs to run it on.

    Returns:
        The copy, and what was done.

    Example:
        >>> relu = nn.ReLU(inplace=True)
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), relu, nn.Conv2d(2, 2, 1), relu, nn.Flatten())
        >>> preflight(network.eval(), torch.rand(1, 1, 2, 2))[1].repaired
        ('1 module works out of place', '1 was used more than once: a module for each use')
    """
    found = copy.deepcopy(network)
    repaired: list[str] = []
    if changed := [m for m in found.modules() if getattr(m, "inplace", None) is True]:
        for module in changed:
            module.inplace = False  # type: ignore[assignment] - a plain attribute of activations
        repaired.append(f"{_count(len(changed), 'module works', 'modules work')} out of place")
    uses = _observe(found, encoded)
    unrepaired: list[str] = []
    if uses.reused or uses.functions:
        try:
            found = _rewrite(found)
        except Exception as error:  # whatever tracing of code that is not traceable raises
            unrepaired.append(f"torch.fx cannot trace it ({type(error).__name__}: {_first_line(error)})")
        after = _observe(found, encoded)
        if again := len(uses.reused) - len(after.reused):
            repaired.append(f"{_count(again, 'was', 'were')} used more than once: a module for each use")
        mended = uses.functions - after.functions
        repaired += [f"{_count(n, f'call of {name}', f'calls of {name}')} made modules" for name, n in mended.items()]
        uses = after
    if overlapping := [n for n, m in found.named_modules() if type(m) is nn.MaxPool2d and _overlaps(m)]:
        for name in overlapping:
            found.set_submodule(name, _SeparateWindows(found.get_submodule(name)))
        repaired.append(f"windows of {_count(len(overlapping), 'pooling', 'poolings')} laid side by side")
    for module in found.modules():
        if type(module) in _RULED:
            module.register_forward_pre_hook(lambda _module, args: tuple(x.clone() for x in args))
    unrepaired += [f"module {name} is used more than once" for name in uses.reused]
    unrepaired += [f"{name} is a function, {count} times" for name, count in uses.functions.items()]
    with torch.no_grad():
        if not torch.equal(found(encoded), network(encoded)):
            unrepaired.append("what works in place changes values that are used again")
    return found, PreflightReport(tuple(repaired), tuple(unrepaired), uses.kept)


@dataclass(frozen=True)
class _Uses:
    reused: tuple[str, ...]
    functions: Counter[str]
    """Calls of functions that should be modules."""
    kept: tuple[str, ...]


class _Calls(TorchFunctionMode):
    """Counts the functions that are called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        self.counts[getattr(func, "__name__", "")] += 1
        return func(*args, **(kwargs or {}))


def _observe(network: nn.Module, encoded: Tensor) -> _Uses:
    """Run a network and see what it uses."""
    names = {module: name for name, module in network.named_modules() if type(module) in _RULED}
    used: Counter[nn.Module] = Counter()
    handles = [m.register_forward_pre_hook(lambda m, _args: used.update([m])) for m in names]
    try:
        with torch.no_grad(), _Calls() as calls:
            network(encoded)
    finally:
        for handle in handles:
            handle.remove()
    functions: Counter[str] = Counter()
    kept = Counter({name: calls.counts[name] for name in _WITHOUT_RULE if calls.counts[name]})
    for kind, own in _RULED.items():
        # a module calls its function, too
        count = sum(calls.counts[name] for name in own) - sum(n for m, n in used.items() if type(m) is kind)
        (functions if kind in _REPLACED else kept)[own[0]] += count
    called = (GELU, SelfAttention)  # whose functions are among those without a rule
    kept.update(type(m).__name__ for m in network.modules() if isinstance(m, Detachable) and not isinstance(m, called))
    return _Uses(
        tuple(names[m] for m, n in used.items() if n > 1),
        +functions,  # those above zero
        tuple(f"{count} {name}" for name, count in kept.items() if count),
    )


class _SeparateWindows(nn.Module):
    """Max pooling whose windows do not overlap: first they are laid side by side."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self._size, self._stride, self._padding = (
            _pair(getattr(pool, a)) for a in ("kernel_size", "stride", "padding")
        )
        self._ceil = bool(pool.ceil_mode)
        self.pool = nn.MaxPool1d(self._size[0] * self._size[1])

    def forward(self, x: Tensor) -> Tensor:
        shape = F.max_pool2d(x.detach(), self._size, self._stride, self._padding, ceil_mode=self._ceil).shape
        sides = []
        for k in (1, 0):  # the last dimension first
            end = (shape[2 + k] - 1) * self._stride[k] + self._size[k] - self._padding[k] - x.shape[2 + k]
            sides += [self._padding[k], end]
        padded = F.pad(x, sides, value=torch.finfo(x.dtype).min)
        windows = padded.unfold(2, self._size[0], self._stride[0]).unfold(3, self._size[1], self._stride[1])
        return self.pool(windows.flatten(4).flatten(1, 3)).view(shape)


def _overlaps(pool: nn.Module) -> bool:
    sizes, strides = _pair(pool.kernel_size), _pair(pool.stride)
    return _pair(pool.dilation) == (1, 1) and any(k > s for k, s in zip(sizes, strides, strict=True))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or type(m).__module__.startswith("bcos_core.nn")


def _rewrite(network: nn.Module) -> nn.Module:
    """The network as a graph in which each ReLU and max pooling is a module of its own."""
    graph = _Tracer().trace(network)
    traced = fx.GraphModule(network, graph)
    seen: set[nn.Module] = set()
    for number, node in enumerate(list(graph.nodes)):
        own = _as_module(node, traced, seen)
        if own is not None:
            name = f"preflight_{number}"
            traced.add_submodule(name, own)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_module(name, (_input(node),)))
            graph.erase_node(node)
    traced.recompile()
    return traced.eval()


def _as_module(node: fx.Node, traced: fx.GraphModule, seen: set[nn.Module]) -> nn.Module | None:
    """A new module for what a node does; None where it may stay."""
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        again = type(module) in _RULED and module in seen
        seen.add(module)
        return copy.deepcopy(module) if again else None
    if node.op not in ("call_function", "call_method"):
        return None
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in _RULED[nn.ReLU]:
        return nn.ReLU()
    if name in _RULED[nn.MaxPool2d]:
        given = _POOL.bind(*node.args, **node.kwargs).arguments
        given.pop("input")
        return None if given.get("return_indices") else nn.MaxPool2d(**given)
    return None


_POOL = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, default in (
            ("input", inspect.Parameter.empty),
            ("kernel_size", inspect.Parameter.empty),
            ("stride", None),
            ("padding", 0),
            ("dilation", 1),
            ("ceil_mode", False),
            ("return_indices", False),
        )
    ]
)
"""Of ``torch.nn.functional.max_pool2d``, which has none of its own."""


def _input(node: fx.Node) -> Argument:
    return node.args[0] if node.args else node.kwargs["input"]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
