"""Tables as text."""

from __future__ import annotations

import csv
import io

from deeplayer_cli.report.text_tables import text_table

HEADINGS = ["method", "a|b", "100%"]
ROWS = [["deep_layer & co", "1", "2"], ['with "quotes", and ~^\\{}#$<>', "-", "3"]]


def test_markdown_has_a_rule_and_escapes_bars():
    lines = text_table(HEADINGS, ROWS, "markdown").splitlines()
    assert lines[:2] == ["| method | a\\|b | 100% |", "|---|--:|--:|"]
    assert lines[2] == "| deep_layer & co | 1 | 2 |" and len(lines) == 4


def test_latex_escapes_every_special_character():
    text = text_table(HEADINGS, ROWS, "latex")
    assert text.startswith("\\begin{tabular}{lrr}\n\\toprule\nmethod & a|b & 100\\% \\\\\n\\midrule\n")
    assert "deep\\_layer \\& co & 1 & 2 \\\\" in text
    assert "\\textasciitilde{}\\textasciicircum{}\\textbackslash{}\\{\\}\\#\\$\\textless{}\\textgreater{}" in text
    assert text.endswith("\\bottomrule\n\\end{tabular}")


def test_csv_is_read_back():
    assert list(csv.reader(io.StringIO(text_table(HEADINGS, ROWS, "csv")))) == [HEADINGS, *ROWS]
