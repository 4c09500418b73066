"""``bcos-eval compare``, and the page, of a study whose units are done: by the planned level, and by another."""

import re

import numpy as np
import pytest
from bcos_core.run.config import load_dict
from bcos_eval import conclusion, crossval
from bcos_eval.cli import main
from bcos_eval.commands.planning import open_queue
from bcos_eval.conclusion import conclude
from rich.console import Console
from scipy import stats

SCORES = {"bcos": np.array([0.90, 0.91, 0.93, 0.94]), "baseline": np.array([0.95, 0.94, 0.97, 0.96])}


@pytest.fixture
def study(project, monkeypatch):
    """A study of four seeds that was planned by command, every unit done without a training."""
    arms = ["--arm", "bcos", "--arm", "baseline", "--folds", "1", "--seeds", "4"]
    main(["crossval", "digits", *arms, "--alpha", "0.1", "--name", "planned", "--workers", "0"])
    queue = open_queue("planned", None, retry=False)[0]
    while (attempt := queue.claim()) is not None:
        unit = attempt.unit
        metrics = {"accuracy": SCORES[unit.arm][unit.seed], "completeness_error": 1e-6 * (1 + unit.seed)}
        result = {"num_train": 1437, "num_test": 360, "seconds": 1.0 + unit.seed, "run_id": unit.id}
        queue.complete(attempt, result | {"metrics": metrics})

    class Nothing:
        program, secondary, says = "bcos-vision", ("completeness_error",), {}

        def predictions(self, run_id):
            return None

        def draw_explanations(self, runs, path):
            return None

    monkeypatch.setattr(conclusion, "load_adapter", lambda package: Nothing())
    return queue


def test_a_level_is_carried_from_the_plan_to_the_page_and_can_be_changed(project, study, capsys):
    conclude(study, console=Console(stderr=True))
    printed, folder = capsys.readouterr().out, project / "studies" / "planned"
    assert load_dict(folder / "study.json")["alpha"] == 0.1
    written = [folder / "report" / name for name in ("report.html", "report.md", "tables.tex")]
    page = re.sub(r"base64,[\w+/=]+", "", "\n".join([printed, *(path.read_text() for path in written)]))
    drawn = "\n".join(path.read_text() for path in (folder / "report" / "pictures").glob("*.svg"))
    assert not re.search(r"\b95 ?\\?% |level 0\.05\b", page + drawn)
    assert set(re.findall(r"([\d.]+)\\?% interval", page)) == {"90"}
    assert "(level 0.1)" in page
    ends = stats.ttest_rel(SCORES["baseline"], SCORES["bcos"]).confidence_interval(0.9)
    assert f"[{100 * ends.low:+.2f}, {100 * ends.high:+.2f}]" in printed

    for words, level, confidence in (([], "0.1", 0.9), (["--alpha", "0.01"], "0.01", 0.99)):
        main(["compare", "planned", *words])
        again = capsys.readouterr().out
        ends = stats.ttest_rel(SCORES["baseline"], SCORES["bcos"]).confidence_interval(confidence)
        assert f"[{100 * ends.low:+.2f}, {100 * ends.high:+.2f}]" in again
        assert again.count(f"{100 * confidence:g}% interval") == 2
        assert f"(level {level})" in again


def test_nothing_is_started_where_nothing_is_left_to_do(study, capsys, monkeypatch):
    monkeypatch.setattr(crossval, "tracking_server", lambda: pytest.fail("a server"))
    monkeypatch.setattr(crossval, "_Fleet", lambda *_: pytest.fail("workers"))
    main(["crossval", "--resume", "planned"])
    assert "report: studies/planned/report/report.html" in capsys.readouterr().out


@pytest.mark.parametrize("alpha", ["0", "1", "95"])
def test_what_is_no_level_is_refused(project, capsys, alpha):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "any", "--alpha", alpha])
    assert ended.value.code == 2
    expected = f"bcos-eval compare: error: --alpha: expected a level between 0 and 1, got {float(alpha)}"
    assert capsys.readouterr().err.strip() == expected
