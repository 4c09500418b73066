import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..buffers import make_buffers
from ..cases import CASES
from ..peers import layer
from ..roofline import Ceilings, Work, work


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_work_is_that_of_the_plain_layer(case):
    case = dataclasses.replace(case, batch=2, size=min(case.size, 8), max_out=1)
    buffers = make_buffers(case, "cpu", torch.float32)
    plain = layer(case, "plain")
    x, grad = buffers.x[0], buffers.grads[case.out_channels][0]
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        y = plain(x, buffers.weight, case.b)
    assert y.shape == case.y_shape
    inputs = x.nbytes + buffers.weight.nbytes
    assert work(case, "forward", 4) == Work(inputs + y.nbytes, forward.get_total_flops())

    moved = inputs + y.nbytes + (inputs + grad.nbytes) + inputs  # forward; read; written
    with FlopCounterMode(display=False) as both:
        buffers.run(plain, "forward+backward", 0)
    # torch's counter takes the weight gradient of a grouped convolution for that of a dense one
    flops = both.get_total_flops() if case.groups == 1 else 3 * forward.get_total_flops()
    assert work(case, "forward+backward", 4) == Work(moved, flops)


def test_the_longer_of_moving_and_computing_is_the_limit():
    assert Ceilings(bytes_per_s=10, flops_per_s=1000).seconds(Work(20, 500)) == 2
    assert Ceilings(bytes_per_s=10, flops_per_s=100).seconds(Work(20, 500)) == 5
