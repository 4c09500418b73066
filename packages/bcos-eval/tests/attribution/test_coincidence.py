import math

import torch
from bcos_eval.attribution import coincidences, create_attributor


def test_groups_by_direction():
    a = torch.rand(2, 3, 3)
    other = torch.rand(2, 3, 3)
    partly = torch.stack([a[0], other[1]])  # agrees on one image only
    maps = {"a": a, "twice": 2 * a, "other": other, "against": -a, "partly": partly, "other again": other}
    assert coincidences(maps) == [("a", "twice"), ("other", "other again")]


def test_tolerance_is_an_angle():
    turned = torch.tensor([[[math.cos(0.02), math.sin(0.02)]]])
    maps = {"a": torch.tensor([[[1.0, 0.0]]]), "b": turned}
    assert coincidences(maps, tolerance=0.0199) == []
    assert coincidences(maps, tolerance=0.0201) == [("a", "b")]


def test_maps_of_nothing():
    zero, some = torch.zeros(1, 2, 2), torch.rand(1, 2, 2)
    assert coincidences({"a": zero, "b": some, "c": zero}) == [("a", "c")]


def test_on_a_bcos_network_of_zero_baseline_three_methods_are_one(bcos, images, target):
    """Homogeneous networks: integrated gradients, DeepLIFT and input times gradient (arXiv 2111.07668)."""
    options = {"integrated_gradients": {"baseline": "zero"}, "deeplift": {"baseline": "zero"}}
    names = ("bcos", "input_x_gradient", "integrated_gradients", "deeplift")
    maps = {
        name: create_attributor(name, bcos, **options.get(name, {})).attribute(images, target).map for name in names
    }
    assert coincidences(maps) == [("input_x_gradient", "integrated_gradients", "deeplift")]


def test_on_a_network_of_relus_contributions_are_input_times_gradient(plain, images, target):
    names = ("gradient", "input_x_gradient", "bcos")
    maps = {name: create_attributor(name, plain).attribute(images, target).map for name in names}
    assert coincidences(maps) == [("input_x_gradient", "bcos")]
