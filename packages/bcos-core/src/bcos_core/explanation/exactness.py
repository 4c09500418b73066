"""Completeness as a lint: which module of a network breaks the exactness of its explanations, and by how much.

A module's own forward, without the modules that it calls, leads from tensors z (its inputs and their answers) to
tensors y (its answer and their inputs). It is exact at z if J z + c = y, with J its Jacobian in explanation mode and c
the constants that are recorded (:mod:`.offset`). The rest, J z + c - y, is what an explanation lacks: the completeness
error of the whole is the sum of these rests, each led on to the logit. So a rest is the fault of one module, and not
that of the modules around it or of those that it calls.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.modules.batchnorm import _NormBase

from .contribution import as_encoding
from .mode import evaluating, exact_arithmetic, explanation_mode, uncompiled
from .offset import Offsets, recorded_offsets

THRESHOLDS = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Largest error of a module that counts as exact; rounding alone gives some 1e-7 and 1e-15."""

_PROBES = 3
_ROUNDING = 100  # units in the last place of the terms of a sum that rounding may amount to

_NOT_DETACHED = (nn.GELU, nn.SiLU, nn.Hardswish, nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention)
_NOT_LINEAR = (nn.Sigmoid, nn.Tanh, nn.ReLU6, nn.Hardsigmoid, nn.Hardtanh, nn.Softmax, nn.Softmax2d, nn.LogSoftmax)


@dataclass(frozen=True)
class ModuleExactness:
    """Whether one module is exact while it explains."""

    path: str
    """In the model, "" for the model itself."""
    kind: str
    """Of the module."""
    error: float
    """|J z + c - y| / |y| of its own forward, estimated by random probes: the largest of all its calls and tensors."""
    state: Literal["exact", "breaks", "constant", "silent"]
    """``constant``: no gradient leads on from it, so that an explanation takes what it answers for a constant;
    ``silent``: it answered zeros alone, of which nothing can be seen."""
    reason: str
    """How it is likely broken, or what else its state says; "" if exact."""

    @property
    def breaks(self) -> bool:
        """Whether it is at fault."""
        return self.state == "breaks"


def check_exactness(
    model: nn.Module, x: Tensor, *, threshold: float | None = None, seed: int = 0
) -> tuple[ModuleExactness, ...]:
    """Check every module that a forward pass calls: does what it adds to an explanation add up?

    One forward pass in explanation mode, as :func:`bcos_core.explain` makes it, and for each tensor that passes from
    module to module three probes u of random signs: the error is |⟨Jᵀu, z⟩ + ⟨u, c⟩ - ⟨u, y⟩| / |y|, the largest of
    the three. Exactness at x is what is asked, J z + c = y, and not linearity: a maximum or a norm passes, and a ReLU6
    until it saturates. Two modules whose errors happen to cancel (a power, and later its root) are both named. An error
    above the threshold passes where rounding explains it: where J z and c are large and all but cancel in y.

    The model is left as it was: training flags, ``requires_grad``, ``.grad``, statistics, and the states of torch's
    random generators.

    Args:
        model: Any module.
        x: Inputs, shape (N, ...), float32 or float64; one or two that look like data are enough. Where the model
            encodes (``model.encode``), ``model.network`` is checked on the encoded inputs.
        threshold: Largest error of an exact module; by default that of :data:`THRESHOLDS`.
        seed: Of the probes.

    Returns:
        One entry for each module that was called, in the order of ``model.named_modules()``.

    Raises:
        ValueError: If x is no batch of float32 or float64, the threshold is not positive, or the output does not
            depend on x.

    Example:
        >>> from bcos_core.nn import BcosLinear
        >>> model = nn.Sequential(BcosLinear(8, 8), nn.Sigmoid(), BcosLinear(8, 3))
        >>> [(found.path, found.kind) for found in check_exactness(model, torch.rand(2, 8)) if found.breaks]
        [('1', 'Sigmoid')]
    """
    if not isinstance(x, Tensor) or x.dim() < 2 or x.dtype not in THRESHOLDS:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x: expected a float32 or float64 batch of shape (N, ...), got {got}")
    threshold = THRESHOLDS[x.dtype] if threshold is None else threshold
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold: expected a positive number, got {threshold}")
    model = uncompiled(model)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.random.fork_rng(sorted({t.device.index for t in (x, *model.parameters()) if t.is_cuda})),
        evaluating(model),
        exact_arithmetic(),
        explanation_mode(model),
        _frozen(model),
    ):
        x = x.detach().clone()
        encoding = as_encoding(model, x)
        encoded, network = (x, model) if encoding is None else (encoding.encode(x), encoding.network)
        inputs = encoded.detach().requires_grad_()
        with recorded_offsets(network) as offsets, _Recorder(offsets, threshold, seed).attached(network) as recorder:
            output = network(inputs.clone())
        live = recorder.live_edges(output)
        if not live:
            raise ValueError("model: its output does not depend on x (was it computed under no_grad?)")
        own: dict[nn.Module | None, list[_Edge]] = {}
        for edge in recorder.edges:
            own.setdefault(edge.owner, []).append(edge)
        paths = {module: path for path, module in network.named_modules(prefix="network")}
        paths |= {module: path for path, module in model.named_modules()}
        return tuple(
            _judge(module, path, own.get(module, []), live, calls_others=module in recorder.composites)
            for module, path in paths.items()
            if module in recorder.called
        )


def _judge(
    module: nn.Module, path: str, edges: list["_Edge"], live: set[int], *, calls_others: bool
) -> ModuleExactness:
    counted = [edge for edge in edges if edge.number in live]
    error = max((edge.error for edge in counted or edges), default=0.0)
    state, reason = "exact", ""
    if not counted:
        state, reason = "constant", "a constant for the explanation: no gradient leads through it to the output"
    elif any(edge.breaks for edge in counted):
        state, reason = "breaks", _likely_reason(module, calls_others=calls_others)
    elif not any(edge.size for edge in counted):
        state, reason = "silent", "answered zeros alone, of which nothing can be seen"
    return ModuleExactness(path, type(module).__name__, error, state, reason)


def _likely_reason(module: nn.Module, *, calls_others: bool) -> str:
    if isinstance(module, _NOT_DETACHED):
        return "not detached: bcos_core.bcosify replaces it"
    if isinstance(module, _NOT_LINEAR):
        return "not linear, and nothing that explanations follow stands for it: take a ReLU or a GELU"
    if isinstance(module, _NormBase) and module.running_mean is None:
        return "keeps no statistics: takes those of its input, and does not detach them"
    if not calls_others:
        return "not affine in its input while explained, or adds a constant that no rule records"
    return "its own forward: a functional activation, a product of activations, or a constant added"


@dataclass
class _Edge:
    """A tensor on its way from one module's forward to another's: where the graph was cut."""

    number: int
    owner: nn.Module | None
    """Whose forward computed it; None for the inputs of the whole."""
    leaf: Tensor
    """With which the graph of the other forward begins."""
    origins: set[int] = field(default_factory=set)
    """Numbers of the edges from whose leaves a gradient leads here."""
    size: float = 0.0
    """|y|."""
    error: float = 0.0
    breaks: bool = False


@dataclass
class _Call:
    """One call of a module."""

    module: nn.Module | None
    computed: list[tuple[_Edge, GradientEdge]] = field(default_factory=list)
    """By its own forward, and where in its graph."""
    offsets: Offsets = field(default_factory=Offsets)
    """That its own forward added."""


class _Recorder:
    """Cuts the graph wherever a tensor enters or leaves a module, and checks each call as soon as it is over.

    A tensor from which no gradient leads back is not cut: it is a constant. Nor is one inside an object of a kind that
    :func:`_map_tensors` does not know: its graph goes on, and is checked as a part of what is made of it.
    """

    def __init__(self, offsets: Offsets, threshold: float, seed: int) -> None:
        self.edges: list[_Edge] = []
        self.called: set[nn.Module] = set()
        self.composites: set[nn.Module | None] = set()
        self._offsets = offsets
        self._threshold = threshold
        self._random = torch.Generator().manual_seed(seed)
        self._calls = [_Call(None)]
        self._leaves: dict[int, int] = {}  # id of a leaf, which its edge keeps alive, to the edge's number

    @contextmanager
    def attached(self, network: nn.Module) -> Iterator["_Recorder"]:
        """Watch the calls of a network's modules while the context is open."""
        with ExitStack() as handles:
            for module in network.modules():
                before = module.register_forward_pre_hook(self._enter, with_kwargs=True)
                after = module.register_forward_hook(self._leave)
                handles.callback(before.remove)
                handles.callback(after.remove)
            yield self

    def live_edges(self, output: Any) -> set[int]:
        """Numbers of the edges from which a gradient leads on to the output."""
        found: list[int] = []
        _map_tensors(lambda t: found.extend(self._reached(get_gradient_edge(t)) if t.requires_grad else ()), output)
        live: set[int] = set()
        while found:
            if (number := found.pop()) not in live:
                live.add(number)
                found.extend(self.edges[number].origins)
        return live

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        caller, known = self._calls[-1], len(self.edges)
        self.called.add(module)
        self.composites.add(caller.module)
        args, kwargs = self._cut((args, kwargs), caller)
        # what a module makes of constants alone is its caller's doing, with the offsets that it adds
        self._calls.append(_Call(module) if len(self.edges) > known else caller)
        return args, kwargs

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        call = self._calls.pop()
        if call is self._calls[-1]:
            return output
        output = self._cut(output, call)
        for edge, source in call.computed:
            self._check(edge, source, call.offsets)
        return output

    def _cut(self, value: Any, call: _Call) -> Any:
        """The value with other tensors of the same numbers, leaves, in the place of those that ``call`` computed."""
        call.offsets.outputs.extend(self._offsets.outputs)  # those since the last cut
        call.offsets.constants.extend(self._offsets.constants)
        self._offsets.outputs.clear()
        self._offsets.constants.clear()
        passed: dict[int, Tensor] = {}  # query and key, say, may be one tensor, and a module may ask whether they are

        def cut(t: Tensor) -> Tensor:
            if not t.requires_grad:
                return t
            if id(t) not in passed:
                leaf = t.detach().clone().requires_grad_()
                edge = _Edge(len(self.edges), call.module, leaf)
                self._leaves[id(leaf)] = edge.number
                self.edges.append(edge)
                call.computed.append((edge, get_gradient_edge(t)))
                passed[id(t)] = leaf.clone()  # on which a module may work in place
            return passed[id(t)]

        return _map_tensors(cut, value)

    def _check(self, edge: _Edge, source: GradientEdge, offsets: Offsets) -> None:
        edge.origins = self._reached(source)
        leaves = [self.edges[i].leaf for i in sorted(edge.origins)]
        inputs, values = [*leaves, *offsets.outputs], [*leaves, *offsets.constants]
        y = _real(edge.leaf)
        edge.size = float(y.norm())
        numbers = torch.finfo(edge.leaf.dtype)
        # numbers below this have lost digits to underflow
        scale = max(edge.size, numbers.tiny / numbers.eps * y.numel() ** 0.5)
        for _ in range(_PROBES):
            u = torch.randint(2, y.shape, generator=self._random).to(y).mul_(2).sub_(1)
            probe = (torch.view_as_complex(u) if edge.leaf.is_complex() else u).to(edge.leaf)
            gradients = torch.autograd.grad(source, inputs, probe, retain_graph=True, allow_unused=True)
            terms = [_real(g) * _real(value) for g, value in zip(gradients, values, strict=True) if g is not None]
            rest = abs(float(sum(term.sum() for term in terms) - (u * y).sum()))
            rounding = _ROUNDING * numbers.eps * math.hypot(*(float(term.norm()) for term in terms))
            error = rest / scale if math.isfinite(rest) else math.inf
            edge.error = max(edge.error, error)
            edge.breaks |= error > max(self._threshold, rounding / scale) or error == math.inf

    def _reached(self, source: GradientEdge) -> set[int]:
        """Numbers of the edges at whose leaves the graph behind a tensor ends."""
        found: set[int] = set()
        seen: set[Node] = {source.node}
        ahead = [source.node]
        while ahead:
            node = ahead.pop()
            number = self._leaves.get(id(getattr(node, "variable", None)))  # a leaf's node has it
            if number is not None:
                found.add(number)
            following = [n for n, _ in node.next_functions if n is not None and n not in seen]
            seen.update(following)
            ahead.extend(following)
        return found


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Parameters without gradients while the context is open: what requires one then depends on the inputs."""
    found = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in found:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in found:
            parameter.requires_grad_(True)


def _real(t: Tensor) -> Tensor:
    """The numbers of a tensor in float64, detached; of complex ones real and imaginary part."""
    t = t.detach()
    return (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t).double()


def _map_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """The value with every tensor in its tuples, lists, dictionaries and dataclasses changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        items = [_map_tensors(change, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_map_tensors(change, item) for item in value]
    if isinstance(value, dict):
        changed = copy.copy(value)  # of whatever kind
        for key, item in value.items():
            changed[key] = _map_tensors(change, item)
        return changed
    if is_dataclass(value) and not isinstance(value, type):
        changed = copy.copy(value)
        for part in fields(value):
            object.__setattr__(changed, part.name, _map_tensors(change, getattr(value, part.name)))  # frozen or not
        return changed
    return value
