"""Whole runs: what they leave behind, that they repeat, and that a killed one goes on as if it had not been."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from bcos_core.run.error import InputError
from bcos_core.run.tracking import TrackedRun, find_run, project_root
from bcos_vision.config import AugmentConfig, OptimConfig, SplitConfig, TrainConfig
from bcos_vision.data import load_data
from bcos_vision.evaluation import classification_loss
from bcos_vision.models import TrainedClassifier
from bcos_vision.train import fit, resume
from bcos_vision.train.module import ClassifierTraining
from bcos_vision.train.result import choose_examples
from bcos_vision.train.run import _without_alias
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError


@pytest.fixture
def config(image_folder):
    return TrainConfig(
        data=f"folder:{image_folder}",
        epochs=3,
        batch_size=16,
        num_explained=16,
        augment=AugmentConfig(shift=1, flip=True),
        optim=OptimConfig(lr=3e-3, warmup_epochs=1),
    )


def history(run_id, names=("train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss", "test/recall")):
    client = MlflowClient(f"sqlite:///{project_root() / 'mlflow.db'}")
    return {n: {m.step: m.value for m in client.get_metric_history(run_id, n)} for n in names}


def test_a_run_leaves_its_result_in_the_folder_and_the_store(project, config):
    result = fit(config)
    assert result.folder == project / "runs" / result.run_id
    for name in ("model.safetensors", "explanations.png", "confusion.png", "last.ckpt", "best.ckpt", "config.json"):
        assert (result.folder / name).stat().st_size > 100
    record = find_run(result.run_id[:8])
    assert record.status == "FINISHED"
    assert record.tags["seed"] == "0"
    assert record.metrics["test/accuracy"] == result.evaluation.metrics["accuracy"]
    assert record.metrics["test/completeness_error"] <= 1e-5
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    run = client.get_run(result.run_id)
    assert run.data.params["optim.lr"] == "0.003"
    assert run.data.params["augment.shift"] == "1"
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["arm"] == run.data.tags["arm"]
    assert {a.path for a in client.list_artifacts(result.run_id, "pictures")} == {
        "pictures/confusion.png",
        "pictures/explanations.png",
    }
    assert [set(v) for v in history(result.run_id, ["train/loss", "val/accuracy"]).values()] == [{1, 2, 3}] * 2
    models = client.search_logged_models([run.info.experiment_id])
    assert [m.source_run_id for m in models] == [result.run_id]
    # the file alone gives the same model
    loaded = TrainedClassifier.load(result.folder / "model.safetensors")
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded.model(images), result.classifier.model(images), rtol=0, atol=0)
    # another seed is another child of the same parent; the same seed repeats to the bit
    again = fit(config)
    assert history(again.run_id) == history(result.run_id)
    other = fit(dataclasses.replace(config, seed=1))
    assert history(other.run_id) != history(result.run_id)
    assert client.get_run(other.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
    with pytest.raises(InputError, match="is finished"):
        resume(result.run_id)


KILLED = """
    import json, os, signal, sys
    from bcos_core.run import config
    from bcos_vision.config import TrainConfig
    from bcos_vision.train import fit, module

    step = module.ClassifierTraining.training_step
    def training_step(self, batch, index):
        if (self.current_epoch, index) == ({epoch}, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, index)
    module.ClassifierTraining.training_step = training_step
    fit(config.from_dict(TrainConfig, json.loads(sys.argv[1])))
"""


PAPERS = OptimConfig(name="adam", lr=3e-3, warmup_epochs=1, agc=0.01, clip=1.0, ema=0.8, ema_every=2, accumulate=3)


@pytest.mark.parametrize(("epoch", "changes"), [(0, {}), (2, {"optim": PAPERS, "precision": "bfloat16"})])
def test_a_killed_run_ends_as_an_uninterrupted_one(project, config, epoch, changes):
    config = dataclasses.replace(config, **changes)
    script = textwrap.dedent(KILLED.format(epoch=epoch))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(dataclasses.asdict(config))],
        env=os.environ | threads,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (folder,) = (project / "runs").iterdir()
    assert (folder / "last.ckpt").exists() == (epoch > 0)
    if epoch:  # the last epoch that was finished, whether or not it was the best
        assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == epoch - 1
    resumed = resume(folder.name)
    assert resumed.run_id == folder.name
    assert find_run(folder.name).status == "FINISHED"
    whole = fit(config)
    assert history(resumed.run_id) == history(whole.run_id)
    assert resumed.evaluation.metrics == whole.evaluation.metrics
    for a, b in zip(
        resumed.classifier.model.state_dict().values(), whole.classifier.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_a_full_disk_leaves_the_last_state_to_go_on_from(project, config, monkeypatch):
    whole = fit(config)
    replace, saved = os.replace, []

    def full_after_four(source, target, **options):
        if str(target).endswith(".ckpt"):
            saved.append(target)
            if len(saved) > 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target, **options)

    monkeypatch.setattr(os, "replace", full_after_four)
    with pytest.raises(InputError, match=r"\.ckpt: cannot write .* MiB \(No space left on device\).* --resume"):
        fit(config)
    monkeypatch.undo()
    monkeypatch.chdir(project)
    run_id = next(f.name for f in (project / "runs").iterdir() if f.name != whole.run_id)
    assert find_run(run_id).status == "FAILED"
    assert not list((project / "runs" / run_id).glob("*.part"))
    assert resume(run_id).evaluation.metrics == whole.evaluation.metrics


def test_resume_refuses_what_it_cannot_continue(project, config, image_folder, writer, tmp_path):
    with pytest.raises(InputError, match=r'run "0123abcd": no such run .* there is none yet'):
        resume("0123abcd")
    root = tmp_path / "moving"
    writer(root, {"a": 20, "b": 20})

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    patch = pytest.MonkeyPatch()
    patch.setattr("bcos_vision.train.result.evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(dataclasses.replace(config, data=f"folder:{root}", epochs=1))
    patch.undo()
    (folder,) = (project / "runs").iterdir()
    assert find_run(folder.name).status == "KILLED"
    (root / "a" / "000.png").unlink()
    with pytest.raises(InputError, match=r"the data .* has changed since it began"):
        resume(folder.name)


def test_examples_are_right_ones_by_class_then_wrong_ones():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predictions = torch.tensor([0, 0, 1, 1, 1, 1, 0])
    assert choose_examples(predictions, labels, num_right=3, num_wrong=2).tolist() == [0, 4, 1, 2, 6]


@pytest.mark.parametrize("variant", ["baseline", "standard"])
def test_plain_variants_go_through_too(project, config, variant):
    result = fit(dataclasses.replace(config, variant=variant, epochs=1))
    assert result.evaluation.metrics["completeness_error"] <= 1e-5
    mean, _ = result.classifier.model.encoding.mean.flatten(), None
    assert ((mean > 0) & (mean < 1)).all()


def test_the_average_is_what_is_scored_and_kept(project, config):
    optim = OptimConfig(lr=3e-3, ema=0.99, ema_every=2)
    result = fit(dataclasses.replace(config, optim=optim, epochs=2))
    state = torch.load(result.folder / "last.ckpt", weights_only=True)
    kept = result.classifier.model.state_dict()
    own, average, current = (
        torch.cat([source[prefix + name].flatten() for name in kept if name.endswith("weight")])
        for source, prefix in ((kept, ""), (state["state_dict"], "model."), (state["current_model_state"], "model."))
    )
    assert torch.equal(own, average)
    assert not torch.equal(own, current)
    # and is what the last epoch was validated by
    model = TrainedClassifier.load(result.folder / "model.safetensors").model
    val = load_data(config.data).val
    loss = float(classification_loss(model(val.images.float() / 255), val.labels).detach())
    assert history(result.run_id)["val/loss"][2] == pytest.approx(loss, rel=1e-5)


@pytest.mark.skipif(
    not os.environ.get("BCOS_TEST_COMPILE"), reason="compiles for a minute; BCOS_TEST_COMPILE=1 runs it"
)
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_a_compiled_training_is_the_same_training(project, config):
    plain, compiled = (fit(dataclasses.replace(config, epochs=1, compile=flag)) for flag in (False, True))
    states = [torch.load(r.folder / "last.ckpt", weights_only=True)["state_dict"] for r in (plain, compiled)]
    assert list(states[0]) == list(states[1])
    before, after = (history(r.run_id)["train/loss"][1] for r in (plain, compiled))
    assert after == pytest.approx(before, rel=1e-3)


def test_the_kept_model_is_that_of_the_last_or_the_best_epoch(project, config, monkeypatch):
    def weights(path):
        state = torch.load(path, weights_only=True)["state_dict"]
        return {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}

    def worse_each_epoch(self):
        self.log("val/loss", float(self.current_epoch), batch_size=1)

    monkeypatch.setattr(ClassifierTraining, "on_validation_epoch_end", worse_each_epoch)
    for keep, other in (("last", "best"), ("best", "last")):
        result = fit(dataclasses.replace(config, keep=keep, epochs=2))
        own = result.classifier.model.state_dict()
        kept, left = (weights(result.folder / f"{name}.ckpt") for name in (keep, other))
        assert all(torch.equal(own[name], kept[name]) for name in own)
        assert not all(torch.equal(own[name], left[name]) for name in own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": SplitConfig(test=0, val=0), "data": "digits"}, "--split.test and --split.val are both 0"),
        ({"split": SplitConfig(val=0), "keep": "best"}, "--keep best: needs a validation set"),
    ],
)
def test_nothing_is_begun_that_cannot_end(project, config, changes, message):
    with pytest.raises(InputError, match=message):
        fit(dataclasses.replace(config, **changes))
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vgg11"}, r"--model vgg11: cannot take images of 8x8 pixels \(.*--stem cifar"),
        ({"model": "vitc_ti_patch1_14"}, r"cannot take images of 8x8 pixels \(images: .* multiples of 16 pixels"),
    ],
)
def test_images_too_small_for_a_network_are_refused_before_the_run(project, config, changes, message):
    with pytest.raises(InputError, match=message):
        fit(dataclasses.replace(config, **changes))
    assert not (project / "runs").exists()


def test_an_alias_stands_in_the_configuration_as_what_it_is(config):
    """Or the arm, the statistics and the evaluation would be those of a B-cos network."""
    found = _without_alias(dataclasses.replace(config, model="standard_vitc_ti_patch1_14"))
    assert (found.model, found.variant) == ("vitc_ti_patch1_14", "standard")
    assert _without_alias(dataclasses.replace(config, model="convnext_tiny_bnu")).norm == "batch_uncentered"
    assert _without_alias(config) is config
    with pytest.raises(InputError, match=r'--variant: .* with variant "standard", got "baseline"'):
        _without_alias(dataclasses.replace(config, model="standard_vitc_ti_patch1_14", variant="baseline"))


def test_what_can_only_be_scored_is_not_trained_on(project, config, writer):
    writer(project / "set" / "val", {"ant": 4, "bee": 4})
    with pytest.raises(InputError, match="no images to train on"):
        fit(dataclasses.replace(config, data=f"imagenet:{project / 'set'}", variant="standard"))
    assert not (project / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(project, config):
    with pytest.raises(InputError, match="--device cuda: torch sees no GPU here"):
        fit(dataclasses.replace(config, device="cuda"))
    assert not (project / "runs").exists()


def test_a_store_that_breaks_in_mid_run_is_one_line(project, config, monkeypatch):
    log_batch = MlflowClient.log_batch

    def full(self, run_id, metrics=(), **options):
        if any(m.key == "train/loss" and m.step == 2 for m in metrics):
            raise MlflowException("a long\nstory") from OperationalError(
                "INSERT", {}, Exception("database or disk is full")
            )
        return log_batch(self, run_id, metrics=metrics, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", full)
    with pytest.raises(InputError, match=r"MLflow store .*: database or disk is full -- .* --resume"):
        fit(config)
    monkeypatch.undo()
    monkeypatch.chdir(project)
    (folder,) = (project / "runs").iterdir()
    assert find_run(folder.name).status == "FAILED"
    assert resume(folder.name).run_id == folder.name


def test_a_run_at_work_is_not_resumed(project, config):
    run = TrackedRun.create("vision/x", arm="x", config=config, seed=0, tags={})
    with pytest.raises(InputError, match=f"run {run.id} is at work in another process"):
        TrackedRun.resume(run.id)
    (run.folder / ".last.ckpt.123.part").touch()
    with run:
        pass
    with TrackedRun.resume(run.id) as again:
        assert not list(again.folder.glob(".*.part"))


def test_data_is_found_again_from_another_folder(project, config, monkeypatch, image_folder):
    monkeypatch.chdir(image_folder.parent)
    (image_folder.parent / "uv.lock").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    result = fit(dataclasses.replace(config, data="folder:stripes", epochs=1))
    assert json.loads((result.folder / "config.json").read_text())["data"] == f"folder:{image_folder}"
