import numpy as np
import pytest
import torch
from bcos_vision.data.picture import fit_box, fit_picture, to_bytes, to_picture
from PIL import Image
from torchvision.transforms import v2


def photograph(height, width):
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / a + columns / b) for a, b in ((3, 5), (7, 2), (4, 9))]
    return Image.fromarray((127 + 120 * np.stack(waves, -1)).astype(np.uint8))


@pytest.mark.parametrize("original", [(50, 75), (75, 50), (33, 47), (40, 40), (90, 31), (17, 20)])
@pytest.mark.parametrize(("size", "resize"), [(32, None), (32, 37), (24, 32)])
def test_geometry_is_torchvisions(original, size, resize):
    picture = photograph(*original)
    expected = v2.Compose([v2.Resize(resize or size), v2.CenterCrop(size), v2.PILToTensor()])(picture)
    torch.testing.assert_close(to_bytes(fit_picture(picture, (size, size), resize)), expected, rtol=0, atol=0)


def test_a_picture_of_the_right_size_stays_as_it_is():
    picture = photograph(20, 30)
    torch.testing.assert_close(to_bytes(fit_picture(picture, (20, 30))), to_bytes(picture), rtol=0, atol=0)


def test_what_is_not_square_is_covered():
    assert fit_picture(photograph(20, 30), (8, 16)).size == (16, 8)
    assert fit_picture(photograph(30, 20), (8, 16)).size == (16, 8)


@pytest.mark.parametrize(("original", "resize"), [((60, 90), None), ((60, 90), 40), ((90, 60), 36), ((32, 32), None)])
def test_a_box_goes_with_what_is_in_it(original, resize):
    for box in ((20, 10, 49, 39), (0, 0, 8, 59), (40, 20, 41, 21), (30, 25, 31, 80)):
        pixels = np.zeros(original, np.uint8)
        pixels[box[1] : box[3] + 1, box[0] : box[2] + 1] = 255
        seen = np.asarray(fit_picture(Image.fromarray(pixels), (32, 32), resize)) > 127
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        x_min, y_min, x_max, y_max = fit_box(box, original, (32, 32), resize)
        if not len(rows):  # cropped away, or nearly: nothing is left of the box either
            assert x_max <= x_min or y_max <= y_min
        else:
            np.testing.assert_allclose(
                (x_min, y_min, x_max, y_max), (columns[0], rows[0], columns[-1], rows[-1]), atol=1
            )


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_and_pictures_turn_into_each_other(channels):
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    assert torch.equal(to_bytes(to_picture(image)), image)
