"""What `import bcos_core` gives, and what it does not load."""

import subprocess
import sys

import bcos_core
import pytest


def test_names():
    from bcos_core.explanation import Explanation, explain, explanation_mode

    assert bcos_core.explain is explain
    assert bcos_core.explanation_mode is explanation_mode
    assert bcos_core.Explanation is Explanation
    assert bcos_core.bcosify is bcos_core.convert.bcosify
    assert bcos_core.nn.BcosConv2d.__module__ == "bcos_core.nn.conv"
    assert callable(bcos_core.functional.bcos_linear)
    assert dir(bcos_core) == sorted(bcos_core.__all__)
    for name in bcos_core.__all__:
        assert getattr(bcos_core, name) is not None
    with pytest.raises(AttributeError, match="module 'bcos_core' has no attribute 'bcosify_all'"):
        bcos_core.bcosify_all  # noqa: B018


def test_layers_and_explanations_need_torch_alone():
    code = (
        "import sys, bcos_core.nn, bcos_core.explanation, bcos_core.convert\n"
        "extra = {'mlflow', 'lightning', 'captum', 'torchvision', 'matplotlib', 'sklearn', 'bcos_core.run'}\n"
        "extra |= {'torch._dynamo'}  # seconds\n"
        "sys.exit(str(extra & set(sys.modules)) if extra & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
