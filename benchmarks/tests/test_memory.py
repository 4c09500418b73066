import torch
from torch import nn

from ..buffers import number_of_copies
from ..memory import kept_bytes, peak_bytes

MIB = 2**20


def test_kept_for_backward_by_a_known_network():
    convolution, linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 16 * 16, 10)
    network = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), linear)
    x = torch.randn(4, 3, 16, 16)
    # convolution keeps its input, ReLU its output; the linear layer's input is a view of that
    floats = x.numel() + 4 * 8 * 16 * 16
    assert kept_bytes(lambda: network(x), network.parameters()) == 4 * floats
    floats += convolution.weight.numel() + linear.weight.numel()
    assert kept_bytes(lambda: network(x), []) == 4 * floats


def test_nothing_is_kept_without_gradients():
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        assert kept_bytes(lambda: layer(torch.ones(2, 4)), []) == 0


def test_peak_counts_what_is_there_at_a_time():
    def run():
        first = torch.empty(MIB, dtype=torch.uint8)
        second = torch.empty(2 * MIB, dtype=torch.uint8)
        del first
        third = torch.empty(MIB // 2, dtype=torch.uint8)
        del second, third

    assert peak_bytes(run, "cpu") == 3 * MIB


def test_copies_outgrow_the_cache_unless_memory_is_short():
    assert number_of_copies(one_set=10, cache=32, memory=10**6) == 7  # 70 > 2 * 32
    assert number_of_copies(one_set=1000, cache=32, memory=10**6) == 2
    assert number_of_copies(one_set=1000, cache=32, memory=4000) == 1
