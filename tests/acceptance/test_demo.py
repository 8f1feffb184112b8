"""The demo: everything once, from an empty home."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from lookalike.store.embedded import EmbeddedServer

from ..conftest import IN_CI, command_environment, draw_pictures


def demo(home: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lookalike", "demo", *map(str, arguments)],
        env=command_environment(LOOKALIKE_HOME=str(home), **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_demo_shows_everything_once_and_again(home: Path) -> None:
    # a database and a model of one's own stay out of it
    variables = {"DATABASE_URL": "postgresql://127.0.0.1:1/mine", "LOOKALIKE_MODEL": "azure-vision/2023-04-15"}
    first = demo(home, **variables)
    assert first.returncode == 0, first.stderr
    found = re.search(r"(\d+) files: (\d+) embedded now", first.stdout)
    assert found
    assert int(found[1]) == int(found[2]) >= 100
    assert "a red sunset over the sea" in first.stdout
    assert first.stdout.count("local/classic-1, ") == 2
    assert "does not recognise things" in " ".join(first.stderr.split())
    top = re.search(r"^1 +\d\.\d+ +(\S+)", first.stdout, re.MULTILINE)
    assert top
    assert "sunset" in top[1]
    assert not EmbeddedServer(home / "demo").running()

    again = demo(home, **variables)
    assert again.returncode == 0, again.stderr
    assert f"{found[1]} files: 0 embedded now, {found[1]} known already" in again.stdout

    # and what was set before the demo is set again after it
    ends = again.stdout.splitlines()[-2]
    assert ends == (
        f"  export LOOKALIKE_HOME={home} LOOKALIKE_MODEL=azure-vision/2023-04-15 DATABASE_URL=… "
        "VISION_ENDPOINT=… VISION_KEY=…"
    )

    # what it says to try next works as printed
    lines = again.stdout[again.stdout.index("Try next") :].splitlines()[1:6]
    assert "activate" in lines[0]
    assert "DATABASE_URL=" in lines[1]
    script = "\n".join([*lines, "lookalike db stop"])
    tried = subprocess.run(
        ["bash", "-euc", script],
        env=command_environment(**variables, PATH="/usr/bin:/bin"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 0, tried.stderr
    assert "local/classic-1" in tried.stdout


def test_the_demo_takes_ones_own_folder(home: Path, tmp_path: Path) -> None:
    draw_pictures(tmp_path / "mine", 12)
    done = demo(home, tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert "12 files: 12 embedded now" in done.stdout
    sheet = home / "demo" / "contact-sheet.html"
    assert sheet.read_text().count("data:image/jpeg;base64,") == 8 + 1 + 8
    assert_shown_in_a_browser(sheet, tmp_path)


def assert_shown_in_a_browser(sheet: Path, folder: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        assert not IN_CI, "CI must have chromium"
        return
    shot = folder / "shot.png"
    subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--hide-scrollbars", "--window-size=1200,1600", f"--user-data-dir={folder / 'profile'}"),
            *(f"--screenshot={shot}", sheet.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=90,
    )
    with Image.open(shot) as image:
        # the pictures are of many loud colours, the page around them is not
        colours = image.convert("RGB").resize((120, 160)).getcolors(120 * 160)
    assert colours is not None
    assert len(colours) > 500


def test_a_folder_without_pictures_is_explained(home: Path, tmp_path: Path) -> None:
    for _ in ("missing", "empty"):
        done = demo(home, tmp_path / "mine")
        assert done.returncode == 2
        assert str(tmp_path / "mine") in done.stderr.replace("\n", "")
        assert "Traceback" not in done.stderr
        (tmp_path / "mine").mkdir(exist_ok=True)
