"""What a plain network computes outside of its modules: followed symbolically, call by call.

A conversion replaces modules. What a ``forward`` calls itself (``F.gelu``, a product of two activations, a parameter
that is added) it cannot replace, but it can find it: ``torch.fx`` runs the forward on symbols, and each call is judged
by whether the network stays linear for a fixed input in explanation mode, up to constants that are recorded.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import fx, nn

from .report import Converted


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names that functions and methods share; a trailing "_" or leading "i" works in place.
_RESHAPING = _names(
    "reshape view flatten unflatten contiguous clone squeeze unsqueeze to float double half bfloat16 type cuda cpu"
    " dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"
)
_LINEAR = _RESHAPING | _names(
    "permute transpose transpose_ swapaxes swapdims movedim moveaxis expand expand_as view_as reshape_as type_as"
    " repeat repeat_interleave tile chunk split tensor_split unbind narrow select getitem index_select gather mean sum"
    " avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample"
    " pixel_shuffle pixel_unshuffle channel_shuffle roll flip rot90 unfold fold cumsum tril triu neg neg_ diagonal"
    " stochastic_depth"
)
_LIKE_ANOTHER = _names("expand_as view_as reshape_as type_as")
_JOINING = _names("add add_ iadd sub sub_ isub cat concat concatenate hstack vstack stack")
_SCALING = _names("mul mul_ imul multiply div div_ truediv itruediv true_divide divide")
_DIVIDING = _names("div div_ truediv itruediv true_divide divide")
_PRODUCTS = _names("matmul bmm mm addmm baddbmm einsum tensordot imatmul linear")
_CONVOLUTIONS = _names("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
_PIECEWISE = _names(
    "relu relu_ leaky_relu leaky_relu_ prelu max_pool1d max_pool2d max_pool3d adaptive_max_pool1d"
    " adaptive_max_pool2d adaptive_max_pool3d abs abs_ amax amin max min maximum minimum"
)
_SHAPE = _names("size dim ndimension numel nelement is_floating_point get_device stride len")
_SHAPE_ATTRIBUTES = _names("shape dtype device ndim is_cuda requires_grad")
_ZEROS = _names("zeros zeros_like new_zeros")
_CHECKS = _names("_assert _assert_is_none")
_AS_MODULES = {
    "gelu": "nn.GELU",
    "silu": "nn.SiLU",
    "silu_": "nn.SiLU",
    "hardswish": "nn.Hardswish",
    "layer_norm": "nn.LayerNorm",
    "group_norm": "nn.GroupNorm",
    "batch_norm": "nn.BatchNorm2d",
    "instance_norm": "nn.InstanceNorm2d",
    "softmax": "nn.MultiheadAttention",
    "scaled_dot_product_attention": "nn.MultiheadAttention",
    "multi_head_attention_forward": "nn.MultiheadAttention",
    **dict.fromkeys(_PRODUCTS, "nn.Linear"),
    **{c: f"nn.Conv{'Transpose' if 'transpose' in c else ''}{c[-2:]}" for c in _CONVOLUTIONS},
}
_BEFORE_FIRST = (nn.Identity, nn.Flatten, nn.modules.dropout._DropoutNd)

Call = tuple[str, str, str]  # operation, target, module whose forward calls


@dataclass
class Followed:
    """What was found out about a network's forward, and its submodules'."""

    first: list[str] | None = None
    """Layers that the input reaches first; None if the forward could not be followed."""
    obstacles: list[Converted] = field(default_factory=list)
    """What the input meets before them that cannot take an encoded one."""
    calls: list[Converted] = field(default_factory=list)
    """Calls that were judged kept or refused, and forwards that could not be followed."""
    constants: set[str] = field(default_factory=set)
    """Parameters and buffers that are added to what depends on the input, or put beside it."""
    factors: set[str] = field(default_factory=set)
    """Parameters and buffers that scale it."""
    seen: set[str] = field(default_factory=set)
    """Modules whose own forward was followed."""
    trace: list[Call] = field(default_factory=list)
    """Of the whole forward, if it could be followed: calls in their order."""


class _Value(NamedTuple):
    """What is known about a symbol: what it depends on."""

    of: Literal["image", "input", "constant"]
    """The image as it came in; what layers made of it; neither."""
    parameters: frozenset[str] = frozenset()
    """A constant that is linear in these parameters."""
    zero: bool = False


_IMAGE, _INPUT, _CONSTANT, _ZERO = _Value("image"), _Value("input"), _Value("constant"), _Value("constant", zero=True)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, is_leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._is_leaf = is_leaf

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._is_leaf(m)


def follow(model: nn.Module, is_leaf: Callable[[nn.Module], bool], is_layer: Callable[[nn.Module], bool]) -> Followed:
    """Follow the forward of a model, or of its parts where the whole cannot be followed.

    Args:
        model: In evaluation mode.
        is_leaf: Whether a module is judged as a whole, by a rule, and its forward not followed.
        is_layer: Whether a module can be the first layer.
    """
    found = Followed()
    if is_leaf(model):
        found.first = [""] if is_layer(model) else []
        return found
    _follow(model, "", is_leaf, is_layer, found)
    return found


def trace(model: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> list[Call] | None:
    """The calls of a model's forward, in their order; None if it cannot be followed."""
    graph = _graph(model, is_leaf)
    return None if isinstance(graph, Exception) else list(_calls(graph))


def _follow(
    module: nn.Module,
    path: str,
    is_leaf: Callable[[nn.Module], bool],
    is_layer: Callable[[nn.Module], bool],
    found: Followed,
) -> None:
    graph = None if isinstance(module, (nn.ModuleList, nn.ModuleDict)) else _graph(module, is_leaf)
    if isinstance(graph, fx.Graph):
        _Judge(module, path, is_leaf, is_layer, found).judge(graph)
        found.seen |= {join(path, name) for name, _ in module.named_modules()}
        if not path:
            found.trace = list(_calls(graph))
        return
    if graph is not None:
        reason = f"its forward could not be followed ({_first_line(graph)}); bcos-vision check says if it adds up"
        found.calls.append(Converted(path, type(module).__name__, "kept", "", reason))
    for name, child in module.named_children():
        if not is_leaf(child):
            _follow(child, join(path, name), is_leaf, is_layer, found)


def _graph(module: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> fx.Graph | Exception:
    """The forward's graph for the default of every optional argument, or why there is none."""
    names = set(module.__dict__)
    try:
        parameters = inspect.signature(module.forward).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return _Tracer(is_leaf).trace(module, defaults)
    except Exception as error:  # whatever a forward does to symbols
        return error
    finally:
        for name in set(module.__dict__) - names:  # constants of the graph
            del module.__dict__[name]


def _calls(graph: fx.Graph) -> Iterator[Call]:
    for node in graph.nodes:
        if node.op in ("call_module", "call_function", "call_method"):
            yield node.op, _name(node), _owner(node)


class _Judge:
    """Goes through a graph and writes down what each call is to a conversion."""

    def __init__(
        self,
        root: nn.Module,
        path: str,
        is_leaf: Callable[[nn.Module], bool],
        is_layer: Callable[[nn.Module], bool],
        found: Followed,
    ) -> None:
        self._root, self._path, self._is_leaf, self._is_layer, self._found = root, path, is_leaf, is_layer, found
        self._values: dict[fx.Node, _Value] = {}
        self._layers: list[str] = []

    def judge(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            self._values[node] = self._value(node)
        if self._path:
            return
        self._found.first = list(dict.fromkeys(self._layers))
        calls = [node.target for node in graph.nodes if node.op == "call_module"]
        for layer in self._found.first:
            if calls.count(layer) != self._layers.count(layer):
                self._obstacle(layer, type(self._root.get_submodule(layer)).__name__, "it is used again further on")

    def _value(self, node: fx.Node) -> _Value:
        if node.op == "placeholder":
            return _CONSTANT if node.args else _INPUT if self._path else _IMAGE
        if node.op == "get_attr":
            return self._attribute(node)
        inputs = [self._values[n] for n in node.all_input_nodes]
        if any(value.of == "image" for value in inputs):
            return self._on_image(node)
        if not any(value.of == "input" for value in inputs):
            return self._on_constants(node, inputs)
        return self._on_input(node) if node.op.startswith("call_f") or node.op == "call_method" else _INPUT

    def _attribute(self, node: fx.Node) -> _Value:
        owner, _, name = str(node.target).rpartition(".")
        module = self._root.get_submodule(owner)
        if name not in {**module._parameters, **module._buffers}:  # a tensor that the forward made
            return _CONSTANT
        if self._is_leaf(module):
            self._refuse(node, str(node.target), "it is read from outside of its module, which a conversion replaces")
            return _CONSTANT
        return _Value("constant", frozenset([join(self._path, str(node.target))]))

    def _on_image(self, node: fx.Node) -> _Value:
        """Before the first layer: what keeps the channels, which the encoding doubles, as they come."""
        name = _name(node)
        if node.op == "call_module":
            module = self._root.get_submodule(name)
            if self._is_layer(module):
                self._layers.append(name)
                return _INPUT
            if not isinstance(module, _BEFORE_FIRST):
                self._obstacle(name, type(module).__name__)
                return _INPUT
            return _IMAGE
        if name in _CHECKS or _asks_shape(node, name):
            return _CONSTANT
        if name in _ZEROS:
            return _ZERO
        if name in _RESHAPING:
            return _IMAGE
        self._obstacle(_owner(node), "output" if node.op == "output" else f"{name}()")
        return _INPUT

    def _on_constants(self, node: fx.Node, inputs: list[_Value]) -> _Value:
        name = _name(node)
        if name in _ZEROS:
            return _ZERO
        parameters = frozenset[str]().union(*(value.parameters for value in inputs))
        opaque = any(not value.parameters for value in inputs if not value.zero)
        linear = name in _LINEAR or (name in _JOINING and not opaque and not any(map(_nonzero, node.args)))
        scaled = name in _SCALING and sum(bool(value.parameters) for value in inputs) == 1
        if node.op == "call_module" or not (linear or scaled):
            return _CONSTANT
        if scaled and name in _DIVIDING and not self._parameters_of(node.args[0]):
            return _CONSTANT
        return _Value("constant", parameters)

    def _on_input(self, node: fx.Node) -> _Value:
        name = _name(node)
        of_input = [
            a for a in _flat(node.args, node.kwargs) if isinstance(a, fx.Node) and self._values[a].of == "input"
        ]
        constants = [
            a for a in _flat(node.args, node.kwargs) if isinstance(a, fx.Node) and self._values[a].of == "constant"
        ]
        first = node.args[0] if node.args else None
        if name in _CHECKS or _asks_shape(node, name):
            return _CONSTANT
        if name in _ZEROS:
            return _ZERO
        if name in _LIKE_ANOTHER and isinstance(first, fx.Node) and self._values[first].of == "constant":
            return self._values[first]
        if name in _JOINING:
            return self._joined(node, name, constants)
        if name in _SCALING:
            if len(of_input) > 1 or (name in _DIVIDING and first is not of_input[0]):
                what = "a product" if name not in _DIVIDING else "a quotient"
                return self._refuse(node, name, f"{what} of two tensors that both depend on the input is not linear")
            for constant in constants:
                self._found.factors |= self._values[constant].parameters
            return _INPUT
        if name in _LINEAR or (name in ("getattr",) and node.args[1] in ("T", "mT", "H")) or name == "t":
            return _INPUT
        if name == "pad":
            mode, value = (_argument(node, index, key) for index, key in ((2, "mode"), (3, "value")))
            if mode in (None, "constant") and value not in (None, 0):
                return self._refuse(node, name, "it pads with a constant that no explanation records")
            return _INPUT
        if name in ("clamp", "clamp_", "clamp_min", "clamp_min_") and _is_relu(node, name):
            return self._keep(node, name, "piecewise linear")
        if name in _PIECEWISE and all(self._values[a].zero for a in constants if name in ("maximum", "minimum")):
            return self._keep(node, name, "piecewise linear" + ("; not averaged" if "max_pool" in name else ""))
        if (module := _AS_MODULES.get(name)) is not None:
            return self._refuse(node, name, f"a conversion replaces modules alone: make it one, {module}")
        if name in ("detach", "detach_"):
            return self._refuse(node, name, "it hides what depends on the input from the explanation")
        return self._refuse(node, name, "not known to be linear in explanation mode")

    def _joined(self, node: fx.Node, name: str, constants: list[fx.Node]) -> _Value:
        """A sum or a row of tensors: constants among them must be zero, or parameters, which can be recorded."""
        if name not in ("cat", "concat", "concatenate", "hstack", "vstack", "stack") and any(map(_nonzero, node.args)):
            return self._refuse(node, name, "it adds a number that no explanation records")
        for constant in constants:
            value = self._values[constant]
            if not (value.zero or value.parameters):
                return self._refuse(node, name, "it adds a constant, not a parameter, that no explanation records")
            self._found.constants |= value.parameters
        return _INPUT

    def _parameters_of(self, argument: object) -> frozenset[str]:
        return self._values[argument].parameters if isinstance(argument, fx.Node) else frozenset()

    def _keep(self, node: fx.Node, name: str, reason: str) -> _Value:
        self._found.calls.append(Converted(join(self._path, _owner(node)), f"{name}()", "kept", "", reason))
        return _INPUT

    def _refuse(self, node: fx.Node, name: str, reason: str) -> _Value:
        self._found.calls.append(Converted(join(self._path, _owner(node)), f"{name}()", "refused", "", reason))
        return _INPUT

    def _obstacle(self, path: str, kind: str, reason: str = "") -> None:
        reason = reason or "it stands before the first layer, where the encoding [x, 1-x] doubles the channels"
        self._found.obstacles.append(Converted(path, kind, "refused", "", reason))


def _name(node: fx.Node) -> str:
    if node.op in ("call_method", "call_module", "output"):
        return str(node.target)
    return getattr(node.target, "__name__", str(node.target))


def _owner(node: fx.Node) -> str:
    """Path of the module whose forward makes the call."""
    stack = [entry[0] for entry in (node.meta.get("nn_module_stack") or {}).values()]
    if node.op == "call_module" and stack:
        stack.pop()  # the module that is called
    return stack[-1] if stack else ""


def _asks_shape(node: fx.Node, name: str) -> bool:
    return name in _SHAPE or (name == "getattr" and node.args[1] in _SHAPE_ATTRIBUTES)


def _is_relu(node: fx.Node, name: str) -> bool:
    low, high = _argument(node, 1, "min"), _argument(node, 2, "max")
    return low == 0 and (high is None or "min" in name)


def _argument(node: fx.Node, index: int, key: str) -> object:
    return node.args[index] if len(node.args) > index else node.kwargs.get(key)


def _nonzero(argument: object) -> bool:
    return isinstance(argument, (int, float, complex)) and argument != 0


def _flat(args: object, kwargs: object = None) -> Iterator[object]:
    """The arguments of a call, lists and dictionaries opened, each as often as it is there."""
    for argument in (args, kwargs):
        if isinstance(argument, (list, tuple)):
            for item in argument:
                yield from _flat(item)
        elif isinstance(argument, dict):
            yield from _flat(list(argument.values()))
        elif argument is not None:
            yield argument


def join(path: str, name: str) -> str:
    """The path of a part in what has the path."""
    return f"{path}.{name}" if path and name else path or name


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).rstrip(".")
