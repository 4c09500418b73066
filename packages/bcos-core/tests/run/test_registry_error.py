"""Names and the nearest ones."""

import pytest
from bcos_core.run.error import InputError, unknown_name
from bcos_core.run.registry import Registry


@pytest.fixture
def registry():
    registry = Registry("model")
    registry.register("resnet20")(20)

    @registry.register("resnet56")
    def build():
        return 56

    assert build() == 56  # the decorator gives back what it was given
    return registry


def test_is_a_mapping(registry):
    assert registry["resnet20"] == 20
    assert registry["resnet56"]() == 56
    assert list(registry) == ["resnet20", "resnet56"]
    assert len(registry) == 2
    assert "resnet20" in registry
    assert "vgg" not in registry
    assert 3 not in registry
    assert dict(registry).keys() == registry.keys()


def test_get_has_a_default(registry):
    assert registry.get("resnet20") == 20
    assert registry.get("vgg") is None
    assert registry.get("vgg", 11) == 11


def test_unknown_name(registry):
    with pytest.raises(InputError) as error:
        registry["resnet21"]
    assert str(error.value) == 'unknown model "resnet21"; did you mean "resnet20"? Known: resnet20, resnet56'
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_registering_twice(registry):
    with pytest.raises(ValueError, match='model "resnet20" is registered already') as error:
        registry.register("resnet20")
    assert not isinstance(error.value, InputError)  # a programmer's mistake
    assert registry["resnet20"] == 20


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (["alpha", "beta"], 'unknown preset "alhpa"; did you mean "alpha"? Known: alpha, beta'),
        (["gamma"], 'unknown preset "alhpa". Known: gamma'),
        ([], 'unknown preset "alhpa". Known: none'),
        (iter(["alpha"]), 'unknown preset "alhpa"; did you mean "alpha"? Known: alpha'),
    ],
)
def test_messages(known, message):
    error = unknown_name("preset", "alhpa", known)
    assert isinstance(error, InputError)
    assert isinstance(error, ValueError)
    assert str(error) == message
