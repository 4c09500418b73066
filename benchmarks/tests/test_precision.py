import pytest
import torch

from ..precision import ON_DEVICE, products


def settings():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark


@pytest.mark.parametrize("precision", ON_DEVICE["cuda"])
def test_settings_are_made_and_restored(precision):
    before = settings()
    with pytest.raises(ZeroDivisionError), products(precision):
        assert settings() == (precision == "tf32", precision == "tf32", True)
        _ = 1 / 0
    assert settings() == before
