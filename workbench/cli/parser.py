"""Parsers whose errors are one sentence, with the near options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from workbench.errors import UserError, nearest


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].lower()}{message[1:]}; see `{self.prog} --help`")


def check_flags(rest: Sequence[str], known: Sequence[str], prog: str) -> None:
    """Refuse an unknown `--option` with the near ones, which argparse does not name."""
    for word in rest:
        flag = word.split("=", 1)[0]
        if flag.startswith("--") and flag.replace("--no-", "--", 1) not in known and flag not in known:
            raise UserError(f"option {flag!r} is unknown to `{prog}`; {nearest(flag, known)}")
