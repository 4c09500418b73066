"""Tables for a paper (booktabs)."""

from collections.abc import Iterable

from .tables import Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_\allowbreak{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u2212": "$-$",
    "\u2013": "--",
    "\n": " ",
}


def escape_latex(text: str) -> str:
    r"""Text as LaTeX sets it; names may break after an underscore.

    Example:
        >>> escape_latex("50% of a_b")
        '50\\% of a\\_\\allowbreak{}b'
    """
    return "".join(_SPECIAL.get(character, character) for character in text)


def write_latex(tables: Iterable[tuple[str, Table]]) -> str:
    """Tables with labels, each a ``table`` environment.

    Args:
        tables: Label, without its ``tab:``, and table.
    """
    return "% needs \\usepackage{booktabs}; names beyond ASCII need a font that has them\n\n" + "\n".join(
        _environment(label, table) for label, table in tables
    )


def _environment(label: str, table: Table) -> str:
    widest = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    long = "p{0.28\\linewidth}"
    columns = "".join("r" if i not in table.text else long if width > 28 else "l" for i, width in enumerate(widest))
    rows = [" & ".join(map(escape_latex, row)) + r" \\" for row in (table.header, *table.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{escape_latex(table.caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
