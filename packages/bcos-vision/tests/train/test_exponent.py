"""Training with exponents that are learnt or rise: what is kept, logged, drawn, and that it goes on after a kill."""

import dataclasses

import pytest
import torch
from bcos_core import explanation_mode
from bcos_core.nn import BatchNormUncentered2d, Exponent, layer_exponents, learnt_exponents
from bcos_core.run.tracking import find_run, project_root
from bcos_vision.config import ExponentConfig, OptimConfig, TrainConfig
from bcos_vision.models import TrainedClassifier, create_model
from bcos_vision.train import fit, resume
from bcos_vision.train.exponent import ExponentTraining
from bcos_vision.train.module import ClassifierTraining
from bcos_vision.train.optimiser import make_optimiser
from mlflow import MlflowClient


class Stop(Exception):
    pass


@pytest.fixture
def config(image_folder):
    return TrainConfig(
        data=f"folder:{image_folder}", epochs=2, batch_size=16, num_explained=8, optim=OptimConfig(lr=3e-3)
    )


def history(run_id, name):
    client = MlflowClient(f"sqlite:///{project_root() / 'mlflow.db'}")
    return {m.step: m.value for m in client.get_metric_history(run_id, name)}


@pytest.mark.parametrize("share", ["global", "channel"])
def test_learnt_exponents_are_logged_drawn_and_kept(project, config, share):
    exponent = ExponentConfig(learn=share, objective="at_most", bound=1.5)
    result = fit(dataclasses.replace(config, exponent=exponent))
    model = result.classifier.model
    layers = layer_exponents(model.network)
    assert len(layers) == 22
    for path, b in layers.items():  # the last epoch's log is the model's own
        logged = history(result.run_id, f"b/{path}")
        assert set(logged) == {1, 2}
        assert logged[2] == pytest.approx(b().mean().item(), rel=1e-6)
        assert result.exponents[path] == pytest.approx(logged[2])
    b = learnt_exponents(model)
    assert b.numel() == (1 if share == "global" else sum(b().numel() for b in layers.values()))
    record = find_run(result.run_id)
    assert record.metrics["b/max"] == pytest.approx(b.max().item(), rel=1e-6)
    assert record.metrics["b/min"] == pytest.approx(b.min().item(), rel=1e-6)
    assert 1 < record.metrics["b/max"] < 2  # it was pulled towards the bound
    assert record.metrics["b/multiplier"] > 0
    assert (result.folder / "exponents.png").stat().st_size > 1000
    loaded = TrainedClassifier.load(result.folder / "model.safetensors")
    assert torch.equal(learnt_exponents(loaded.model), b.cpu())
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded.model(images), model.eval()(images), rtol=0, atol=0)


def test_a_fixed_exponent_is_neither_logged_nor_drawn(project, config):
    result = fit(config)
    assert not [name for name in find_run(result.run_id).metrics if name.startswith("b/")]
    assert not (result.folder / "exponents.png").exists()
    assert result.exponents == {}


def test_a_run_goes_on_with_its_multipliers(project, config, monkeypatch):
    """The second epoch after a resume is that of an uninterrupted run, to the bit."""
    config = dataclasses.replace(config, exponent=ExponentConfig(learn="layer", objective="at_least", bound=2.5))
    whole = fit(config, pictures=False)

    def stop(self):
        if self.current_epoch == 1:
            raise Stop
        original(self)

    original = ClassifierTraining.on_train_epoch_start
    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTraining, "on_train_epoch_start", stop)
        with pytest.raises(Stop):
            fit(config, pictures=False)
    client = MlflowClient(f"sqlite:///{project_root() / 'mlflow.db'}")
    experiment = client.get_run(whole.run_id).info.experiment_id
    (broken,) = client.search_runs([experiment], "attributes.status = 'FAILED'")
    again = resume(broken.info.run_id, pictures=False)
    assert torch.equal(learnt_exponents(again.classifier.model), learnt_exponents(whole.classifier.model))
    for name in ("b/multiplier", "b/conv1", "train/loss"):
        assert history(again.run_id, name) == history(whole.run_id, name)


def test_exponents_have_a_rate_of_their_own_and_no_decay():
    model = create_model("resnet20", num_classes=2, learn_b="layer")
    exponents = [m.raw for m in model.modules() if isinstance(m, Exponent)]
    options = OptimConfig(lr=1e-3, weight_decay=0.1)
    optimiser = make_optimiser(model.parameters(), options, fused=False, exponents=exponents, exponent_lr=0.05)
    (group,) = [g for g in optimiser.param_groups if any(p is exponents[0] for p in g["params"])]
    assert (len(group["params"]), group["lr"], group["weight_decay"]) == (22, 0.05, 0.0)
    total = sum(len(g["params"]) for g in optimiser.param_groups)
    assert total == len(list(model.parameters()))


def test_b_rises_in_a_straight_line_and_norms_keep_up():
    model = create_model("resnet20", num_classes=2, b=2.0)
    training = ExponentTraining(model, ExponentConfig(start=1.0, rise_epochs=2.0), 9)
    norms = [m for m in model.modules() if isinstance(m, BatchNormUncentered2d)]
    for epoch, b, momentum in ((0, 1.0, 0.9), (0.5, 1.25, 0.9), (1.0, 1.5, 0.9), (2.0, 2.0, 0.1), (3.0, 2.0, 0.1)):
        training.rise(epoch)
        assert set(layer_exponents(model).values()) == {b}
        assert {norm.momentum for norm in norms} == {momentum}


def test_a_rise_ends_at_b(project, config):
    result = fit(dataclasses.replace(config, exponent=ExponentConfig(start=1.0, rise_epochs=2.0)))
    assert set(layer_exponents(result.classifier.model).values()) == {2.0}
    assert history(result.run_id, "b/mean")[1] == pytest.approx(1 + 3 / 8)  # at the fourth of eight steps
    assert (result.folder / "exponents.png").exists()


def test_biases_encoding_and_detached_training_change_what_is_trained(project, config):
    plain = fit(config, pictures=False)
    for changes in ({"bias": True}, {"encoding": "standardised"}, {"detach": True}):
        result = fit(dataclasses.replace(config, **changes), pictures=False)
        assert result.evaluation.metrics["loss"] != plain.evaluation.metrics["loss"]
        assert result.evaluation.metrics["completeness_error"] < 1e-5
        loaded = TrainedClassifier.load(result.folder / "model.safetensors").model
        images = torch.rand(2, 3, 8, 8)
        torch.testing.assert_close(loaded(images), result.classifier.model.eval()(images), rtol=0, atol=0)
        names = [name for name in loaded.state_dict() if name.endswith("bias")]
        assert bool(names) == ("bias" in changes)
        assert loaded.encode(images).shape[1] == (3 if "encoding" in changes else 6)
        assert not any(getattr(m, "detach", False) for m in result.classifier.model.modules())


def test_detached_training_takes_the_gradient_of_an_explanation(project, config, image_folder):
    found = {}
    for detach in (False, True):
        model = create_model("resnet20", num_classes=2)
        torch.manual_seed(0)
        for p in model.parameters():
            torch.nn.init.normal_(p, 1.0, 0.3) if p.dim() == 1 else torch.nn.init.normal_(p)
        training = ClassifierTraining(model, dataclasses.replace(config, detach=detach), num_images=4, num_batches=1)
        training.on_fit_start()
        images, labels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
        loss, _ = training._forward(images, labels)
        found[detach] = torch.autograd.grad(loss, model.network.conv1.weight)[0]
        training.on_fit_end()
        if detach:
            with explanation_mode(model):
                loss, _ = training._forward(images, labels)
            assert torch.equal(found[True], torch.autograd.grad(loss, model.network.conv1.weight)[0])
    assert not torch.allclose(found[True], found[False], rtol=1e-2)
