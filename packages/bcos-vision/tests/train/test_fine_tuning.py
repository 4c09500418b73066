"""From a plain run, or a B-cos one, to a fine-tuned B-cos one."""

import dataclasses
import shutil

import pytest
import torch
from bcos_core.nn import BcosLayer, LogitLayer, learnt_exponents
from bcos_core.run.error import InputError
from bcos_core.run.tracking import project_root
from bcos_vision.cli import main
from bcos_vision.config import AugmentConfig, ConversionConfig, ExponentConfig, OptimConfig, SplitConfig, TrainConfig
from bcos_vision.data import load_data
from bcos_vision.models import TrainedClassifier, create_model
from bcos_vision.train import fit, resume
from bcos_vision.train.fine_tuning import find_source, fine_tuning, starting_model
from bcos_vision.train.module import ClassifierTraining
from mlflow import MlflowClient
from safetensors.torch import save_file


@pytest.fixture
def plain(project, image_folder):
    """A run of a plain network, and its configuration."""
    config = TrainConfig(
        data=f"folder:{image_folder}",
        variant="standard",
        epochs=3,
        batch_size=8,
        num_explained=8,
        optim=OptimConfig(lr=3e-3, warmup_epochs=1),
    )
    return fit(config, pictures=False), config


def test_fine_tuning_is_a_tenth_of_the_plain_run(plain):
    result, config = plain
    found = fine_tuning(find_source(result.run_id[:8]), None, None)
    assert found.conversion.source == result.run_id
    assert (found.variant, found.model, found.data, found.epochs) == ("bcos", "resnet20", config.data, 1)
    assert (found.exponent.start, found.exponent.rise_epochs) == (1.0, None)
    assert fine_tuning(find_source(result.run_id), "digits", None).epochs == 2


def test_converted_at_b_1_with_everything_kept_it_answers_as_before(plain):
    result, config = plain
    conversion = ConversionConfig(source=result.run_id, biases="keep", pooling="keep")
    changed = dataclasses.replace(config, variant="bcos", b=1.0, conversion=conversion)
    data = load_data(config.data, config.split)
    model, notes = starting_model(changed, data)
    model.eval()
    assert not notes
    images = torch.rand(16, 3, 8, 8)
    expected = result.classifier.model.eval()(images)
    error = (model(images) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5
    assert sum(isinstance(m, BcosLayer) for m in model.modules()) == 22


def test_a_fine_tuned_model_is_read_back_and_goes_on(plain):
    result, _ = plain
    config = fine_tuning(find_source(result.run_id), None, None)
    config = dataclasses.replace(config, epochs=2, num_explained=8)
    tuned = fit(config)
    assert tuned.evaluation.metrics["completeness_error"] < 1e-5
    loaded = TrainedClassifier.load(tuned.folder / "model.safetensors")
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded.model(images), tuned.classifier.model.eval()(images), rtol=0, atol=0)
    assert loaded.model.description["conversion"]["biases"] == "drop"
    with pytest.raises(InputError, match="is finished"):
        resume(tuned.run_id)


def test_with_exponents_that_are_learnt_from_there(plain):
    result, _ = plain
    config = fine_tuning(find_source(str(result.folder / "model.safetensors")), "digits", None)
    data = find_source(result.run_id).config.data
    config = dataclasses.replace(
        config, data=data, augment=TrainConfig().augment, epochs=1, b=1.2, exponent=ExponentConfig(learn="layer")
    )
    tuned = fit(config, pictures=False)
    loaded = TrainedClassifier.load(tuned.folder / "model.safetensors")
    assert torch.equal(learnt_exponents(loaded.model), learnt_exponents(tuned.classifier.model))
    assert learnt_exponents(loaded.model).shape == (22,)


def test_a_checkpoint_of_others_needs_the_name_of_its_network(project, image_folder, tmp_path):
    torch.save(
        create_model("resnet20", num_classes=2, variant="standard").network.state_dict(), tmp_path / "theirs.pth"
    )
    source = find_source(str(tmp_path / "theirs.pth"))
    with pytest.raises(InputError, match="does not say what it was trained on; give --data"):
        fine_tuning(source, None, None)
    config = fine_tuning(source, None, f"folder:{image_folder}")
    model, _ = starting_model(config, load_data(config.data, SplitConfig()))
    assert "conversion" in model.description
    other = dataclasses.replace(config, model="resnet32")
    with pytest.raises(InputError, match=r"taken for a resnet32 \(standard\): --model says what it is"):
        starting_model(other, load_data(config.data, SplitConfig()))


def _weights(model):
    """By the network's own names: a converted one stands in a sequence with its logit bias."""
    return {name.replace("network.", ""): parameter for name, parameter in model.named_parameters()}


@pytest.fixture
def three_classes(writer, tmp_path):
    writer(tmp_path / "three" / "train", {"bee": 30, "cat": 30, "dog": 30})
    writer(tmp_path / "three" / "val", {"bee": 8, "cat": 8, "dog": 8}, seed=1)
    return f"folder:{tmp_path / 'three'}"


@pytest.mark.parametrize("variant", ["standard", "bcos"])
def test_for_other_classes_it_gets_another_head(project, image_folder, three_classes, variant, capsys):
    """All of the body is the source's at the first step, and the run can be read back."""
    source = fit(TrainConfig(data=f"folder:{image_folder}", variant=variant, epochs=1, batch_size=32), pictures=False)
    config = dataclasses.replace(fine_tuning(find_source(source.run_id), None, three_classes), data=three_classes)
    data = load_data(config.data, config.split)
    model, notes = starting_model(config, data)
    assert notes == ("new head, untrained: the source tells 2 classes (ant, ...), three has 3 (bee, cat, dog)",)
    old, new = _weights(source.classifier.model), _weights(model)
    kept = [name for name in old if name.startswith("layer") and ".conv" in name]
    assert len(kept) == 18
    assert all(torch.equal(new[name], old[name]) for name in kept)
    assert new["fc.weight"].shape[0] == 3
    biases = [m.bias for m in model.modules() if isinstance(m, LogitLayer)]
    assert biases == [LogitLayer.prior_bias(3)]
    capsys.readouterr()
    tuned = fit(dataclasses.replace(config, batch_size=32, num_explained=8), pictures=False)
    assert "new head, untrained" in capsys.readouterr().err
    loaded = TrainedClassifier.load(tuned.folder / "model.safetensors")
    assert loaded.classes == ("bee", "cat", "dog")
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded.model(images), tuned.classifier.model.eval()(images), rtol=0, atol=0)
    assert tuned.evaluation.metrics["completeness_error"] < 1e-5


def test_a_bcos_network_goes_on_as_it_is(project, image_folder):
    source = fit(TrainConfig(data=f"folder:{image_folder}", b=1.5, epochs=1, batch_size=32), pictures=False)
    config = fine_tuning(find_source(source.run_id), None, None)
    assert (config.b, config.exponent.start) == (1.5, None)
    data = load_data(config.data, config.split)
    model, notes = starting_model(config, data)
    assert not notes
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(model.eval()(images), source.classifier.model.eval()(images), rtol=0, atol=0)
    assert model.description == source.classifier.model.description
    for changes, message in (
        ({"b": 2.0}, "--b: expected 1.5; --from .* was trained with that B"),
        ({"logit_bias": 0.0}, "--logit_bias: --from .* has its own"),
        ({"exponent": ExponentConfig(start=1.0)}, "--exponent.start: belongs to plain networks"),
        ({"conversion": dataclasses.replace(config.conversion, biases="keep")}, "--conversion.biases: belongs to"),
    ):
        with pytest.raises(InputError, match=message):
            starting_model(dataclasses.replace(config, **changes), data)
    learns, _ = starting_model(dataclasses.replace(config, exponent=ExponentConfig(learn="layer")), data)
    torch.testing.assert_close(learnt_exponents(learns), torch.full((22,), 1.5))
    assert learns.description["learn_b"] == "layer"


def test_learnt_exponents_go_on_from_where_they_are(project, image_folder):
    learnt = ExponentConfig(learn="layer")
    source = fit(TrainConfig(data=f"folder:{image_folder}", epochs=1, batch_size=32, exponent=learnt), pictures=False)
    config = fine_tuning(find_source(source.run_id), None, None)
    assert config.exponent == learnt
    data = load_data(config.data, config.split)
    model, _ = starting_model(config, data)
    assert torch.equal(learnt_exponents(model), learnt_exponents(source.classifier.model))
    with pytest.raises(InputError, match=r"--exponent.learn: expected layer; .* learns its exponents so"):
        starting_model(dataclasses.replace(config, exponent=ExponentConfig(learn="channel")), data)


def test_a_public_checkpoint_of_other_classes(project, three_classes, tmp_path):
    """torchvision's, standard, and the public B-cos zoo's, whose layers hold a linear: each known by its names."""
    plain = create_model("resnet20", num_classes=7, variant="standard").network.state_dict()
    torch.save(plain, tmp_path / "plain.pth")
    bcos = create_model("resnet20", num_classes=7).network
    theirs = {
        f"{n.removesuffix('weight')}linear.weight"
        if isinstance(bcos.get_submodule(n.rpartition(".")[0]), BcosLayer)
        else n: v
        for n, v in bcos.state_dict().items()
    }
    torch.save(theirs, tmp_path / "bcos.pth")
    for name, state, start in (("plain.pth", plain, 1.0), ("bcos.pth", bcos.state_dict(), None)):
        config = fine_tuning(find_source(str(tmp_path / name)), "folder", three_classes)
        assert config.exponent.start == start
        config = dataclasses.replace(config, data=three_classes)
        model, notes = starting_model(config, load_data(config.data, config.split))
        assert notes[0].startswith("new head, untrained: the source tells 7 classes, three has 3")
        assert torch.equal(_weights(model)["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_mistakes(plain, image_folder, capsys, tmp_path):
    result, config = plain
    data = load_data(config.data, config.split)
    source = ConversionConfig(source=result.run_id)
    bcos = dataclasses.replace(config, variant="bcos", conversion=source)
    with pytest.raises(InputError, match=r"--model resnet32: --from .* is a resnet20"):
        starting_model(dataclasses.replace(bcos, model="resnet32"), data)
    with pytest.raises(InputError, match=r"--split: another than that of run .* trained on what is a test here"):
        starting_model(dataclasses.replace(bcos, split=SplitConfig(seed=1)), data)
    with pytest.raises(InputError, match=r"takes 3 channels, digits has 1"):
        starting_model(dataclasses.replace(bcos, data="digits"), load_data("digits", SplitConfig()))
    for arguments, message in {
        ("--from", "nonsense"): "no such run",
        ("--from", "gone.safetensors"): "--from gone.safetensors: no such file",
        ("--from", result.run_id, "--max_out", "2"): "--max_out: the network that --from names has its own",
        ("--from", result.run_id, "--variant", "standard"): 'belongs to variant "bcos", not "standard"',
        ("--conversion.biases", "keep"): "--conversion: needs a network to begin with, --from",
        ("--b", "0.5"): "--b: expected a finite number >= 1, got 0.5",
        ("--exponent.learn", "layer", "--b", "1"): "--b: a learnt exponent starts above 1, where it can move; got 1",
        ("--exponent.objective", "max"): "--exponent.objective max: needs --exponent.learn",
        ("--exponent.learn", "layer", "--exponent.bound", "0.5"): "--exponent.bound: expected at least 1, got 0.5",
        ("--exponent.rise_epochs", "1"): "--exponent.rise_epochs: needs --exponent.start",
        ("--exponent.start", "1", "--optim.ema", "0.9"): "--optim.ema: would average norms",
        ("--exponent.learn", "layer", "--exponent.bound", "1.5"): "--exponent.bound: belongs to --exponent.objective",
        ("--exponent.learn", "layer", "--exponent.strength", "5"): "--exponent.strength: belongs to",
        (
            "--exponent.start",
            "1",
            "--exponent.rise_epochs",
            "99",
        ): "--exponent.rise_epochs: expected at most 18, got 99",
        ("--variant", "baseline", "--exponent.learn", "layer"): '--exponent: belongs to variant "bcos"',
        ("--variant", "baseline", "--bias", "true"): '--bias, --detach: they belong to variant "bcos"',
        ("--variant", "baseline", "--encoding", "inverse"): '--encoding inverse: belongs to variant "bcos"',
    }.items():
        with pytest.raises(SystemExit) as end:
            main(["train", *arguments])
        assert end.value.code == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in last, (arguments, last)


def test_what_the_plain_run_asked_for_itself_is_left_behind(project, image_folder):
    """Options that go with a plain network, or with a whole training, do not end a fine-tuning before it begins."""
    for number, changes in enumerate(
        (
            {"keep": "best", "variant": "standard"},
            {"variant": "baseline", "temperature": 2.0, "logit_bias": -4.0},
            {"variant": "baseline", "encoding": "standardised", "optim": OptimConfig(ema=0.9, ema_every=2)},
        )
    ):
        plain = fit(
            TrainConfig(data=f"folder:{image_folder}", epochs=1, batch_size=32, seed=number, **changes), pictures=False
        )
        config = fine_tuning(find_source(plain.run_id), None, None)
        assert (config.keep, config.temperature, config.encoding, config.logit_bias) == ("last", 1, None, None)
        assert config.optim.ema == 0
        model, _ = starting_model(config, load_data(config.data, config.split))
        biases = [m.bias for m in model.modules() if isinstance(m, LogitLayer)]
        assert biases == [changes.get("logit_bias", 0.0)] or "logit_bias" not in changes  # once, not twice


def test_a_run_goes_on_when_its_source_is_gone(project, image_folder, tmp_path, monkeypatch):
    plain = fit(TrainConfig(data=f"folder:{image_folder}", variant="standard", epochs=1, batch_size=32), pictures=False)
    file = shutil.copy(plain.folder / "model.safetensors", tmp_path / "plain.safetensors")
    config = fine_tuning(find_source(str(file)), None, f"folder:{image_folder}")
    config = dataclasses.replace(config, epochs=2, batch_size=32, num_explained=8, augment=AugmentConfig())
    whole = fit(config, pictures=False)

    def stop(self):
        if self.current_epoch == 1:
            raise KeyError("stopped")
        original(self)

    original = ClassifierTraining.on_train_epoch_start
    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTraining, "on_train_epoch_start", stop)
        with pytest.raises(KeyError, match="stopped"):
            fit(config, pictures=False)
    client = MlflowClient(f"sqlite:///{project_root() / 'mlflow.db'}")
    experiment = client.get_run(whole.run_id).info.experiment_id
    (broken,) = client.search_runs([experiment], "attributes.status = 'FAILED'")
    (tmp_path / "plain.safetensors").unlink()
    again = resume(broken.info.run_id, pictures=False)
    for name, value in whole.classifier.model.state_dict().items():
        assert torch.equal(again.classifier.model.state_dict()[name], value), name


def test_a_file_in_a_runs_folder_knows_what_was_held_out(plain):
    result, config = plain
    source = find_source(str(result.folder / "model.safetensors"))
    assert source.config.split == config.split
    other = dataclasses.replace(fine_tuning(source, None, None), split=SplitConfig(seed=3))
    with pytest.raises(InputError, match=r"--split: another than that of run"):
        starting_model(other, load_data(other.data, other.split))


def test_our_own_network_in_a_file_of_others(project, image_folder, tmp_path):
    network = create_model("resnet20", num_classes=2, variant="standard").network
    save_file({name: v.contiguous() for name, v in network.state_dict().items()}, tmp_path / "theirs.safetensors")
    source = find_source(str(tmp_path / "theirs.safetensors"))
    assert not source.described
    config = fine_tuning(source, None, f"folder:{image_folder}")
    assert starting_model(config, load_data(config.data, config.split))[0].is_bcos
