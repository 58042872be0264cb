"""JupyterLab opens the tour, runs it on a run folder, and the feature card answers a key; nothing leaves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import Watched
from tests.reports.run_folder import make_run
from workbench.assets import PACKAGE, asset_folder
from workbench.cli import LAB_OPTIONS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
TOKEN = "test-token"
WAIT_MS = 90_000


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab on a folder with the tour and a run; gives its address."""
    home = tmp_path_factory.mktemp("lab")
    make_run(home / "runs" / "demo")
    (home / "notebooks").mkdir()
    shutil.copy(asset_folder("notebooks") / "00-explore.ipynb", home / "notebooks")
    port = free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home}",
        *LAB_OPTIONS,
    ]  # fmt: skip
    folders = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = (
        os.environ
        | folders
        | {"JUPYTER_CONFIG_PATH": str(PACKAGE / "jupyter")}
        | {"PYTHONPATH": str(ROOT), "PWD": str(home), "IPYTHONDIR": str(home / "ipython")}
    )
    with (home / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + WAIT_MS / 1000
        while not answers(f"{url}/api"):
            assert server.poll() is None, (home / "lab.log").read_text()[-2000:]
            assert time.monotonic() < deadline, (home / "lab.log").read_text()[-2000:]
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_the_tour_runs_and_a_card_answers_a_key(watch: Callable[..., Watched], lab: str):
    watched = watch(allowed=lab)
    page = watched.page
    page.goto(f"{lab}/lab/tree/notebooks/00-explore.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=WAIT_MS)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=WAIT_MS)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    card = page.locator(".wb-card").first
    card.wait_for(timeout=WAIT_MS)
    page.locator(".wb-graph .wb-node").first.wait_for(timeout=WAIT_MS)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=WAIT_MS)
    assert page.locator(".jp-OutputArea-output[data-mime-type*='err']").all_inner_texts() == []

    number = card.locator("input[type=number]")
    before = number.input_value()
    number.focus()
    started = time.monotonic()
    page.keyboard.press("ArrowUp")
    after = str(int(before) + 1)
    page.locator(f".wb-card[data-shown='{after}']").first.wait_for(timeout=10_000)
    assert time.monotonic() - started < 10
    assert card.locator(".wb-tok").count() > 50
    assert page.evaluate("window.hacked") is None
    assert watched.foreign(lab) == []
    assert page.get_by_text("Jupyter news").count() == 0
