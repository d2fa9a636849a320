"""The table in LaTeX (booktabs), for pdflatex, xelatex and lualatex."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jepa_lab.tables.cells import Cell, Column, TextTable

_HEADER = r"""% In the preamble: \usepackage[T1]{fontenc} \usepackage{array,booktabs,graphicx}
% In the text:     \input{table.tex}
"""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "−": r"\ensuremath{-}",
    "–": "--",
    "…": r"\ldots{}",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "-": "{-}",  # two of them would become a dash
    " ": " ",
}
_GREEK = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "η": "eta", "θ": "theta", "κ": "kappa"},
    **{"λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi"},
    **{"χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Π": "Pi"},
    **{"Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega"},
}
_NOT_IN_T1 = "ĦħĸĿŀŉŦŧ"  # of Latin-1 and Latin Extended-A
_BREAKS = re.compile(r"(?<=[/.=,:_])(?=[A-Za-z])")


def render_latex(table: TextTable, footnotes: Sequence[str]) -> str:
    """A table environment as wide as the text, with its footnotes below."""
    layout = "".join("r" if column.numeric else r">{\raggedright\arraybackslash}p{5cm}" for column in table.columns)
    lines = [
        _HEADER + r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{layout}@{{}}}}",
        r"\toprule",
        " & ".join(_heading(column) for column in table.columns) + r" \\",
        r"\midrule",
        *(
            " & ".join(_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)) + r" \\"
            for row in table.rows
        ),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip",
        r"\begin{minipage}{\textwidth}\footnotesize\raggedright",
        *(escape_latex(note, breakable=True) + r"\par" for note in footnotes),
        r"\end{minipage}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def escape_latex(text: str, breakable: bool = False) -> str:
    """The text as LaTeX that shows it.

    A character that pdflatex's fonts lack is written as its code point, such as U+57FA.

    Args:
        breakable: whether lines may end within a long key such as `predictor.embed_dim`.
    """
    escaped = "".join(_escape(character) for character in text)
    return _BREAKS.sub(lambda _: r"\allowbreak{}", escaped) if breakable else escaped


def _escape(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _GREEK:
        return rf"\ensuremath{{\{_GREEK[character]}}}"
    if character.isspace():
        return " "
    if character.isascii() and character.isprintable():
        return character
    if character.isalpha() and "À" <= character <= "ž" and character not in _NOT_IN_T1:
        return character
    return f"U+{ord(character):04X}"


def _heading(column: Column) -> str:
    if not column.detail:
        return escape_latex(column.heading)
    return rf"\shortstack[r]{{{escape_latex(column.heading)} \\ {escape_latex(column.detail)}}}"


def _cell(cell: Cell, column: Column) -> str:
    text = escape_latex(cell.text, breakable=not column.numeric)
    if text.startswith("["):
        text = "{}" + text  # or it would be the optional argument of the \\ before
    return rf"\textbf{{{text}}}" if cell.bold else text
