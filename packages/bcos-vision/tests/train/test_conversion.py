"""From a plain run to a fine-tuned B-cos one."""

import dataclasses

import pytest
import torch
from bcos_core.nn import BcosLayer, learnt_exponents
from bcos_core.run.error import InputError
from bcos_vision.cli import main
from bcos_vision.config import ConversionConfig, ExponentConfig, OptimConfig, SplitConfig, TrainConfig
from bcos_vision.data import load_data
from bcos_vision.models import TrainedClassifier, create_model
from bcos_vision.train import fit, resume
from bcos_vision.train.conversion import convert, find_source, fine_tuning


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
    assert (found.exponent.start, found.exponent.rise_epochs) == (1.0, 0.25)
    assert fine_tuning(find_source(result.run_id), "digits", None).epochs == 2


def test_converted_at_b_1_with_everything_kept_it_answers_as_before(plain):
    result, config = plain
    conversion = ConversionConfig(source=result.run_id, biases="keep", pooling="keep")
    changed = dataclasses.replace(config, variant="bcos", b=1.0, conversion=conversion)
    data = load_data(config.data, config.split)
    model = convert(changed, data).eval()
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
    with pytest.raises(InputError, match=r"expected a plain network .* it is a B-cos one"):
        fine_tuning(find_source(tuned.run_id), None, None)
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
    model = convert(config, load_data(config.data, SplitConfig()))
    assert "conversion" in model.description


def test_mistakes(plain, image_folder, capsys, tmp_path):
    result, config = plain
    data = load_data(config.data, config.split)
    source = ConversionConfig(source=result.run_id)
    bcos = dataclasses.replace(config, variant="bcos", conversion=source)
    with pytest.raises(InputError, match=r"--model resnet32: --from .* is a resnet20"):
        convert(dataclasses.replace(bcos, model="resnet32"), data)
    with pytest.raises(InputError, match=r"--split: another than that of run .* trained on what is a test here"):
        convert(dataclasses.replace(bcos, split=SplitConfig(seed=1)), data)
    with pytest.raises(InputError, match=r"it tells 2 classes \(ant, ...\), digits has 10"):
        convert(dataclasses.replace(bcos, data="digits"), load_data("digits", SplitConfig()))
    for arguments, message in {
        ("--from", "nonsense"): "no such run",
        ("--from", "gone.safetensors"): "--from gone.safetensors: no such file",
        ("--from", result.run_id, "--max_out", "2"): "--max_out: the network that --from names has its own",
        ("--from", result.run_id, "--variant", "standard"): 'belongs to variant "bcos", not "standard"',
        ("--conversion.biases", "keep"): "--conversion: needs a plain network to convert, --from",
        ("--b", "0.5"): "--b: expected a finite number >= 1, got 0.5",
        ("--exponent.learn", "layer", "--b", "1"): "--b: a learnt exponent starts above 1, where it can move; got 1",
        ("--exponent.objective", "max"): "--exponent.objective max: needs --exponent.learn",
        ("--exponent.learn", "layer", "--exponent.bound", "0.5"): "--exponent.bound: expected at least 1, got 0.5",
        ("--exponent.start", "1"): "--exponent.start, --exponent.rise_epochs: each needs the other",
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
