from dataclasses import replace

import pytest
from bcos_eval.report.answer import answer, estimand_sentences
from bcos_eval.stats.result import Bayes, Comparison, Contrast, Power
from bcos_eval.stats.text import power_sentence


def contrast(arm="bcos", mean=0.012, low=0.008, high=0.016, p=0.001, metric="accuracy", **fields):
    given = {
        "metric": metric,
        "arm": arm,
        "control": "plain",
        "differences": (mean, mean),
        "mean": mean,
        "low": low,
        "high": high,
        "confidence": 0.95,
        "estimand": f"Mean difference in {metric}, arm minus control, over folds.",
        "default": "corrected resampled t",
        "tests": (),
        "p": p,
        "p_holm": p,
        "hedges_g": 1.0,
        "paired_d": 1.0,
        "bayes": Bayes(0.005, 0.01, 0.2, 0.79),
        "power": Power(0.007, 40),
    }
    return Contrast(**{**given, **fields})


def comparison(*contrasts, **fields):
    given = {"metric": "accuracy", "higher_is_better": True, "design": "5-fold", "rope": 0.005, "alpha": 0.05}
    return Comparison(**{**given, "arms": (), "interval": "", "contrasts": contrasts, "omnibus": None, **fields})


NAN = float("nan")
UNTESTED = {"p": NAN, "low": NAN, "high": NAN, "bayes": None, "power": None}


def test_a_difference_beyond_the_rope():
    assert answer(comparison(contrast())) == [
        "“bcos” is better than “plain” in accuracy: +1.20 pp (95% interval +0.80 to +1.60 pp; p = 0.0010, corrected "
        "resampled t).",
        "The whole interval lies beyond 0.50 pp, up to which a difference counts as none.",
    ]


def test_no_difference_shown_is_not_called_equal():
    first, second = answer(comparison(contrast(mean=0.002, low=-0.003, high=0.007, p=0.4)))
    assert first == (
        "No difference in accuracy between “bcos” and “plain” was shown; the study could have seen 0.70 pp (power 80%, "
        "level 0.05). Found: +0.20 pp (95% interval −0.30 to +0.70 pp; p = 0.400, corrected resampled t)."
    )
    assert "reaches across the bound of 0.50 pp" in second
    assert "20%" in second
    (_, within) = answer(comparison(contrast(mean=0.001, low=-0.002, high=0.004, p=0.4)))
    assert within.startswith("The whole interval lies within 0.50 pp")


def test_a_lower_loss_is_better():
    found = contrast(metric="loss", mean=-0.03, low=-0.04, high=-0.02, p=0.0)
    lines = answer(comparison(found, metric="loss", higher_is_better=False, rope=0.0))
    assert lines == [
        "“bcos” is better than “plain” in loss: −0.0300 (95% interval −0.0400 to −0.0200; p < 0.0001, "
        "corrected resampled t)."
    ]


def test_many_contrasts_best_first_then_what_was_not_shown():
    contrasts = [
        contrast("worse", -0.01, -0.015, -0.005, 0.01),
        contrast("better", 0.01, 0.005, 0.015, 0.01),
        contrast("same", 0.001, -0.002, 0.004, 0.9, power=Power(0.007, 40, 0.0125)),
        contrast("open", 0.004, -0.002, 0.01, 0.2, power=Power(0.009, None, 0.0125)),
    ]
    head, first, second, rest = answer(comparison(*contrasts))
    assert head == "2 of the 4 contrasts in accuracy show a difference (p adjusted by Holm over all of them)."
    assert first.startswith("“better” is better than “plain”")
    assert second.startswith("“worse” is worse than “plain”")
    assert rest == (
        "For the other 2 no difference was shown (same − plain +0.10 pp, open − plain +0.40 pp); the study could have "
        "seen 0.70 to 0.90 pp (power 80%, level 0.0125). Equivalent for practice, with the whole interval within "
        "0.50 pp: same − plain."
    )
    head, rest = answer(comparison(*contrasts[2:]))
    assert head.startswith("None of the 2 contrasts in accuracy shows")
    assert rest.startswith("No difference was shown")


def test_a_contrast_without_a_test():
    (line,) = answer(comparison(contrast(**UNTESTED)))
    assert line == (
        "Whether “bcos” and “plain” differ in accuracy could not be tested, since the differences do not vary: the "
        "difference is +1.20 pp throughout (no interval, no p, corrected resampled t)."
    )


def test_contrasts_without_a_test_are_not_among_those_that_show_none():
    far, further = contrast("far", 0.25, **UNTESTED), contrast("further", 0.5, **UNTESTED)
    better, open_ = contrast("better", 0.01, p=0.01), contrast("open", 0.004, p=0.2)
    head, _, rest, last = answer(comparison(better, open_, far))
    assert head.startswith("1 of the 3 contrasts in accuracy shows a difference, 1 could not be tested (p adjusted")
    assert rest.startswith("For the other no difference was shown (open − plain +0.40 pp);")
    assert last == "Not tested, since the differences do not vary: far − plain +25.00 pp throughout."
    head, rest, last = answer(comparison(open_, far))
    assert head.startswith("None of the 2 contrasts in accuracy shows a difference, 1 could not be tested")
    assert answer(comparison(far, further)) == [
        "None of the 2 contrasts in accuracy could be tested.",
        "Not tested, since the differences do not vary: far − plain +25.00 pp throughout, further − plain +50.00 pp "
        "throughout.",
    ]


def test_a_difference_that_there_cannot_be_is_not_seen():
    found = contrast(mean=0.02, low=-1.0, high=1.0, p=0.9, power=Power(1.6, None))
    assert "the study could have seen more than the possible 100.00 pp (power 80%" in answer(comparison(found))[0]


@pytest.mark.parametrize(
    ("needed", "design", "takes"),
    [
        (40, "5-fold", "40 folds"),
        (None, "5-fold", "more than 10 000 folds"),
        (9, "5 seeds on one split", "9 seeds of each arm"),
    ],
)
def test_power(needed, design, takes):
    one = comparison(contrast(power=Power(0.007, needed)), design=design)
    assert power_sentence(one) == (
        f"80% of such studies find a true difference of 0.70 pp (level 0.05); to find one of 0.50 pp takes {takes}."
    )
    two = comparison(contrast(power=Power(0.007, 40, 0.025)), contrast(power=Power(0.0091, None, 0.025)))
    assert "0.70 to 0.91 pp (level 0.025: 0.05 over 2 contrasts, Holm's first step)" in power_sentence(two)
    assert "takes 40 to more than 10 000 folds" in power_sentence(two)
    assert power_sentence(comparison(contrast(power=None))) == "unknown, for want of variance."


def test_a_wording_comes_once():
    one = comparison(contrast())
    assert estimand_sentences([one]) == [one.contrasts[0].estimand]
    loss = comparison(contrast(metric="loss"), contrast("other", metric="loss"))
    assert estimand_sentences([one, loss]) == ["Mean difference in each metric, arm minus control, over folds."]
    differs = comparison(contrast(), replace(contrast("other"), estimand="Another."))
    assert len(estimand_sentences([differs])) == 2
