"""Number formats by name, and what PyTorch must be told for each."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""tf32: float32 tensors whose products keep 10 bits of mantissa."""

ON_DEVICE = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "tf32", "bfloat16", "float16")}


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Products in exactly this format, by the fastest algorithm cuDNN finds: the limit should be a good one."""
    # not by `fp32_precision`: after it torch refuses to answer `allow_tf32`, which its compiler asks
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    tf32, benchmark = [backend.allow_tf32 for backend in backends], torch.backends.cudnn.benchmark
    try:
        for backend in backends:
            backend.allow_tf32 = precision == "tf32"  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.cudnn.benchmark = True  # pyright: ignore[reportAttributeAccessIssue]
        yield
    finally:
        for backend, found in zip(backends, tf32, strict=True):
            backend.allow_tf32 = found  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.cudnn.benchmark = benchmark  # pyright: ignore[reportAttributeAccessIssue]
