import csv
import re

from bcos_eval.report import write_report
from bcos_eval.report.latex import escape_latex
from bcos_eval.report.markdown import escape_markdown

STRANGE = ("a<b & c_d%", "x|y $z$ {é} #^~\\ `q` *w*")


def test_markdown_tables_have_their_columns(make_study, tmp_path):
    write_report(make_study((*STRANGE, "third"), drawn=True), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 8
    for table in tables:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1
        assert re.fullmatch(r"\|( :?-+:? \|)+", table.splitlines()[1])
    assert "\n\n\n\n" not in text


def test_markdown_says_what_the_page_says(make_study, tmp_path):
    study = make_study()
    write_report(study, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    (c,) = study.comparisons[0].contrasts
    assert f"+{100 * c.mean:.2f} pp" in text
    for heading in (
        "Accuracy",
        "Loss",
        "All tests",
        "Explanations",
        "Arms",
        "Data",
        "Time",
        "Versions",
        "Run it again",
    ):
        assert f"\n## {heading}\n" in text


def test_markdown_text_means_nothing_to_markdown():
    for text in STRANGE:
        escaped = escape_markdown(text)
        assert not re.search(r"(?<!\\)[*_`|<$]", escaped)
        assert re.sub(r"\\([\\`*_\[\]<>|&~$#])", r"\1", escaped) == text


def test_latex_text_means_nothing_to_latex(make_study, tmp_path):
    write_report(make_study(STRANGE), tmp_path / "report")
    text = (tmp_path / "report" / "tables.tex").read_text()
    tables = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    assert len(tables) == 4  # arms and contrasts of two metrics
    for table in tables:
        columns = len(re.sub(r"p\{[^}]*\}+", "p", re.search(r"\\begin\{tabular\}\{(.*)\}\n", table)[1]))
        body = table[table.index(r"\toprule") : table.index(r"\bottomrule")]
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}
        assert not re.search(r"(?<!\\)[%#_]", body)
        assert body.count("{") - body.count(r"\{") == body.count("}") - body.count(r"\}")
    assert escape_latex("\\_") == r"\textbackslash{}\_\allowbreak{}"
    assert "−" not in text


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_files_hold_every_bit(make_study, tmp_path):
    study = make_study((*STRANGE, "third"))
    folder = tmp_path / "report"
    write_report(study, folder)
    summaries = [(c.metric, a) for c in study.comparisons for a in c.arms]
    for row, (metric, arm) in zip(rows(folder / "arms.csv"), summaries, strict=True):
        assert (row["metric"], row["arm"]) == (metric, arm.arm)
        assert [float(row[name]) for name in ("mean", "low", "high", "sd")] == [arm.mean, arm.low, arm.high, arm.sd]
        assert tuple(map(float, row["values"].split())) == arm.values
    contrasts = [c for comparison in study.comparisons for c in comparison.contrasts]
    tests = rows(folder / "contrasts.csv")
    assert [float(row["p"]) for row in tests] == [t.p for c in contrasts for t in c.tests]
    for row, c in zip((row for row in tests if row["is_default"] == "True"), contrasts, strict=True):
        assert float(row["p"]) == c.p
        assert [float(row[name]) for name in ("mean", "low", "high", "p_holm")] == [c.mean, c.low, c.high, c.p_holm]
        assert [float(row[name]) for name in ("better", "detectable")] == [c.bayes.better, c.power.detectable]
        assert float(row["power_level"]) == c.power.alpha == 0.05 / 2
    for row, unit in zip(rows(folder / "units.csv"), study.table.frame.itertuples(), strict=True):
        assert (row["arm"], float(row["accuracy"]), int(row["fold"])) == (unit.arm, unit.accuracy, unit.fold)
