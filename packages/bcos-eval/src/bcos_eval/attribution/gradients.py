"""Methods that differentiate: of captum, but for the contributions, which are ours.

All of them attribute the target logit to the encoded input and add up its channels.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from bcos_core import explain
from bcos_core.run.error import InputError
from captum.attr import DeepLift, GuidedBackprop, InputXGradient, IntegratedGradients, NoiseTunnel
from captum.attr import Saliency as CaptumSaliency
from torch import Tensor, nn

from .baseline import Baseline, encoded_baseline
from .preflight import preflight
from .subject import Found, Subject, at_least, relative_residual


def contributions(subject: Subject, images: Tensor, target: Tensor) -> Found:
    """By :func:`bcos_core.explain`; of a network of ReLUs they are input times gradient."""
    found = explain(subject.model, images, target)
    return found.contribution_map, found.completeness_error


def saliency(subject: Subject, images: Tensor, target: Tensor) -> Found:
    return _gradient(subject).attribute(subject.encode(images), target, abs=True).sum(1), None


def gradient(subject: Subject, images: Tensor, target: Tensor) -> Found:
    return _gradient(subject).attribute(subject.encode(images), target, abs=False).sum(1), None


def input_x_gradient(subject: Subject, images: Tensor, target: Tensor) -> Found:
    method = InputXGradient(subject.network)
    method.gradient_func = subject.gradient
    return method.attribute(subject.encode(images), target).sum(1), None


def integrated_gradients(
    subject: Subject, images: Tensor, target: Tensor, *, baseline: Baseline = "grey", steps: int = 50
) -> Found:
    """Sundararajan et al., ICML 2017, arXiv 1703.01365; in ``steps`` points of a Gauss-Legendre quadrature."""
    x, reference = subject.encode(images), encoded_baseline(baseline, subject, images)
    method = IntegratedGradients(subject.network)
    method.gradient_func = subject.gradient
    found = method.attribute(x, reference, target, n_steps=at_least(1, "steps", steps)).sum(1)
    return found, relative_residual(subject.total(x, reference, target), found.double().sum((1, 2)))


def deeplift(subject: Subject, images: Tensor, target: Tensor, *, baseline: Baseline = "grey") -> Found:
    """Shrikumar et al., ICML 2017, arXiv 1704.02685, the Rescale rule, on a repaired copy of the network.

    What has no rule, such as a B-cos layer's scale or a GELU, keeps its gradient; the residual tells what that costs.
    """
    x, reference = subject.encode(images), encoded_baseline(baseline, subject, images)
    method = DeepLift(_repaired("deeplift", subject, x))
    maps = []
    for one in range(len(x)):  # captum's rule for max pooling mixes images, where an input equals the baseline
        i = slice(one, one + 1)
        with _quiet("Setting forward, backward hooks and attributes on non-linear"):
            maps.append(method.attribute(x[i].detach().requires_grad_(), reference[i], target[i]).detach().sum(1))
    found = torch.cat(maps)
    return found, relative_residual(subject.total(x, reference, target), found.double().sum((1, 2)))


def guided_backprop(subject: Subject, images: Tensor, target: Tensor) -> Found:
    """Springenberg et al., arXiv 1412.6806; on a network without ReLUs it is the gradient."""
    x = subject.encode(images)
    with _quiet("Setting backward hooks on ReLU"):
        return GuidedBackprop(_repaired("guided_backprop", subject, x)).attribute(x, target).sum(1), None


def smoothgrad(subject: Subject, images: Tensor, target: Tensor, *, samples: int = 25, noise: float = 0.15) -> Found:
    """Smilkov et al., arXiv 1706.03825: the mean of the gradients of ``samples`` noisy inputs, signs and all.

    The noise's standard deviation is the share ``noise`` of the range of the encoded input, which it is added to.
    """
    at_least(1, "samples", samples)
    if not noise > 0:
        raise InputError(f"noise: expected a share of the input's range, > 0, got {noise}")
    x = subject.encode(images)
    spread = noise * float(x.detach().max() - x.detach().min())
    tunnel = NoiseTunnel(_gradient(subject))
    found = tunnel.attribute(x, nt_samples=samples, stdevs=spread, target=target, abs=False)
    assert isinstance(found, Tensor)
    return found.sum(1), None


def _gradient(subject: Subject) -> CaptumSaliency:
    method = CaptumSaliency(subject.network)
    method.gradient_func = subject.gradient
    return method


def _repaired(name: str, subject: Subject, encoded: Tensor) -> nn.Module:
    network, report = preflight(subject.network, encoded[:1])
    if report.unrepaired:
        raise InputError(
            f"{name}: its rules need every ReLU and max pooling to be a module used once, and in this network "
            f"{'; '.join(report.unrepaired)}"
        )
    return network


@contextmanager
def _quiet(message: str) -> Iterator[None]:
    """Without captum's notice that it sets hooks, on a copy of ours, and removes them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield
