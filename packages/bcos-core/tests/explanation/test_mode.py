"""explanation_mode: nesting, exceptions, changes to the model, compiled models."""

import pytest
import torch
from bcos_core import explanation_mode
from bcos_core.nn import BatchNormUncentered2d, BcosConv2d, BcosLinear, Detachable
from torch import nn


@pytest.fixture
def model():
    return nn.Sequential(BcosConv2d(2, 3, 3), BatchNormUncentered2d(3), nn.Flatten(), BcosLinear(12, 2)).eval()


def flags(model):
    return [m.detach for m in model.modules() if isinstance(m, Detachable)]


def test_switches_on_and_off(model):
    with explanation_mode(model) as entered:
        assert entered is model
        assert flags(model) == [True] * 3
    assert flags(model) == [False] * 3


def test_only_detachable_modules_are_touched(model):
    with explanation_mode(model):
        assert not hasattr(model[2], "detach")
        assert not hasattr(model, "detach")


def test_two_contexts_nest(model):
    with explanation_mode(model):
        with explanation_mode(model):
            pass
        assert flags(model) == [True] * 3
    assert flags(model) == [False] * 3


def test_one_context_nests_in_itself_and_is_used_again(model):
    mode = explanation_mode(model)
    for _ in range(2):
        with mode:
            with mode:
                with mode:
                    pass
                assert flags(model) == [True] * 3
            assert flags(model) == [True] * 3
        assert flags(model) == [False] * 3


def test_part_of_a_model_inside_the_whole(model):
    with explanation_mode(model[0]):
        assert flags(model) == [True, False, False]
        with explanation_mode(model):
            assert flags(model) == [True] * 3
        assert flags(model) == [True, False, False]
    assert flags(model) == [False] * 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_passes_through_and_flags_are_restored(model, error):
    mode = explanation_mode(model)
    with mode:
        with pytest.raises(error, match="on the way"), mode:
            raise error("on the way")
        assert flags(model) == [True] * 3
    assert flags(model) == [False] * 3


def test_prior_flags_are_restored(model):
    model[0].detach = True
    with explanation_mode(model):
        assert flags(model) == [True] * 3
    assert flags(model) == [True, False, False]


def test_modules_are_read_anew_at_each_entry(model):
    mode = explanation_mode(model)
    with mode:
        pass
    model[0] = BcosConv2d(2, 3, 3)
    with mode:
        assert flags(model) == [True] * 3
    assert flags(model) == [False] * 3


def test_modules_that_change_inside(model):
    """What entering switched on is switched off again, wherever it is now; what came later is left alone."""
    old, new = model[0], BcosConv2d(2, 3, 3)
    with explanation_mode(model):
        model[0] = new
    assert not old.detach
    assert flags(model) == [False] * 3


def test_values_do_not_change_and_gradients_do(model):
    x = torch.randn(2, 2, 4, 4, requires_grad=True)
    y = model(x)
    (plain,) = torch.autograd.grad(y[:, 0].sum(), x)
    with explanation_mode(model):
        z = model(x)
        (linear,) = torch.autograd.grad(z[:, 0].sum(), x)
    assert torch.equal(y, z)
    assert not torch.allclose(plain, linear)
    torch.testing.assert_close((linear * x).flatten(1).sum(1), y[:, 0])
    (again,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert torch.equal(again, plain)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_model_toggles(model, backend):
    """The flag is read at each call: code compiled for one state does not serve the other."""
    torch._dynamo.reset()  # it counts compilations of nn.Sequential over the whole session
    compiled = torch.compile(model, backend=backend, fullgraph=True)

    def gradient(function, x):
        return torch.autograd.grad(function(x)[:, 0].sum(), x)[0]

    x = torch.randn(2, 2, 4, 4, requires_grad=True)
    with explanation_mode(model):
        expected = gradient(model, x)
    for _ in range(2):
        torch.testing.assert_close(gradient(compiled, x), gradient(model, x))
        with explanation_mode(compiled):
            torch.testing.assert_close(gradient(compiled, x), expected)


def test_flag_is_no_state(model):
    with explanation_mode(model):
        assert not [name for name in model.state_dict() if "detach" in name]
