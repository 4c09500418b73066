import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from bcos_eval.report import MissingUnit, Picture, write_report
from bcos_eval.stats import compare_arms, to_lines

VOID = {"meta", "img", "br", "hr", "link", "input"}
STRANGE = ("a<b & c_d%", "bcos | $x$ {é} " + "long_" * 20 + "#^~\\")


class Page(HTMLParser):
    """Text by table row, and what is asked of elsewhere; fails on tags that do not pair."""

    def __init__(self, path):
        super().__init__()
        self.open, self.rows, self.text, self.sources, self.tags = [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def whole(self):
        return " ".join(" ".join(self.text).split())


def minus(text):
    return text.replace("-", "−")


@pytest.mark.parametrize("arms", [2, 10])
def test_every_number_is_the_comparisons(make_study, tmp_path, arms):
    study = make_study([f"arm{i}" for i in range(arms)], gap=0.006, drawn=arms == 2)
    page = Page(write_report(study, tmp_path / "report"))
    accuracy, loss = study.comparisons
    for a in accuracy.arms:
        interval = f"{100 * a.low:.2f}% to {100 * a.high:.2f}%"
        assert [a.arm, f"{100 * a.mean:.2f}%", interval, f"{100 * a.sd:.2f} pp", "5"] in page.rows
    for c in accuracy.contrasts:
        (row,) = (row for row in page.rows if len(row) == 8 and row[0] == f"{c.arm} − {c.control}" and "pp" in row[1])
        ends = minus(f"{100 * c.low:+.2f} to {100 * c.high:+.2f} pp")
        assert row[1:3] == [minus(f"{100 * c.mean:+.2f} pp"), ends]
        for shown, p in zip(row[3:5], (c.p, c.p_holm), strict=True):
            assert shown == "< 0.0001" if p < 1e-4 else abs(float(shown) - p) <= 5e-4
        assert row[5:7] == [minus(f"{c.hedges_g:+.2f}"), minus(f"{c.paired_d:+.2f}")]
        assert [float(x) for x in re.findall(r"(\d+)%", row[7])] == pytest.approx(
            [100 * x for x in (c.bayes.worse, c.bayes.equivalent, c.bayes.better)], abs=0.51
        )
        for test in c.tests:
            assert any(row[:2] == [f"{c.arm} − {c.control}", test.name] for row in page.rows)
            assert test.says in page.whole
    for c in loss.contrasts:
        assert any(row[0] == f"{c.arm} − {c.control}" and row[1] == minus(f"{c.mean:+#.3g}") for row in page.rows)


def test_the_answer_comes_first(make_study, tmp_path):
    text = Page(write_report(make_study(), tmp_path / "report")).whole
    order = ["“bcos” is better than “plain” in accuracy", "95% interval", "Differences in accuracy"]
    order += ["All tests", "What the numbers are of", "What they see.", "Options that differ", "fingerprint"]
    order += ["Time of a unit", "torch", "uv run bcos-eval crossval", "MLflow experiment digits"]
    places = [text.index(piece) for piece in order]
    assert places == sorted(places)


def test_a_level_has_all_its_digits(make_study, tmp_path):
    study = make_study(("plain", "bcos", "third"), alpha=0.005, drawn=True)
    page = Page(write_report(study, tmp_path / "report"))
    text = page.whole + to_lines(study.comparisons[0])
    assert set(re.findall(r"([\d.]+%) interval", text)) == {"99.5%"}
    assert sum("99.5% interval" in row for row in page.rows) == 4  # arms and contrasts of two metrics
    assert "(Nemenyi, 0.5%)" in (tmp_path / "source" / "accuracy-ranks.svg").read_text()


def test_another_level_is_everywhere(make_study, tmp_path):
    study = make_study(("plain", "bcos", "third"), gap=0.003, alpha=0.1, drawn=True)
    write_report(study, tmp_path / "report")
    texts = [(tmp_path / "report" / name).read_text() for name in ("report.html", "report.md", "tables.tex")]
    texts += [to_lines(c) for c in study.comparisons] + [picture.caption for picture in study.pictures]
    texts += [path.read_text() for path in (tmp_path / "source").glob("*.svg")]
    everything = re.sub(r"base64,[\w+/=]+", "", "\n".join(texts))
    assert not re.search(r"\b95 ?\\?%|level 0\.0?25\b|Nemenyi, 5%", everything)
    assert {name: everything.count(name) > 0 for name in ("90% interval", "90\\% interval", "Nemenyi, 10%")} == {
        "90% interval": True,
        "90\\% interval": True,
        "Nemenyi, 10%": True,
    }
    assert "level 0.05" in everything  # 0.1 over two contrasts


def test_what_a_metric_is_stands_by_its_numbers(make_study, tmp_path):
    write_report(make_study(says={"loss": "mean of <cross-entropy>"}), tmp_path / "report")
    whole = Page(tmp_path / "report" / "report.html").whole
    assert whole.count("loss: mean of <cross-entropy>.") == 1
    assert "loss: mean of \\<cross-entropy\\>." in (tmp_path / "report" / "report.md").read_text()
    assert "loss: mean" not in Page(write_report(make_study(), tmp_path / "none")).whole


def test_nothing_is_asked_of_elsewhere(make_study, tmp_path):
    path = write_report(make_study(drawn=True), tmp_path / "report")
    page = Page(path)
    assert page.sources
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    text = re.sub(r"base64,[\w+/=]+", "", path.read_text(encoding="utf-8"))
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_folder_can_move(make_study, tmp_path):
    study = make_study(drawn=True)
    same_name = tmp_path / "other" / "gallery.png"
    same_name.parent.mkdir()
    shutil.copy(study.pictures[0].path, same_name)
    study = replace(study, galleries=(*study.galleries, Picture(same_name, "Another of that name.")))
    write_report(study, tmp_path / "report")
    write_report(study, tmp_path / "report")  # again, over the first
    moved = shutil.move(tmp_path / "report", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "source")
    links = re.findall(r"\]\(<(.*)>\)", (moved / "report.md").read_text())
    assert len(links) == len(set(links)) == len(study.pictures) + 2
    assert sorted(links) == sorted(f"pictures/{path.name}" for path in (moved / "pictures").iterdir())
    assert (moved / "pictures" / "gallery-1.png").read_bytes() == same_name.read_bytes()
    assert str(tmp_path) not in (moved / "report.html").read_text() + (moved / "report.md").read_text()


def test_pictures_in_the_folder_stay_where_they_are(make_study, tmp_path):
    study = make_study()
    path = tmp_path / "report" / "pictures" / "mine.png"
    path.parent.mkdir(parents=True)
    shutil.copy(study.galleries[0].path, path)
    write_report(replace(study, galleries=(Picture(path, "Mine."),)), tmp_path / "report")
    assert [p.name for p in path.parent.iterdir()] == ["mine.png"]
    assert "(<pictures/mine.png>)" in (tmp_path / "report" / "report.md").read_text()


def test_names_stay_what_they_are(make_study, tmp_path):
    study = make_study(STRANGE, title="<i>T</i> & more", drawn=True)
    page = Page(write_report(study, tmp_path / "report"))
    assert "i" not in page.tags
    assert "<i>T</i> & more" in page.whole
    for arm in STRANGE:
        assert sum(row[0] == arm for row in page.rows) >= 4  # two metrics, options, time


def test_missing_units_are_said_with_their_reasons(make_study, tmp_path):
    missing = tuple(
        MissingUnit("bcos", 0, fold, 0, reason) for fold, reason in ((3, "loss is <NaN>"), (4, "not run yet"))
    )
    page = Page(write_report(make_study(missing=2), tmp_path / "whole"))
    assert "2 of 10 units have no scores." in page.whole
    page = Page(write_report(replace(make_study(missing=2), missing=missing), tmp_path / "report"))
    assert page.whole.index("2 of 10 units have no scores.") < page.whole.index("higher is better")
    assert ["bcos", "0", "3", "0", "loss is <NaN>"] in page.rows
    assert "The study is not finished" in page.whole
    assert "no scores" not in Page(write_report(make_study(), tmp_path / "finished")).whole


def test_one_arm_and_no_comparison_is_a_page_too(make_study, tmp_path):
    assert "No answer yet" in Page(write_report(make_study(["bcos"]), tmp_path / "report")).whole
    study = make_study(["bcos"])
    nothing = replace(study, table=replace(study.table, frame=study.table.frame.iloc[:0]))
    assert "5 of 5 units have no scores." in Page(write_report(nothing, tmp_path / "none")).whole


def test_numbers_that_do_not_exist_are_dashes(make_study, make_table, tmp_path):
    table = make_table()
    table.frame["accuracy"] = np.where(table.frame["arm"] == "bcos", 0.75, 0.5)
    study = replace(make_study(), table=table, comparisons=[compare_arms(table, "accuracy", rope=0.005)])
    folder = tmp_path / "report"
    page = Page(write_report(study, folder))
    (row,) = (row for row in page.rows if len(row) == 8 and row[0] == "bcos − plain")
    assert row[2:] == ["–"] * 6
    assert ["bcos", "75.00%", "–", "0.00 pp", "5"] in page.rows
    assert "no difference" not in page.whole.lower()
    assert "Whether “bcos” and “plain” differ in accuracy could not be tested" in page.whole
    for name in ("report.html", "report.md", "tables.tex"):
        text = re.sub(r"base64,[\w+/=]+|p is NaN", "", (folder / name).read_text())
        assert not re.search(r"\bnan\b|\bNone\b", text)


def test_options_are_split_into_differing_and_shared(make_study, tmp_path):
    arms = {"plain": {"model": "resnet20", "b": 1.0}, "bcos": {"model": "resnet20", "b": 2.0, "max_out": 2}}
    page = Page(write_report(make_study(), tmp_path / "a"))
    assert ["arm", "b"] in page.rows
    page = Page(write_report(replace(make_study(), arms=arms), tmp_path / "b"))
    assert ["arm", "b", "max_out"] in page.rows
    assert ["plain", "1", "–"] in page.rows
    assert ["model", "resnet20"] in page.rows


def test_time_is_readable(make_study, tmp_path):
    page = Page(write_report(make_study(), tmp_path / "report"))
    assert "10 min 30 s" in page.whole
    assert "workers' time beyond that of the runs 5.0% " in page.whole  # runs of 800 s in 2 x 420 s
    assert ["plain", "5", "1 min 03 s", "1 min 01 s to 1 min 05 s"] in page.rows


def test_another_kind_of_picture_is_refused(make_study, tmp_path):
    with pytest.raises(ValueError, match=r"expected \.png, \.svg or \.jpg, got plot\.pdf"):
        write_report(make_study(galleries=(Picture(tmp_path / "plot.pdf", ""),)), tmp_path / "report")
