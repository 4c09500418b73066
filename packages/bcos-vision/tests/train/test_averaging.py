import warnings

import lightning
import torch
from bcos_vision.train.averaging import MovingAverage
from torch import nn


class Small(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.seen, self.validated = [], []

    def training_step(self, batch, _index):
        return self.net(batch).square().mean()

    def on_train_batch_end(self, *_):
        self.seen.append({name: value.clone() for name, value in self.state_dict().items()})

    def validation_step(self, batch, _index):
        self.validated.append({name: value.clone() for name, value in self.state_dict().items()})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_average_is_the_formula_and_is_what_is_validated():
    batches = torch.randn(7, 8, 3, generator=torch.Generator().manual_seed(0))
    module = Small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice
        lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[MovingAverage(0.75, every=2, warmup=3)],
        ).fit(module, *(torch.utils.data.DataLoader(part, batch_size=None) for part in (batches, batches[:1])))
    # steps 0, 1 and 2 belong to the warm-up; then every second one, 3 and 5, is taken in
    (found,) = module.validated
    for name, value in module.seen[2].items():
        for step in (3, 5):
            new = module.seen[step][name]
            value = 0.75 * value.double() + 0.25 * new.double() if new.is_floating_point() else new
        torch.testing.assert_close(found[name].double(), value.double(), rtol=1e-6, atol=1e-7)
        assert torch.equal(module.state_dict()[name], found[name])  # the average is what is left at the end
    assert int(found["net.1.num_batches_tracked"]) == 6


def test_a_run_shorter_than_its_interval_keeps_no_initial_weights():
    average = MovingAverage(0.9, every=100, warmup=0)
    assert [average.should_update(step_idx=step) for step in (0, 1, 99)] == [True, False, True]
