"""Batch norms over processes, against the same norm of one process that has the whole batch."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from bcos_core.nn import BatchNorm2d, BatchNormUncentered2d, synchronise_batch_norms

NORMS = [(BatchNormUncentered2d, True), (BatchNormUncentered2d, False), (BatchNorm2d, True), (BatchNorm2d, False)]
SHARES = (3, 2)  # of an odd batch


def sample():
    generator = torch.Generator().manual_seed(0)
    x = 5 + torch.randn(sum(SHARES), 4, 3, 2, dtype=torch.float64, generator=generator)
    return x, torch.randn(x.shape, dtype=torch.float64, generator=generator)


def one_step(kind, bias, x, upstream, synchronised):
    norm = kind(4, bias=bias).double()
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    synchronise_batch_norms(norm, synchronised)
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(upstream)
    gradients = [p.grad for p in norm.parameters()]
    return y.detach(), x.grad, gradients, [b.clone() for b in norm.buffers()]


def share(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(SHARES))
    x, upstream = (t.split(SHARES)[rank] for t in sample())
    torch.save([one_step(kind, bias, x, upstream, True) for kind, bias in NORMS], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_processes_together_are_one(tmp_path):
    # each a run of this file: a module of tests has no name by which another process could import it
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(len(SHARES))]
    assert [process.wait(120) for process in processes] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(SHARES))]
    x, upstream = sample()
    for (kind, bias), *parts in zip(NORMS, *found, strict=True):
        y, grad_x, gradients, buffers = one_step(kind, bias, x, upstream, False)
        options = {"rtol": 1e-12, "atol": 1e-12}
        torch.testing.assert_close(torch.cat([p[0] for p in parts]), y, **options)
        torch.testing.assert_close(torch.cat([p[1] for p in parts]), grad_x, **options)
        torch.testing.assert_close([sum(g) for g in zip(*(p[2] for p in parts), strict=True)], gradients, **options)
        for part in parts:
            torch.testing.assert_close(part[3], buffers, **options)


def test_only_norms_that_can_be_synchronised():
    with pytest.raises(ValueError, match=r"1: expected a batch norm of bcos_core.nn, .* got BatchNorm1d"):
        synchronise_batch_norms(torch.nn.Sequential(BatchNorm2d(2), torch.nn.BatchNorm1d(2)))


if __name__ == "__main__":
    share(int(sys.argv[1]), sys.argv[2])
