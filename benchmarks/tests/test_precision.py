import pytest
import torch

from ..precision import ON_DEVICE, products


def settings():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark


@pytest.mark.parametrize("precision", ON_DEVICE["cuda"])
def test_settings_are_made_and_restored(precision):
    before = settings()
    with products(precision):
        assert settings() == (precision == "tf32", precision == "tf32", True)
    assert settings() == before


def test_settings_are_restored_after_a_failure():
    before = settings()
    with pytest.raises(RuntimeError, match="size"), products("tf32"):
        torch.dot(torch.ones(2), torch.ones(3))
    assert settings() == before
