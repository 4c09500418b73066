"""Who does what where several processes train; and that they train what one alone would."""

import json
import os
import subprocess
import sys

import pytest
import torch
from bcos_core.run.error import InputError
from bcos_core.run.tracking import project_root
from bcos_vision.config import OptimConfig, TrainConfig
from bcos_vision.train import fit
from bcos_vision.train.ranks import Ranks, find_ranks
from mlflow import MlflowClient

LAUNCHERS = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_PROCID")


@pytest.fixture
def environment(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


def test_one_process_is_alone_even_in_a_job_of_many(environment):
    environment(SLURM_PROCID="3")
    assert find_ranks(TrainConfig(device="cpu")) == Ranks(0, 1, 1)


def test_the_launchers_say_which_this_is(environment):
    config = TrainConfig(device="cpu", devices=2)
    assert find_ranks(config) == Ranks(0, 2, 2)
    environment(LOCAL_RANK="1")
    assert find_ranks(config) == Ranks(1, 2, 2)
    environment(TORCHELASTIC_RUN_ID="x", WORLD_SIZE="4", RANK="3")
    assert find_ranks(TrainConfig(device="cpu", devices=2, nodes=2)) == Ranks(3, 4, 2)
    with pytest.raises(InputError, match=r"--devices 2 --nodes 1: torchrun has started 4 process\(es\), not 2"):
        find_ranks(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "--devices 0: takes every GPU, and there is none"),
        ({"nodes": 2}, "--nodes 2: neither torchrun nor SLURM"),
        ({"precision": "float16"}, "--precision float16: for GPUs only"),
    ],
)
def test_what_cannot_be(environment, options, message):
    with pytest.raises(InputError, match=message):
        find_ranks(TrainConfig(device="cpu", **options))


def test_two_processes_train_what_one_does(project, image_folder, environment):
    options = {"data": f"folder:{image_folder}", "epochs": 2, "batch_size": 20, "num_explained": 4, "device": "cpu"}
    command = [f"--{name}={value}" for name, value in options.items()]
    command += ["--augment.shift=0", "--augment.flip=false", "--optim.lr=0.003", "--optim.accumulate=2"]
    done = subprocess.run(
        [sys.executable, "-m", "bcos_vision.cli", "train", "--devices=2", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5  # one process speaks
    (folder,) = (project / "runs").iterdir()  # and keeps
    assert json.loads((folder / "config.json").read_text())["devices"] == 2
    alone = fit(TrainConfig(**options, optim=OptimConfig(name="adam", lr=3e-3, accumulate=2)))
    client = MlflowClient(f"sqlite:///{project_root() / 'mlflow.db'}")
    for name in ("train/loss", "train/accuracy", "val/loss", "val/recall", "test/loss"):
        together, single = (
            [m.value for m in client.get_metric_history(run_id, name)] for run_id in (folder.name, alone.run_id)
        )
        assert together == pytest.approx(single, rel=1e-4), name
    own = torch.load(folder / "last.ckpt", weights_only=True)
    assert own["global_step"] == 2 * 2  # 54 images in three batches, the third left over
