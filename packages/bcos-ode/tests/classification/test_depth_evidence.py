"""Evidence over depth time, against the head written out."""

import pytest
import torch
from bcos_core.run.error import InputError
from bcos_ode.classification import ClassificationConfig, OdeClassifier, depth_evidence


def make(**options):
    torch.manual_seed(0)
    config = ClassificationConfig(channels=8, **options)
    return OdeClassifier(config, classes="abc", in_channels=1).double().eval()


def test_is_the_final_states_linear_map_applied_to_each_state():
    model = make(steps=3)
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    found = depth_evidence(model, images, 2)
    with torch.no_grad():
        states = torch.stack(model.network.block.trajectory(model.network.stem(model.encode(images))))
        unit = torch.nn.functional.normalize(model.network.head[0].weight[2].flatten(), dim=0)
        response = torch.einsum("c,tnchw->tnhw", unit, states)
        cosine = response[-1].abs() / (states[-1].square().sum(1) + 1e-6).sqrt()
        logit = model.network.head[-1]
        expected = (response * cosine).mean((2, 3)) / logit.temperature + logit.bias
        torch.testing.assert_close(found.evidence, expected.T)
        torch.testing.assert_close(found.evidence[:, -1], model(images)[:, 2])
    assert found.times.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert (found.completeness_error <= 1e-12).all()


@pytest.mark.parametrize(("variant", "block"), [("vanilla", "ode"), ("vanilla", "residual"), ("bcos", "residual")])
def test_ends_at_the_predicted_logit(variant, block):
    model = make(variant=variant, block=block)
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    found = depth_evidence(model, images)
    with torch.no_grad():
        torch.testing.assert_close(found.evidence[:, -1], model(images).amax(1))
    assert found.steps.shape == (4, 4 if block == "ode" else 1)
    assert (found.completeness_error <= 1e-12).all()


def test_a_model_without_field_is_refused():
    with pytest.raises(InputError, match=r'block: .* built with block "none"'):
        depth_evidence(make(block="none"), torch.rand(1, 1, 8, 8).double())
