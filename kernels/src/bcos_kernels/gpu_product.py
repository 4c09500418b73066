"""Linear layers and 1x1 convolutions in half precision on a GPU: norm and scale in the product's own loop, in Triton.

Around a library's product a layer with B = 2 moves 2X + 3Y bytes forward and 5X + 5Y backward (X, Y: input, output),
where a plain one moves X + Y and 2X + 2Y: such products are short of bandwidth. Here forward moves X + Y; backward
makes dL/dl of g, y and n where it is needed, and moves 2X + 2Y for x and X + 2Y for the filters.

Which is faster depends on the shape and on the GPU. Where ``torch.backends.cudnn.benchmark`` is on, which says that
algorithms may be chosen by measurement, the first call of a shape times the ways (it waits for the GPU), and later ones
take the fastest. Where it is off, or results have to be deterministic, and while a CUDA graph is captured of a shape
not met before, the compiled kernels serve. ``BCOS_KERNELS_TRITON=0`` keeps to these.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton's kernels take what they are called with; its constants are capital

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import Needs

_ENABLED = os.environ.get("BCOS_KERNELS_TRITON", "1") != "0"
_LONGEST = 16384  # features of a filter, which one program holds
_SPLITS = 64  # parts of the rows, at most, whose filters' gradients are summed one after the other


# ---- The kernels: M rows of K features, N filters ----


@triton.jit
def prepare_kernel(weight, half, length, K, UNIT: tl.constexpr, BLOCK_K: tl.constexpr):
    """Filters in half precision, and their lengths: as they are, or (UNIT) divided by them."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK_K)
    loaded = tl.load(weight + row * K + k, mask=k < K, other=0.0)
    w = loaded.to(tl.float32) if UNIT else loaded.to(half.dtype.element_ty).to(tl.float32)
    largest = tl.max(tl.abs(w), 0)
    largest = tl.where(largest == 0, 1.0, largest)  # squares of what remains neither over- nor underflow
    scaled = w / largest
    squares = tl.sum(scaled * scaled, 0)
    root = tl.sqrt(tl.where(squares == 0, 1.0, squares))
    tl.store(length + row, largest * root)
    tl.store(half + row * K + k, (scaled / root if UNIT else w).to(half.dtype.element_ty), mask=k < K)


@triton.jit
def respond_kernel(
    x, half, length, y, norm, M, N, K, eps,
    UNIT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of y = l |l| / n; the first tile of a row of tiles also writes n."""
    m, n = _neighbours(M, N, BLOCK_M, BLOCK_N)
    rows, filters = m * BLOCK_M + tl.arange(0, BLOCK_M), n * BLOCK_N + tl.arange(0, BLOCK_N)
    response = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    energy = tl.zeros((BLOCK_M,), tl.float32)
    for first in range(0, K, BLOCK_K):
        features = first + tl.arange(0, BLOCK_K)
        x_tile = _load(x, rows, features, M, K)
        response = tl.dot(x_tile, tl.trans(_load(half, filters, features, N, K)), response)
        wide = x_tile.to(tl.float32)
        energy += tl.sum(wide * wide, 1)
    root = tl.sqrt(energy + eps)
    if not UNIT:
        response = response / tl.load(length + filters, mask=filters < N, other=1.0)[None, :]
    _store(y, rows, filters, M, N, response * (tl.abs(response) / root[:, None]))
    if n == 0:
        tl.store(norm + rows, root, mask=rows < M)


@triton.jit
def pull_x_kernel(
    grad, x, half, length, y, norm, grad_x, M, N, K,
    UNIT: tl.constexpr, DETACH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of dL/dx = dL/dl u - x (sum of g y) / n^2."""
    m, k = _neighbours(M, K, BLOCK_M, BLOCK_K)
    rows, features = m * BLOCK_M + tl.arange(0, BLOCK_M), k * BLOCK_K + tl.arange(0, BLOCK_K)
    root = tl.load(norm + rows, mask=rows < M, other=1.0)
    total = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    pull = tl.zeros((BLOCK_M,), tl.float32)
    for first in range(0, N, BLOCK_N):
        filters = first + tl.arange(0, BLOCK_N)
        g = _load(grad, rows, filters, M, N).to(tl.float32)
        value = _load(y, rows, filters, M, N).to(tl.float32)
        slope = _slope(g, value, root, DETACH)
        if not UNIT:
            slope = slope / tl.load(length + filters, mask=filters < N, other=1.0)[None, :]
        total = tl.dot(slope.to(half.dtype.element_ty), _load(half, filters, features, N, K), total)
        if not DETACH:
            pull += tl.sum(g * value, 1)
    if not DETACH:
        total -= _load(x, rows, features, M, K).to(tl.float32) * (pull / (root * root))[:, None]
    _store(grad_x, rows, features, M, K, total)


@triton.jit
def pull_filters_kernel(
    grad, x, y, norm, parts, M, N, K, rows_of_part,
    DETACH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of dL/du, the sum over one part of the rows."""
    n, k = _neighbours(N, K, BLOCK_N, BLOCK_K)
    part = tl.program_id(1)
    filters, features = n * BLOCK_N + tl.arange(0, BLOCK_N), k * BLOCK_K + tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    start = part * rows_of_part
    end = tl.minimum(start + rows_of_part, M)
    for first in range(start, end, BLOCK_M):
        rows = first + tl.arange(0, BLOCK_M)
        root = tl.load(norm + rows, mask=rows < end, other=1.0)
        g = _load(grad, rows, filters, end, N).to(tl.float32)
        slope = _slope(g, _load(y, rows, filters, end, N).to(tl.float32), root, DETACH)
        x_tile = _load(x, rows, features, end, K)
        total = tl.dot(tl.trans(slope.to(x_tile.dtype)), x_tile, total)
    _store(parts + part.to(tl.int64) * N * K, filters, features, N, K, total)


@triton.jit
def project_kernel(parts, weight, length, half, grad_weight, N, K, count, UNIT: tl.constexpr, BLOCK_K: tl.constexpr):
    """dL/dw = (dL/du - u (u . dL/du)) / |w|, from the parts of dL/du in their order; none for a filter of zeros."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_K,), tl.float32)
    for part in range(count):
        total += tl.load(parts + (part * N.to(tl.int64) + row) * K + k, mask=k < K, other=0.0)
    root = tl.load(length + row)
    w = tl.load((weight if UNIT else half) + row * K + k, mask=k < K, other=0.0).to(tl.float32)
    unit = w / root
    across = (total - unit * tl.sum(unit * total, 0)) / root
    across = tl.where(tl.max(tl.abs(w), 0) == 0, 0.0, across)
    tl.store(grad_weight + row * K + k, across.to(grad_weight.dtype.element_ty), mask=k < K)


@triton.jit
def _slope(g, value, root, DETACH: tl.constexpr):
    """dL/dl: g c, and where the scale c is no constant g (c + c)."""
    cosine = tl.sqrt(tl.abs(value) / root[:, None])
    return g * cosine if DETACH else 2.0 * g * cosine


@triton.jit
def _neighbours(R, C, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Numbers of a tile: programs that run together take squares of tiles, and find what they read in the cache."""
    program = tl.program_id(0)
    down, across = tl.cdiv(R, BLOCK_R), tl.cdiv(C, BLOCK_C)
    band = program // (8 * across)
    height = tl.minimum(down - band * 8, 8)
    inside = program % (8 * across)
    return band * 8 + inside % height, inside // height


@triton.jit
def _load(matrix, rows, columns, R, C):
    mask = (rows < R)[:, None] & (columns < C)[None, :]
    return tl.load(matrix + rows.to(tl.int64)[:, None] * C + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _store(matrix, rows, columns, R, C, value):
    mask = (rows < R)[:, None] & (columns < C)[None, :]
    place = matrix + rows.to(tl.int64)[:, None] * C + columns[None, :]
    tl.store(place, value.to(matrix.dtype.element_ty), mask=mask)


# ---- Launches ----


@dataclass(frozen=True)
class Tiles:
    """Sides of a kernel's tiles, along rows, filters and features, and how it is run."""

    rows: int
    filters: int
    features: int
    warps: int = 4
    stages: int = 3

    @property
    def options(self) -> dict[str, Any]:
        return {
            "BLOCK_M": self.rows,
            "BLOCK_N": self.filters,
            "BLOCK_K": self.features,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


RESPOND = (
    Tiles(128, 128, 64, 8),
    Tiles(128, 256, 64, 8),
    Tiles(128, 64, 64),
    Tiles(64, 128, 64),
    Tiles(64, 64, 32, 4, 4),
)
PULL_X = (Tiles(128, 64, 128, 8), Tiles(128, 32, 256, 8), Tiles(128, 32, 64), Tiles(64, 64, 128), Tiles(64, 32, 64))
PULL_FILTERS = (
    Tiles(64, 128, 128, 8),
    Tiles(64, 64, 128),
    Tiles(32, 128, 64),
    Tiles(32, 64, 64),
    Tiles(64, 64, 256, 8),
)
"""What is tried of each kernel: sizes at which no register spills for sm 9.0. All but the largest find room in the
99 KB of shared memory that a block has on smaller GPUs."""


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: object, **options: object) -> None:
    kernel[grid](*arguments, enable_fp_fusion=True, **options)


def _filters(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The filters as the products take them, and their lengths."""
    half = torch.empty_like(weight, dtype=dtype)
    length = torch.empty(weight.shape[0], dtype=torch.float32, device=weight.device)
    n, k = weight.shape
    _launch(prepare_kernel, (n,), weight, half, length, k, UNIT=_is_unit(dtype), BLOCK_K=triton.next_power_of_2(k))
    return half, length


def _is_unit(dtype: torch.dtype) -> bool:
    """float16's range is too short for filters of any length; bfloat16's is not, and rounding once is better."""
    return dtype == torch.float16


def respond(x: Tensor, weight: Tensor, eps: float, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """Responses and norms of a layer with B = 2.

    Args:
        x: Rows, shape (M, K), bfloat16 or float16, contiguous.
        weight: Filters, shape (N, K), in the dtype of x or float32, contiguous.
        eps: Added to a row's sum of squares.
        tiles: How the work is cut.

    Returns:
        y, shape (M, N), in the dtype of x; n, shape (M,), float32.
    """
    (m, k), n = x.shape, weight.shape[0]
    half, length = _filters(weight, x.dtype)
    y, norm = x.new_empty(m, n), x.new_empty(m, dtype=torch.float32)
    grid = (triton.cdiv(m, tiles.rows) * triton.cdiv(n, tiles.filters),)
    _launch(respond_kernel, grid, x, half, length, y, norm, m, n, k, eps, UNIT=_is_unit(x.dtype), **tiles.options)
    return y, norm


def pull_back(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    norm: Tensor,
    detach: bool,
    needs: Needs,
    for_x: Tiles,
    for_filters: Tiles,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients with respect to x and the filters, from what :func:`respond` left.

    Args:
        grad: Gradient with respect to y, shape (M, N), contiguous.
        x: As in :func:`respond`.
        weight: As in :func:`respond`.
        y: Of :func:`respond`.
        norm: Of :func:`respond`.
        detach: Whether the scale is a constant.
        needs: Whose gradients are wanted.
        for_x: How the work for x is cut.
        for_filters: How the work for the filters is cut.
    """
    (m, k), n = x.shape, weight.shape[0]
    unit = _is_unit(x.dtype)
    half, length = _filters(weight, x.dtype)
    grad_x = grad_weight = None
    if needs.x:
        grad_x = torch.empty_like(x)
        grid = (triton.cdiv(m, for_x.rows) * triton.cdiv(k, for_x.features),)
        given = (grad, x, half, length, y, norm, grad_x, m, n, k)
        _launch(pull_x_kernel, grid, *given, UNIT=unit, DETACH=detach, **for_x.options)
    if needs.weight:
        tiles = triton.cdiv(n, for_filters.filters) * triton.cdiv(k, for_filters.features)
        # enough programs for every processor, of enough rows each
        count = min(_SPLITS, max(1, 512 // tiles), triton.cdiv(m, 4 * for_filters.rows))
        rows = triton.cdiv(triton.cdiv(m, count), for_filters.rows) * for_filters.rows
        count = triton.cdiv(m, rows)
        parts = x.new_empty(count, n, k, dtype=torch.float32)
        given = (grad, x, y, norm, parts, m, n, k, rows)
        _launch(pull_filters_kernel, (tiles, count), *given, DETACH=detach, **for_filters.options)
        grad_weight = torch.empty_like(weight)
        given = (parts, weight, length, half, grad_weight, n, k, count)
        _launch(project_kernel, (n,), *given, UNIT=unit, BLOCK_K=triton.next_power_of_2(k))
    return grad_x, grad_weight


# ---- Which way is faster ----

_fastest: dict[tuple[Any, ...], Any] = {}


def choose(key: tuple[Any, ...], ways: dict[Any, Callable[[], object]]) -> Any:
    """The name of the fastest of several ways to compute the same, measured the first time that the key is met.

    A way that fails is out of the race: without a word where its tiles are too large for the GPU, else with a warning
    (Triton needs a C compiler, say). None if all are.
    """
    if key not in _fastest:
        times = {}
        for name, way in ways.items():
            try:
                times[name] = _time(way)
            except (triton.runtime.errors.OutOfResources, torch.cuda.OutOfMemoryError):
                pass
            except Exception as error:  # of a compiler, a driver: the layer itself has another way
                warnings.warn(f"a B-cos product is left out of the choice: {error!r}", RuntimeWarning, stacklevel=2)
        _fastest[key] = min(times, key=times.__getitem__, default=None)
    return _fastest[key]


def _time(way: Callable[[], object], calls: int = 10) -> float:
    """Milliseconds of a call: the least of three rounds, after one that compiles and warms."""
    way()
    rounds = []
    for _ in range(3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            way()
        end.record()
        end.synchronize()
        rounds.append(begin.elapsed_time(end) / calls)
    return min(rounds)


# ---- What the layers ask ----


def forward(operator: Callable, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor] | None:
    """A forward operator's answer, if a product of ours is the fastest way to it."""
    x, weight, exponent, b, *window, max_out, _detach, eps = arguments
    if not _suits(x, weight, exponent, b, window, max_out):
        return None
    shape = _Channels if window else _Features
    rows, filters = shape.rows(x), weight.flatten(1)
    key = ("respond", bool(window), *rows.shape, len(filters), x.dtype, weight.dtype, x.device)
    if key not in _fastest and torch.cuda.is_current_stream_capturing():
        return None
    with torch.cuda.device_of(x):
        ways: dict[Any, Callable[[], object]] = {None: lambda: operator(*arguments)}
        ways |= {tiles: partial(respond, rows, filters, eps, tiles) for tiles in RESPOND}
        if (tiles := choose(key, ways)) is None:
            return None
        y, norm = respond(rows, filters, eps, tiles)
    return shape.unrows(y, x), shape.unrows(norm[:, None], x), x.new_empty(0, dtype=torch.uint8)


def backward(operator: Callable, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor] | None:
    """A backward operator's answer, likewise."""
    grad, x, weight, exponent, y, norm, _winner, b, *window, max_out, detach, need_x, need_weight, _ = arguments
    shape = _Channels if window else _Features
    if not _suits(x, weight, exponent, b, window, max_out) or not shape.in_rows(y):
        return None
    rows, filters = shape.rows(x), weight.flatten(1)
    key = (bool(window), *rows.shape, len(filters), x.dtype, weight.dtype, x.device, detach, need_x, need_weight)
    if ("pull", *key) not in _fastest and torch.cuda.is_current_stream_capturing():
        return None
    with torch.cuda.device_of(x):
        own = grad if shape.in_rows(grad) else grad.contiguous(memory_format=shape.memory_format)
        pull = partial(pull_back, shape.rows(own), rows, filters, shape.rows(y), norm.flatten(), detach)
        ways: dict[Any, Callable[[], object]] = {None: lambda: operator(*arguments)}
        if ("pull", *key) not in _fastest:  # the best tiles of each kernel, and those against the operator
            of_x, of_filters = Needs(need_x, False), Needs(False, need_weight)
            for_x = choose(("x", *key), {t: partial(pull, of_x, t, t) for t in PULL_X})
            for_filters = choose(("filters", *key), {t: partial(pull, of_filters, t, t) for t in PULL_FILTERS})
            if for_x is not None and for_filters is not None:
                ways[for_x, for_filters] = partial(pull, Needs(need_x, need_weight), for_x, for_filters)
        if (chosen := choose(("pull", *key), ways)) is None:
            return None
        grad_x, grad_weight = pull(Needs(need_x, need_weight), *chosen)
    nothing = x.new_empty(0)
    return (
        nothing if grad_x is None else shape.unrows(grad_x, x),
        nothing.to(weight.dtype) if grad_weight is None else grad_weight.view_as(weight),
        nothing.float(),
    )


def _suits(x: Tensor, weight: Tensor, exponent: Tensor | None, b: float, window: list[Any], max_out: int) -> bool:
    if not (_ENABLED and torch.backends.cudnn.benchmark and x.dtype in (torch.bfloat16, torch.float16)):
        return False
    if torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled():
        return False  # what is chosen, and with it the rounding, may be another in the next run
    if exponent is not None or b != 2 or max_out != 1 or not x.numel():
        return False
    if window:
        stride, padding, _, groups = window
        if groups != 1 or tuple(weight.shape[2:]) != (1, 1) or set(stride) != {1} or set(padding) != {0}:
            return False
    features = weight.shape[1]
    if not 16 <= features <= _LONGEST or features % 8 or len(weight) % 8 or not weight.flatten(1).is_contiguous():
        return False  # rows begin at whole words of 16 bytes
    if not (_Channels if window else _Features).in_rows(x):
        return False
    return torch.cuda.get_device_capability(x.device) >= (8, 0)  # before, Triton does not use the tensor cores


class _Features:
    """The rows of a linear layer, (..., F)."""

    memory_format = torch.contiguous_format

    @classmethod
    def in_rows(cls, t: Tensor) -> bool:
        """Whether the features of a row lie side by side, and row after row."""
        return t.is_contiguous(memory_format=cls.memory_format)

    @staticmethod
    def rows(t: Tensor) -> Tensor:
        """(M, F), without a copy."""
        return t.reshape(-1, t.shape[-1])

    @staticmethod
    def unrows(rows: Tensor, like: Tensor) -> Tensor:
        """Rows where the layer's input has them."""
        return rows.view(*like.shape[:-1], -1)


class _Channels(_Features):
    """The pixels of a convolution, (N, C, H, W) in channels-last."""

    memory_format = torch.channels_last

    @staticmethod
    def rows(t: Tensor) -> Tensor:
        return t.permute(0, 2, 3, 1).reshape(-1, t.shape[1])

    @staticmethod
    def unrows(rows: Tensor, like: Tensor) -> Tensor:
        n, _, height, width = like.shape
        return rows.view(n, height, width, -1).permute(0, 3, 1, 2)
