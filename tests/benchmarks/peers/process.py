"""A process in some environment that answers one JSON line with one JSON line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from tests.benchmarks.peers.environments import HARNESS, python, variables
from tests.benchmarks.peers.tools import Environment

NOTHING: Mapping[str, str] = MappingProxyType({})


class Process:
    """A harness file running in a tool's environment; its messages go to a log file that is shown if it dies."""

    def __init__(
        self,
        name: str,
        environment: Environment | None,
        script: str,
        words: Mapping[str, Any],
        log: Path,
        *,
        threads: int,
        extra: Mapping[str, str] = NOTHING,
    ) -> None:
        self.name, self.log = name, log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [str(python(environment)), str(HARNESS / script), json.dumps(dict(words))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**variables(threads), **extra},
            )
        self.versions = self._answer()

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **words}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"{self.name} stopped:\n{self.log.read_text()[-3000:]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process: its standard input ends."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
