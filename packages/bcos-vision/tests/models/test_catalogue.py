import pytest
import torch
from bcos_core.run.error import InputError
from bcos_vision import create_model
from bcos_vision.models import TrainedClassifier, aliases, catalogue, list_models, replace_head
from bcos_vision.models.card import model_card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet21"}, 'unknown model "resnet21"; did you mean "resnet'),
        ({"name": "resnet20", "variant": "baselin"}, 'unknown variant "baselin"; did you mean "baseline"'),
        ({"name": "resnet20", "norm": "batchnorm"}, 'unknown norm "batchnorm"; did you mean "batch"'),
        ({"name": "resnet20", "stem": "imagenet"}, 'stem: expected "cifar", .* got "imagenet"'),
        ({"name": "resnet20", "in_channels": 2}, "in_channels: expected 1 or 3, got 2"),
        ({"name": "resnet20", "temperature": 0.0}, "temperature > 0"),
        ({"name": "resnet20", "variant": "standard", "temperature": 2.0}, 'belong to variants "bcos" and "baseline"'),
        ({"name": "vgg11_bnu", "norm": "batch"}, 'norm: vgg11_bnu is vgg11 with norm "batch_uncentered", got "batch"'),
        ({"name": "standard_vitc_ti_patch1_14", "variant": "baseline"}, 'variant: .* with variant "standard"'),
        ({"name": "resnet20", "weights": "nowhere.pth"}, "nowhere.pth: no such file"),
        ({"name": "resnet20", "num_classes": 0}, "num_classes: expected at least 1, got 0"),
        ({"name": "resnet20", "variant": "standard", "b": 1.5}, 'belong to variant "bcos"'),
        ({"name": "resnet20", "b": 0.5}, "b: expected a finite number >= 1, got 0.5"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)


def test_saved_classifier_loads_as_it_was(tmp_path):
    model = create_model("resnet20", num_classes=3, in_channels=1, b=1.5, max_out=2, norm="group_uncentered").eval()
    trained = TrainedClassifier(model, ("a", "b", "c"), (8, 8), "somewhere")
    trained.save(tmp_path / "model.safetensors")
    loaded = TrainedClassifier.load(tmp_path / "model.safetensors")
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(loaded.model(images), model(images), rtol=0, atol=0)
    assert (loaded.classes, loaded.image_size, loaded.data) == (("a", "b", "c"), (8, 8), "somewhere")
    assert loaded.model.description == model.description


def test_plain_classifier_keeps_its_statistics(tmp_path):
    model = create_model("resnet20", num_classes=2, variant="baseline", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    TrainedClassifier(model, ("a", "b"), (8, 8), "x").save(tmp_path / "m.safetensors")
    loaded = TrainedClassifier.load(tmp_path / "m.safetensors").model
    torch.testing.assert_close(loaded.encode(torch.zeros(1, 3, 1, 1)).flatten(), torch.tensor([-0.25, -0.4, -0.5]))


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    TrainedClassifier(create_model("resnet20", num_classes=2), ("a", "b"), (8, 8), "x").save(path)
    create_model("resnet20", num_classes=2, weights=path)
    with pytest.raises(InputError, match=r"of another architecture \(\d+ missing: .*layer1.3"):
        create_model("resnet32", num_classes=2, weights=path)
    with pytest.raises(InputError, match=r"1 of another shape: network.fc.weight \(2, 64, 1, 1\) instead of \(3,"):
        create_model("resnet20", num_classes=3, weights=path)
    with pytest.raises(InputError, match=r"missing: encoding.mean, encoding.std"):
        create_model("resnet20", num_classes=2, variant="standard", weights=path)


@pytest.mark.parametrize("variant", ["bcos", "baseline", "standard"])
@pytest.mark.parametrize("name", list_models())
def test_a_new_head_is_all_that_depends_on_the_classes(name, variant):
    """No architecture says which layer its head is: of each it is what changes shape with the number of classes."""
    with torch.device("meta"):
        model = create_model(name, num_classes=7, variant=variant)
        other = create_model(name, num_classes=9, variant=variant)
        new = replace_head(model, 9)
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (model, other, new)]
    assert shapes[1] == shapes[2]
    changed = {n for n in shapes[0] if shapes[0][n] != shapes[1][n]}
    head = catalogue._head(model)
    assert changed == {n for n in shapes[0] if n.startswith(f"{head}.")} != set()


def test_class_index_by_name_or_number():
    trained = TrainedClassifier(create_model("resnet20", num_classes=2), ("ant", "bee"), (8, 8), "x")
    assert trained.class_index("bee") == trained.class_index("1") == 1
    with pytest.raises(InputError, match='unknown class "be"; did you mean "bee"'):
        trained.class_index("be")


def test_cards_count_the_multiply_adds():
    card = model_card("resnet20", "standard")
    # by hand: output pixels x kernel x input channels x filters
    stem = 32 * 32 * 9 * 3 * 16
    stages = sum(
        side * side * 9 * w * w * 5 + side * side * (9 * w // 2 * w + w // 2 * w) for side, w in ((16, 32), (8, 64))
    )
    first = 32 * 32 * 9 * 16 * 16 * 6
    assert card.multiply_adds == stem + first + stages + 64 * 10
    assert card.image_size == 32


def test_aliases_are_what_they_stand_for():
    with torch.device("meta"):
        for name, alias in aliases().items():
            model = create_model(name)
            assert model.description["name"] == alias.model
            assert {k: model.description[k] for k in alias.arguments} == dict(alias.arguments)
            assert model.description["variant"] == alias.arguments.get("variant", "bcos")


def test_logits_have_the_bias_and_temperature_asked_for():
    options = {"num_classes": 4, "variant": "baseline"}
    torch.manual_seed(0)
    plain = create_model("resnet20", **options, logit_bias=0.0).eval()
    torch.manual_seed(0)
    other = create_model("resnet20", **options, logit_bias=-3.0, temperature=0.5).eval()
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(other(images), plain(images) / 0.5 - 3)


@pytest.mark.parametrize("contents", [b"no archive", None])
def test_files_without_tensors_are_refused(tmp_path, contents):
    path = tmp_path / "model.pth"
    if contents is None:
        torch.save({"epoch": 3, "state_dict": {"weight": [1.0]}}, path)
    else:
        path.write_bytes(contents)
    with pytest.raises(
        InputError, match=r"model.pth: (no readable checkpoint|expected a state dict|holds more than tensors)"
    ):
        create_model("resnet20", weights=path)


def test_a_file_of_ours_with_other_constants_is_refused(tmp_path):
    """They are in no tensor: B = 1.5 would be loaded as 2."""
    path = tmp_path / "m.safetensors"
    TrainedClassifier(create_model("resnet20", num_classes=2, b=1.5), ("a", "b"), (8, 8), "x").save(path)
    with pytest.raises(InputError, match=r"holds a model with b 1.5, got 2.0"):
        create_model("resnet20", num_classes=2, weights=path)
    create_model("resnet20", num_classes=2, b=1.5, weights=path)
