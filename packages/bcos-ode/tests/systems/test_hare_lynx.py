"""The real series, against what is known of it."""

import numpy as np
from bcos_ode.systems import hare_lynx


def test_the_years():
    data = hare_lynx()
    assert (data.variables, data.states.shape, data.system, data.clean) == (("hare", "lynx"), (1, 21, 2), None, None)
    np.testing.assert_array_equal(data.times, np.arange(21))  # 1900 to 1920
    hare, lynx = data.states[0].T
    # peaks and troughs: the lynx a year or two behind
    assert 1900 + hare.argmax() == 1903
    assert 1900 + lynx.argmax() == 1904
    assert (hare[12:].argmax() + 1912, lynx[10:].argmax() + 1910) == (1913, 1915)
    assert (hare.max(), lynx.max(), hare[0], lynx[0], hare[-1], lynx[-1]) == (77.4, 59.4, 30, 4, 24.7, 8.6)
    np.testing.assert_allclose([hare.mean(), lynx.mean()], [34.08, 20.17], atol=0.01)
