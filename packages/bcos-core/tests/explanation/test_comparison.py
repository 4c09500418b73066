"""compare: one gradient of the difference of two logits, and sums that can fail."""

import pytest
import torch
from bcos_core.explanation import EncodingModel, compare, explanation_mode
from bcos_core.nn import BcosLinear


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
def test_the_difference_adds_up(network, dtype, limit, prepare):
    model, x = prepare(network, dtype)
    logits = model(x.clone()).detach()
    found = compare(model, x, 1, 0)
    difference = logits[:, 1] - logits[:, 0]
    total = found.contributions.double().flatten(1).sum(1) + found.remainder
    scale = logits[:, :2].abs().amax(1).clamp(min=1)
    assert ((total - difference).abs() <= limit * scale).all()
    assert (found.completeness_error <= limit).all()
    torch.testing.assert_close(found.logit, difference)


def test_it_is_one_gradient_of_the_difference(network, prepare):
    model, x = prepare(network, torch.float64)
    found = compare(model, x, 0, 1)
    encodes = isinstance(model, EncodingModel)
    with explanation_mode(model.eval()):
        inputs = (model.encode(x) if encodes else x).detach().requires_grad_()
        logits = (model.network if encodes else model)(inputs.clone())
        (gradient,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), inputs)
    torch.testing.assert_close(found.contributions, gradient * inputs, rtol=1e-9, atol=1e-12)


def test_an_input_alone_and_a_lost_part_shows():
    found = compare(BcosLinear(6, 3), torch.rand(4, 6), 2, 0)
    alone = found.at(1)
    torch.testing.assert_close(alone.contributions[0], found.contributions[1])
    torch.testing.assert_close(alone.completeness_error, found.completeness_error[1:2])
    alone.first.contributions[0, 0] += 0.5
    assert alone.completeness_error.item() == pytest.approx(0.5, rel=1e-4)


def test_a_class_is_not_compared_with_itself():
    with pytest.raises(ValueError, match="second: expected another class than the first, 2"):
        compare(BcosLinear(6, 3), torch.rand(4, 6), 2, 2)
