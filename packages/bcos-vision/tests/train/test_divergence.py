import types

import lightning
import pytest
import torch
from bcos_core.run.tracking import find_run
from bcos_vision.config import OptimConfig, TrainConfig
from bcos_vision.train import fit
from bcos_vision.train import module as training
from bcos_vision.train.divergence import Diverged, DivergenceWatch


def test_a_run_ends_in_one_line_before_its_state_is_spoilt(project, image_folder, monkeypatch):
    loss = training.classification_loss
    calls = []

    def spoilt(logits, targets, kind):
        calls.append(kind)
        batch = len(calls) - 1
        return loss(logits, targets, kind) * (float("nan") if batch == 7 else 1)  # 4 batches and 1 validation an epoch

    monkeypatch.setattr(training, "classification_loss", spoilt)
    config = TrainConfig(data=f"folder:{image_folder}", epochs=3, batch_size=16, optim=OptimConfig(lr=1e-3))
    with pytest.raises(Diverged) as stopped:
        fit(config)
    (folder,) = (project / "runs").iterdir()
    assert str(stopped.value).startswith("the loss is not finite in epoch 2, batch 3 -- ")
    assert f"last.ckpt is from before: bcos-vision train --resume {folder.name}" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert find_run(folder.name).status == "FAILED"
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["epoch"] == 0
    assert all(v.isfinite().all() for v in state["state_dict"].values())


@pytest.fixture
def watched():
    """A watch that looks now and then, and what it watches."""
    module = lightning.LightningModule()
    module.model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    trainer = types.SimpleNamespace(
        world_size=1, current_epoch=4, is_last_batch=False, callback_metrics={}, fit_loop=types.SimpleNamespace()
    )
    watch = DivergenceWatch()
    watch.on_train_start(trainer, module)
    watch._every = 10

    def step(index, loss, *, last=False):
        trainer.fit_loop.batch_idx, trainer.is_last_batch = index, last
        watch.on_before_backward(trainer, module, torch.tensor(loss))
        watch.on_train_batch_end(trainer, module, None, None, index)

    return watch, trainer, module, step


def test_the_first_bad_batch_is_named_though_looked_for_later(watched):
    _, _, module, step = watched
    for index, loss in enumerate([1.0, 2.0, float("inf"), float("nan"), 1.0]):
        step(index, loss)
    torch.nn.init.constant_(module.model[0].weight, float("nan"))
    with pytest.raises(Diverged, match=r"epoch 5, batch 3 \(nor are 0.weight\)$"):
        step(9, 1.0)


def test_an_epoch_ends_with_a_look_at_losses_and_weights(watched):
    _, _, module, step = watched
    step(0, 1.0, last=True)
    module.model[1].running_var[0] = float("inf")
    with pytest.raises(Diverged, match=r"weights are not finite after epoch 5 \(1.running_var\)$"):
        step(1, 1.0, last=True)
    with pytest.raises(Diverged, match="epoch 5, batch 3 "):
        step(2, float("nan"), last=True)


def test_a_validation_loss_that_is_none(watched):
    watch, trainer, module, _ = watched
    watch.on_train_epoch_end(trainer, module)
    trainer.callback_metrics["val/loss"] = torch.tensor(float("nan"))
    with pytest.raises(Diverged, match="validation loss is not finite after epoch 5"):
        watch.on_train_epoch_end(trainer, module)
