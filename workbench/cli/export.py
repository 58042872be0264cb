"""`workbench export`: the dictionary of a run in the layout of another tool."""

from __future__ import annotations

from pathlib import Path

from workbench.cli.parser import Parser, check_flags
from workbench.errors import UserError

HELP = "write a run's dictionary for SAELens, sparsify or dictionary_learning"


def export_command(rest: list[str]) -> int:
    """Load `run/dictionary` and save it in another layout; the exit status is 0."""
    from workbench.dictionaries import load_dictionary, save_dictionary
    from workbench.dictionaries.formats import FORMATS

    parser = Parser(prog="workbench export", description=HELP, allow_abbrev=False)
    parser.add_argument("--run", type=Path, required=True, help="run folder, for instance runs/demo")
    parser.add_argument("--format", default="saelens", help=f"{', '.join(FORMATS)} [default: saelens]")
    parser.add_argument("--to", type=Path, required=True, help="folder to write, made if missing")
    check_flags(rest, ["--run", "--format", "--to", "--help"], parser.prog)
    given = parser.parse_args(rest)
    folder: Path = given.run / "dictionary"
    if not folder.is_dir():
        raise UserError(
            f"run {str(given.run)!r} has no dictionary: make one with `workbench train --run {given.run}`"
        )
    print(save_dictionary(load_dictionary(folder), given.to, format=given.format))
    return 0
