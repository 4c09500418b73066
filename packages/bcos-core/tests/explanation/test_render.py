"""Pictures whose colours and opacities can be worked out by hand."""

import math
import re

import pytest
import torch
from bcos_core.explanation import render_rgba


def pixels(*values, channels=6):
    """One image, one row, a pixel for each list of channel values."""
    return torch.tensor(values, dtype=torch.float32).T.view(1, channels, 1, -1)


def rgba(weights, contributions=None, **options):
    """The picture's pixels as rows; the opacity is full where nothing else is said."""
    contributions = torch.ones_like(weights) if contributions is None else contributions
    return render_rgba(weights, contributions, **options)[0, :, 0].T


@pytest.mark.parametrize(
    ("weights", "colour"),
    [
        ([1, 0, 0, 0, 1, 1], [1, 0, 0]),  # for red, against green and blue
        ([0, 1, 0, 1, 0, 1], [0, 1, 0]),
        ([0, 0, 1, 1, 1, 0], [0, 0, 1]),
        ([1, 1, 1, 0, 0, 0], [1, 1, 1]),
        ([0, 0, 0, 1, 1, 1], [0, 0, 0]),
        ([2, 2, 2, 2, 2, 2], [0.5, 0.5, 0.5]),
        ([3, 1, 0, 1, 3, 5], [0.75, 0.25, 0]),
        ([1, -1, -1, -1, 2, 3], [1, 0, 0]),  # negative weights speak for no colour
        ([1e-20, 0, 0, 0, 1e-20, 1e-20], [1, 0, 0]),  # only the proportions count
        ([-1, -1, -1, -1, -1, -1], [0, 0, 0]),
        ([4, 0, 0, 0, 0, 0], [1, 0, 0]),  # a weight on red alone
    ],
)
def test_colours(weights, colour):
    torch.testing.assert_close(rgba(pixels(weights))[0, :3], torch.tensor(colour, dtype=torch.float32))


@pytest.mark.parametrize(("weights", "grey"), [([1, 0], 1), ([0, 1], 0), ([1, 1], 0.5), ([3, 1], 0.75), ([-1, 2], 0)])
def test_grey(weights, grey):
    assert rgba(pixels(weights, channels=2))[0, :3].tolist() == [grey] * 3


def test_opacity_follows_the_positive_contribution():
    """Summed over channels, against the strongest; a pixel that speaks against the class is transparent."""
    contributions = pixels([4, 0], [1, 1], [3, -2], [-5, 1], [0, 0], channels=2)
    alpha = rgba(torch.ones_like(contributions), contributions, percentile=100)[:, 3]
    torch.testing.assert_close(alpha, torch.tensor([1, 0.5, 0.25, 0, 0]))


def test_opacity_is_full_from_the_percentile_on():
    """0, 1, ..., 10: the 50th percentile is 5."""
    contributions = torch.arange(11.0).view(1, 1, 1, 11).expand(1, 2, 1, 11) / 2
    alpha = rgba(torch.ones(1, 2, 1, 11), contributions, percentile=50)[:, 3]
    torch.testing.assert_close(alpha, (torch.arange(11) / 5).clamp(max=1))


def test_few_pixels_among_many_show():
    """One positive pixel in 1000: the percentile is zero, the strongest stands in."""
    contributions = torch.full((1, 2, 1, 1000), -1.0)
    contributions[..., 3] = 0.25
    alpha = rgba(torch.ones_like(contributions), contributions, percentile=50)[:, 3]
    assert alpha.nonzero().tolist() == [[3]]
    assert alpha[3] == 1


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_nothing_positive_is_transparent_throughout(value):
    picture = render_rgba(torch.rand(2, 6, 3, 3), torch.full((2, 6, 3, 3), value))
    assert (picture[:, 3] == 0).all()
    assert picture.isfinite().all()


def test_each_picture_has_its_own_scale():
    contributions = torch.rand(2, 6, 4, 4)
    contributions[1] *= 1e-6
    picture = render_rgba(torch.rand(2, 6, 4, 4), contributions)
    assert (picture[:, 3].amax((1, 2)) == 1).all()
    alone = render_rgba(torch.ones(1, 6, 4, 4), contributions[1:])
    torch.testing.assert_close(picture[1:, 3], alone[:, 3])


def test_smoothing_averages_the_opacity_alone():
    """A box of side 3, over what lies inside the picture: corners over 4 pixels, edges over 6."""
    contributions = torch.zeros(1, 2, 5, 5)
    contributions[0, :, 0, 0] = 18  # twice: two channels
    weights = torch.rand(1, 2, 5, 5)
    picture = render_rgba(weights, contributions, smooth=3, percentile=100)
    expected = torch.zeros(5, 5)
    expected[:2, :2] = torch.tensor([[36 / 4, 36 / 6], [36 / 6, 36 / 9]]) / 9
    torch.testing.assert_close(picture[0, 3], expected)
    assert torch.equal(picture[:, :3], render_rgba(weights, contributions)[:, :3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [2, 6])
def test_range_shape_and_dtype(dtype, channels):
    picture = render_rgba(torch.randn(3, channels, 5, 4, dtype=dtype), torch.randn(3, channels, 5, 4, dtype=dtype))
    assert picture.shape == (3, 4, 5, 4)
    assert picture.dtype == torch.float32
    assert ((picture >= 0) & (picture <= 1)).all()


def test_inputs_are_left_alone():
    weights, contributions = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    before = weights.clone(), contributions.clone()
    render_rgba(weights, contributions, smooth=3)
    assert torch.equal(weights, before[0])
    assert torch.equal(contributions, before[1])


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 4, 4, 4), (6, 4, 4), (1, 6)])
def test_what_is_no_encoding(shape):
    with pytest.raises(ValueError, match=re.escape(f"shape (N, 2 or 6, H, W); got {shape}")):
        render_rgba(torch.rand(shape), torch.rand(shape))


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (2, 6, 4, 4), (1, 6, 4, 5)])
def test_contributions_of_another_shape(shape):
    with pytest.raises(ValueError, match=re.escape(f"contributions: expected shape (1, 6, 4, 4), got {shape}")):
        render_rgba(torch.rand(1, 6, 4, 4), torch.rand(shape))


@pytest.mark.parametrize("smooth", [0, -1, 2, 4])
def test_smooth(smooth):
    with pytest.raises(ValueError, match=f"smooth: expected an odd number >= 1, got {smooth}"):
        render_rgba(torch.rand(1, 6, 4, 4), torch.rand(1, 6, 4, 4), smooth=smooth)


@pytest.mark.parametrize("percentile", [0, -5, 100.5, math.nan])
def test_percentile(percentile):
    with pytest.raises(ValueError, match=re.escape(f"percentile: expected a number in (0, 100], got {percentile}")):
        render_rgba(torch.rand(1, 6, 4, 4), torch.rand(1, 6, 4, 4), percentile=percentile)
