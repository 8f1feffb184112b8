"""Whatever lies in a folder: nothing of it stops a run, and everything that is found is embedded or explained."""

from __future__ import annotations

import csv
import os
import socket
import struct
import subprocess
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike.emulator import Emulator
from lookalike.pictures.check import LARGEST_FILE
from lookalike.uris import path_of, uri_of

from ..conftest import RunCommand, draw_pictures
from ..integration.test_ingest import rows
from ..unit.pictures import encoded, noise, png, png_chunk, psd, ramp
from .test_cli import azure, document

EMBEDDED, KNOWN, UNSUPPORTED = "embedded", "unchanged", "unsupported"

MOST_SECONDS = 60
"""How long a command may take over the folder before it counts as hanging."""


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.effect_noise((60, 40), 80), "JPEG", exif=exif)


def moving(kind: str) -> bytes:
    frames = [Image.effect_noise((60, 40), 80) for _ in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def without_adobe(data: bytes) -> bytes:
    """A JPEG of four colours without the note that they are inverted."""
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]


def raw_picture() -> bytes:
    """A camera's raw picture: a TIFF whose directory says so."""
    entries = [(254, 4, 1, 1), (256, 3, 1, 60), (257, 3, 1, 40), (50706, 1, 4, 0x401)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + directory + bytes(2000)


def office_file(folder: Path) -> bytes:
    path = folder.parent / "letter.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<w:document/>")
    return path.read_bytes()


def contents(folder: Path) -> dict[str | bytes, tuple[bytes, str]]:
    """Names, bytes and how each of them has to end: embedded, as a duplicate, or with the code of a failure."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    whole = noise(size=(400, 300))
    return {
        # damaged, or made to do harm
        "empty.jpg": (b"", "empty-file"),
        "empty without suffix": (b"", UNSUPPORTED),
        "truncated.jpg": (whole[: len(whole) // 2], "damaged-image"),
        "truncated.png": (noise("PNG", (200, 200))[:9000], "damaged-image"),
        "only a head.jpg": (whole[:30], "damaged-image"),
        "bomb in its notes.png": (
            png(50, 50, png_chunk(b"zTXt", b"p\0\0" + bomb()), rows=bytes(151 * 50)),
            "damaged-image",
        ),
        "bomb of pixels.png": (png(15_999, 15_999, rows=bytes(1000)), "too-many-pixels"),
        "claims 60000x60000.png": (png(60_000, 60_000, rows=bytes(1000)), "too-many-pixels"),
        # colours and depths
        "cmyk.jpg": (without_adobe(noise(mode="CMYK")), EMBEDDED),
        "cmyk, inverted as Adobe does.jpg": (noise(mode="CMYK"), EMBEDDED),
        "16-bit grey.png": (encoded(Image.fromarray(ramp(65535, np.uint16)), "PNG"), EMBEDDED),
        "16-bit colours.png": (png(50, 50, rows=bytes(range(1, 7)) * 50 * 50 + bytes(50), depth=16), EMBEDDED),
        "16-bit.tif": (encoded(Image.fromarray(ramp(60000, np.uint16)), "TIFF"), EMBEDDED),
        "float.tif": (encoded(Image.fromarray(ramp(1, np.float32)), "TIFF"), EMBEDDED),
        "palette with transparency.png": (
            encoded(Image.effect_noise((60, 40), 80).convert("P"), "PNG", transparency=3),
            EMBEDDED,
        ),
        "1-bit.png": (noise("PNG", mode="1"), EMBEDDED),
        "grey with transparency.png": (noise("PNG", mode="LA"), EMBEDDED),
        # turned by EXIF
        **{f"turned, {number}.jpg": (turned(number), EMBEDDED) for number in (2, 3, 5, 6, 8)},
        # several pictures in one file
        "animated.gif": (moving("GIF"), EMBEDDED),
        "animated.webp": (moving("WEBP"), EMBEDDED),
        "animated.png": (moving("PNG"), EMBEDDED),
        "multi-page.tif": (moving("TIFF"), EMBEDDED),
        "of a stereo camera.mpo": (moving("MPO"), EMBEDDED),
        # other formats
        "photo.heic": (noise("HEIF"), EMBEDDED),
        "photo.avif": (noise("AVIF"), EMBEDDED),
        "photo.jp2": (noise("JPEG2000"), EMBEDDED),
        "icon.ico": (noise("ICO", (64, 64)), EMBEDDED),
        "bitmap.bmp": (noise("BMP"), EMBEDDED),
        "photoshop.psd": (psd(Image.effect_noise((60, 40), 80).convert("RGB")), EMBEDDED),
        "portable.ppm": (noise("PPM"), EMBEDDED),
        "jpeg xl.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported-format"),
        # no pictures
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UNSUPPORTED),
        "drawing called.png": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "not-an-image"),
        "page called.jpg": (b"<!DOCTYPE html><html><title>404</title></html>", "not-an-image"),
        "film.mp4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(500), UNSUPPORTED),
        "film called.jpg": (b"\0\0\0\x18ftypisom\0\0\0\0mp42isom" + bytes(500), "not-an-image"),
        "scan.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", UNSUPPORTED),
        "archive.zip": (office_file(folder), UNSUPPORTED),
        "letter.docx": (office_file(folder) + b" ", UNSUPPORTED),
        "camera raw.dng": (raw_picture(), UNSUPPORTED),
        "notes.txt": (b"buy milk", UNSUPPORTED),
        b"notes.t\xe9xt\x1b[31m": (b"with a suffix that is no text", UNSUPPORTED),
        # sizes
        "too small.png": (noise("PNG", (10, 10)), "too-small"),
        "strip.png": (noise("PNG", (17_000, 5)), "too-large"),
        "wider than the model takes.png": (noise("PNG", (16_500, 30)), EMBEDDED),
        "more bytes than the model takes.bmp": (encoded(Image.new("RGB", (2700, 2700), "teal"), "BMP"), EMBEDDED),
        # names
        b"not utf-8: caf\xe9.jpg": (noise(), EMBEDDED),
        b"not utf-8, and no picture: caf\xe9.jpg": (b"nothing", "not-an-image"),
        "x" * 246 + ".jpg": (noise(), EMBEDDED),
        "new\nline.jpg": (noise(), EMBEDDED),
        "new\nline, and no picture.jpg": (b"nothing\n", "not-an-image"),
        "quotes ' and \" and `.jpg": (noise(), EMBEDDED),
        "100%25 #1 ?x=y&z [a-b] *.jpg": (noise(), EMBEDDED),
        "  spaces  .jpg": (noise(), EMBEDDED),
        "emoji 🦊, e\u0301 and \u202eright to left.jpg": (noise(), EMBEDDED),
        "escape \x1b[31m red.jpg": (b"red", "not-an-image"),
        "-rf.jpg": (noise(), EMBEDDED),
        "back\\slash.jpg": (noise(), EMBEDDED),
        "a picture without suffix": (noise(), EMBEDDED),
        "png called.jpg": (noise("PNG"), EMBEDDED),
        "picture called.txt": (noise(), EMBEDDED),
        "SHOUTED.JPEG": (noise(), EMBEDDED),
        # more than once
        "one of two.jpg": (whole, EMBEDDED),
        "two of two.jpg": (whole, KNOWN),
    }


def bomb() -> bytes:
    import zlib

    return zlib.compress(bytes(50_000_000), 9)


def path_in(folder: Path, name: str | bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name)))


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[Path, str]]]:
    """A folder of awkward files, and how each file in it that is to be found has to end."""
    folder = tmp_path_factory.mktemp("home") / "awkward"
    folder.mkdir()
    expected = {}
    for name, (data, outcome) in contents(folder).items():
        path = path_in(folder, name)
        path.write_bytes(data)
        expected[path] = outcome
    with (folder / "more bytes than are looked at.tif").open("wb") as heavy:
        heavy.truncate(LARGEST_FILE + 1)
    expected[folder / "more bytes than are looked at.tif"] = "too-many-bytes"

    # things that are no files
    os.mkfifo(folder / "named pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        before = os.getcwd()
        os.chdir(folder)  # the address of a socket must be short
        try:
            listening.bind("socket.jpg")
        finally:
            os.chdir(before)
    (folder / "endless device.jpg").symlink_to("/dev/zero")
    expected |= dict.fromkeys(
        (folder / name for name in ("named pipe.jpg", "socket.jpg", "endless device.jpg")), UNSUPPORTED
    )

    # links
    (original,) = draw_pictures(folder / "directory called.jpg", 1, seed=1)
    expected[original] = EMBEDDED
    (folder / "link to a file.jpg").symlink_to(original)
    (folder / "hard link.jpg").hardlink_to(original)
    expected |= {folder / "link to a file.jpg": KNOWN, folder / "hard link.jpg": KNOWN}
    (folder / "link that loops.jpg").symlink_to("link that loops.jpg")
    (folder / "broken link.jpg").symlink_to("nowhere.jpg")
    expected |= {folder / "link that loops.jpg": "unreadable", folder / "broken link.jpg": "unreadable"}
    (folder / "link to a folder").symlink_to(folder / "directory called.jpg")
    (folder / "directory called.jpg" / "folder that loops.jpg").symlink_to(folder)

    if os.geteuid() != 0:  # whom permissions do not stop: see what cannot be read below
        (closed,) = draw_pictures(folder / "open folder", 1, seed=2)
        closed.chmod(0)
        (folder / "closed folder").mkdir(mode=0)
        expected |= {closed: "unreadable", folder / "closed folder": "unlisted"}

    # hidden: passed over, unless it is named
    draw_pictures(folder / ".hidden", 1, seed=3)
    (folder / ".hidden.jpg").write_bytes(noise())

    # deeper than a URI can tell, deeper than a program can call itself, and deeper than a path can tell
    deep = make_deep(folder, "d", 1100)
    (deep / "picture.jpg").write_bytes(noise())
    expected[deep / "picture.jpg"] = "uri-too-long"
    expected[make_deep(folder, "e" * 250, 20)] = "unlisted"
    yield folder, expected
    subprocess.run(["rm", "-rf", folder], check=True)  # which Python cannot, so deep it is


def make_deep(folder: Path, name: str, levels: int) -> Path:
    """Folders in folders; returns the last one that has a path."""
    here = os.open(folder, os.O_RDONLY)
    path = reachable = os.fspath(folder)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        path += "/" + name
        if os.path.lexists(path):
            reachable = path
    os.close(here)
    return Path(reachable if len(reachable) == len(path) else path[: len(reachable) + 1 + len(name)])


# -- the folder, a table and a list ----------------------------------------------------------------------------------


def adds_up(report: dict[str, Any]) -> bool:
    ends = ("embedded", "unchanged", "failed", "unsupported", "pending")
    return bool(report["found"] == sum(report[end] for end in ends) and report["pending"] == 0)


def outcomes(dsn: str) -> dict[str, str]:
    """Of every file that is stored or has failed, how it ended: embedded, or the code of its failure."""
    embedded = rows(dsn, "select uri from lookalike.files join lookalike.embeddings using (image_id)")
    failed = rows(dsn, "select uri, code from lookalike.failures")
    assert {uri for (uri,) in embedded}.isdisjoint(uri for uri, _ in failed)
    return dict.fromkeys((uri for (uri,) in embedded), EMBEDDED) | dict(failed)


def stored(dsn: str) -> list[Any]:
    """Everything that a run over the same files must leave as it is."""
    return [
        rows(dsn, "select * from lookalike.images order by image_id"),
        rows(dsn, "select * from lookalike.files order by uri"),
        rows(dsn, "select image_id, model_id, embedding::text, created_at from lookalike.embeddings order by image_id"),
        rows(
            dsn,
            "select uri, fingerprint, stage, code, message, retryable, first_at, case when retryable then 0 else"
            " attempts end, case when retryable then null else last_at end from lookalike.failures order by uri",
        ),
    ]


def coverage(dsn: str) -> dict[str, int]:
    return dict(rows(dsn, "select state, sum(files)::int from lookalike.coverage group by state"))


def run_three_times(
    run: RunCommand, dsn: str, emulator: Emulator, *arguments: str | Path, stdin: str = ""
) -> dict[str, Any]:
    """A dry run, the run and a second one, compared with each other and with what is stored; gives the run's report."""
    began = time.monotonic()
    command = ("ingest", *arguments, "--json")
    dry = run(*command, "--dry-run", stdin=stdin, **azure(emulator))
    first = run(*command, stdin=stdin, **azure(emulator))
    for done, code in ((dry, 0), (first, 1)):
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    plan, report = document(dry), document(first)
    parts = ("new", "duplicates", "unchanged", "failed", "unreadable", "unsupported")
    assert plan["found"] == sum(plan[part] for part in parts)
    assert adds_up(report), report
    agreed = {
        "found": "found",
        "new": "embedded",
        "duplicates": "unchanged",
        "unreadable": "failed",
        "unsupported": "unsupported",
        "adapted": "adapted",
        "calls": "calls",
    }
    assert {name: plan[name] for name in agreed} == {name: report[other] for name, other in agreed.items()}
    billed = emulator.stats()["billed"]
    assert billed == report["calls"] == report["embedded"]

    before = stored(dsn)
    second = run(*command, stdin=stdin, **azure(emulator))
    assert second.returncode == 0, second.stderr
    again = document(second)
    assert adds_up(again)
    assert (again["embedded"], again["unchanged"]) == (0, report["embedded"] + report["unchanged"])
    assert [again[name] for name in ("found", "failed", "unsupported", "calls", "new_failures")] == [
        *(report[name] for name in ("found", "failed", "unsupported")),
        *(0, 0),
    ]
    assert emulator.stats()["billed"] == billed
    assert stored(dsn) == before
    assert time.monotonic() - began < MOST_SECONDS
    return report


def test_a_folder(run: RunCommand, dsn: str, emulator: Emulator, awkward: tuple[Path, dict[Path, str]]) -> None:
    folder, expected = awkward
    report = run_three_times(run, dsn, emulator, folder)

    ends = Counter(end if end in (EMBEDDED, KNOWN, UNSUPPORTED) else "failed" for end in expected.values())
    assert {end: report[end] for end in (*ends, "found")} == {**ends, "found": len(expected)}
    found = {named(uri, expected): end for uri, end in outcomes(dsn).items()}
    assert found == {path: EMBEDDED if end == KNOWN else end for path, end in expected.items()}
    assert coverage(dsn) == {
        "embedded": ends[EMBEDDED] + ends[KNOWN],
        "failed": ends["failed"],
        "unsupported": ends[UNSUPPORTED],
    }
    assert_explained_to_people(run, report)


def named(uri: str, paths: dict[Path, str]) -> Path:
    """The path that a URI names, also where it had to be cut."""
    path = path_of(uri)
    assert path is not None
    return path if path in paths or not paths else next(one for one in paths if uri_of(one).startswith(uri[:1900]))


def assert_explained_to_people(run: RunCommand, report: dict[str, Any]) -> None:
    """Every failure has words that a person can read, on a terminal and as JSON."""
    listed = document(run("failures", "--json"))
    assert len(listed["failures"]) == report["failed"]
    assert len(listed["unsupported"]) == report["unsupported"]
    for failure in [*listed["failures"], *listed["unsupported"]]:
        assert failure["message"].endswith((".", ")")) or ": " in failure["message"], failure
        assert len(failure["message"]) > 15, failure
    for arguments in ([], ["--code", "unsupported"], ["--code", "unreadable"]):
        shown = run("failures", *arguments)
        assert (shown.returncode, shown.stderr) == (0, "")
        lines = shown.stdout.split("\n")
        assert all(line.isprintable() for line in lines), [line for line in lines if not line.isprintable()]
    status = document(run("status", "--json"))
    (model,) = status["models"]
    assert (model["failed"], model["unsupported"], model["pending"]) == (report["failed"], report["unsupported"], 0)
    assert run("status").returncode == 0


def everything_in(folder: Path) -> list[bytes]:
    """Every file and link, hidden or not, and a few folders, as ``find`` names them."""
    found = subprocess.run(["find", folder, "-not", "-type", "d", "-print0"], stdout=subprocess.PIPE, check=True)
    return [*found.stdout.rstrip(b"\0").split(b"\0"), os.fsencode(folder / "directory called.jpg"), b"/" + b"e" * 5000]


def test_a_table_that_names_each_of_them(
    run: RunCommand, dsn: str, emulator: Emulator, awkward: tuple[Path, dict[Path, str]], tmp_path: Path
) -> None:
    folder, _ = awkward
    names = [os.fsdecode(path) for path in everything_in(folder)]
    with (tmp_path / "all.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "number"])
        writer.writerows([name, number] for number, name in enumerate([*names, names[0]]))
        writer.writerow(["", "no name"])
        writer.writerow([folder / "a.jpg", "one", "cell", "too many"])
    report = run_three_times(run, dsn, emulator, tmp_path / "all.csv")
    assert report["found"] == len(names) + 3
    assert sum(coverage(dsn).values()) == len(names) + 2
    assert_explained_to_people(run, report)


def test_a_list_that_names_each_of_them(
    run: RunCommand, dsn: str, emulator: Emulator, awkward: tuple[Path, dict[Path, str]], tmp_path: Path
) -> None:
    folder, _ = awkward
    names = everything_in(folder)
    (tmp_path / "list").write_bytes(b"\0".join(names))
    report = run_three_times(run, dsn, emulator, "-", stdin=str(tmp_path / "list"))
    assert report["found"] == len(names)
    assert sum(coverage(dsn).values()) == len(names)


# -- what changes under the eyes -------------------------------------------------------------------------------------


def test_files_that_change_vanish_or_cannot_be_read(
    run: RunCommand, dsn: str, emulator: Emulator, tmp_path: Path
) -> None:
    folder = tmp_path / "restless"
    pictures = draw_pictures(folder, 300)
    growing, vanishing = folder / "aaa growing.bmp", pictures[200:230]
    growing.write_bytes(encoded(Image.new("RGB", (6000, 5000), "teal"), "BMP"))
    # the one file that not even the administrator can read to its end
    (folder / "input error.jpg").symlink_to("/proc/self/mem")
    finished = threading.Event()

    def write() -> None:
        with growing.open("ab") as file:
            while not finished.is_set():
                file.write(b"\0")
                file.flush()

    def remove() -> None:
        while not finished.wait(0.005):
            if emulator.stats()["billed"] >= 100:
                for path in vanishing:
                    path.unlink(missing_ok=True)

    threads = [threading.Thread(target=target) for target in (write, remove)]
    for thread in threads:
        thread.start()
    done = run("ingest", folder, "--json", "--rate", "100", "--concurrency", "2", **azure(emulator))
    finished.set()
    for thread in threads:
        thread.join()

    assert done.returncode == 1, done.stderr
    report = document(done)
    assert adds_up(report)
    ends = {named(uri, {}): end for uri, end in outcomes(dsn).items()}
    assert len(ends) == report["found"]
    assert ends[growing] == "changed-while-read"
    assert ends[folder / "input error.jpg"] == "unreadable"
    # listed when they were there, and gone when they were to be read
    gone = {path for path, end in ends.items() if end == "unreadable"} - {folder / "input error.jpg"}
    assert gone
    assert gone <= set(vanishing)
    assert report["embedded"] == len(ends) - len(gone) - 2 == emulator.stats()["billed"]
    assert coverage(dsn) == {"embedded": report["embedded"], "failed": report["failed"]}

    # what was written to its end is done by the next run
    assert document(run("ingest", growing, "--json", **azure(emulator)))["embedded"] == 1
