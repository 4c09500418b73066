import lightning
import pytest
import torch
from bcos_vision import create_model
from bcos_vision.config import OptimConfig, TrainConfig
from bcos_vision.data import ArrayImages, make_loader
from bcos_vision.train.module import ClassifierTraining


def train(config, images):
    """Weights and learning rates after training, without the run around it."""
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=3, norm="layer_uncentered")
    batches = make_loader(images, config.batch_size, seed=config.seed)
    module = ClassifierTraining(model, config, num_images=len(images), num_batches=len(batches))
    trainer = lightning.Trainer(
        accelerator="cpu",
        accumulate_grad_batches=config.optim.accumulate,
        max_epochs=config.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches)
    return trainer, model


@pytest.mark.filterwarnings("ignore:.*many workers", "ignore:.*LeafSpec", "ignore:.*no `val_dataloader`")
def test_accumulated_batches_are_one_large_batch():
    """22 images: 2 steps of 8, and what is left over, 6, in a step of its own, a batch and half of another."""
    torch.manual_seed(0)
    images = ArrayImages(torch.randint(0, 255, (22, 3, 8, 8), dtype=torch.uint8), torch.randint(0, 3, (22,)))
    found = []
    for accumulate, batch_size in ((1, 8), (2, 4)):
        optim = OptimConfig(name="sgd", lr=0.1, warmup_epochs=1, accumulate=accumulate)
        found.append(train(TrainConfig(epochs=2, batch_size=batch_size, optim=optim), images))
    (trainer, model), (other, same) = found
    assert trainer.global_step == other.global_step == 6
    assert trainer.optimizers[0].param_groups[0]["lr"] == other.optimizers[0].param_groups[0]["lr"]
    for a, b in zip(model.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=3e-5)
