"""What the tests' signatures ask for: the samples, the implementations, and how close is close."""

import pytest
import torch
from samples import COMBINATIONS, CUDA_ON_CPU, IMPLEMENTATIONS, NO_GPU, SAMPLES
from torch import Tensor


def pytest_generate_tests(metafunc):
    """`sample`, `combination` (dtype, layout), `implementation` and `device` in a test's signature are these lists."""
    if "sample" in metafunc.fixturenames:
        metafunc.parametrize("sample", SAMPLES, ids=lambda s: s.name)
    if "combination" in metafunc.fixturenames:
        metafunc.parametrize("combination", COMBINATIONS, ids=lambda c: f"{c[0]}-{c[1]}".removeprefix("torch."))
    if "implementation" in metafunc.fixturenames:
        metafunc.parametrize("implementation", IMPLEMENTATIONS)
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small gain nothing from a second thread, and lose much beside another busy process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def whole_float32():
    """A GPU's own products round float32 to TF32 if they may, and its filters' gradients are summed in any order."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


@pytest.fixture
def assert_close():
    """Compare with the float64 formula.

    float64: max |difference| <= 1e-12 max |expected|; float32: 2e-6 max |expected| (over the whole tensor, as sums
    cancel). Half precision: on top of that twice its own rounding, of each element, or with ``sums`` of the largest:
    a gradient is a sum over responses that were rounded to ``rounded``. Gradients for 1 < B < 2 (``steep``) get a
    hundred times float32's room: c^(B-1) is infinitely steep at c = 0, where the rounding of l shows. A GPU's own
    convolutions round filters and responses too.
    """

    def check(actual: Tensor, expected: Tensor, dtype=None, *, sums=False, rounded=None, steep=False):
        dtype = dtype or actual.dtype
        assert actual.dtype == dtype
        assert actual.shape == expected.shape
        on_gpu, rounded = actual.is_cuda or CUDA_ON_CPU, rounded or dtype
        actual, expected = actual.detach().cpu().double(), expected.detach().cpu()
        scale = expected.abs().amax() if expected.numel() else expected.new_zeros(())
        allowed = (1e-12 if rounded == torch.float64 else 2e-4 if steep else 2e-6) * scale
        if rounded in (torch.bfloat16, torch.float16):
            info = torch.finfo(rounded)
            allowed = allowed + info.eps * (scale if sums else expected.abs()) + info.smallest_normal * info.eps
            allowed = allowed + 2 * info.eps * scale if on_gpu else allowed
        excess = (actual - expected).abs() - allowed
        assert not excess.numel() or excess.max() <= 0, f"{excess.max():.3g} over the tolerance, largest {scale:.3g}"

    return check
