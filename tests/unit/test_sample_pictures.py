"""The pictures that the demo draws."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.cli.demo import pictures as sample_pictures
from lookalike.cli.demo.canvas import Canvas, mix
from lookalike.cli.demo.pictures import draw_samples

_KINDS = len(sample_pictures._KINDS)
_PAINTERS = dict(painter for kinds in sample_pictures._KINDS for painter in kinds)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One picture of each kind."""
    return draw_samples(tmp_path_factory.mktemp("drawn") / "new" / "folder", _KINDS)


def contents(paths: list[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths}


def test_as_many_different_pictures_as_asked_for(drawn: list[Path]) -> None:
    assert len(drawn) == _KINDS == len(set(contents(drawn).values()))
    assert sorted(drawn) == sorted(drawn[0].parent.iterdir())


def test_a_name_says_what_is_drawn(drawn: list[Path]) -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*-\d\d\.jpg", path.name) for path in drawn)
    names = " ".join(path.stem for path in drawn)
    for word in ("sunset-over-sea", "forest", "city", "mountains", "house", "beach", "stripes", "flower", "night"):
        assert word in names


def test_they_are_whole_jpegs_of_several_sizes(drawn: list[Path]) -> None:
    sizes = set()
    for path in drawn:
        with Image.open(path) as picture:
            picture.load()
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            sizes.add(picture.size)
    assert len(sizes) >= 4
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)
    assert all(320 <= side <= 640 for size in sizes for side in size)


def test_the_same_pictures_anywhere(drawn: list[Path], tmp_path: Path) -> None:
    assert contents(draw_samples(tmp_path, 6)) == contents(drawn[:6])


def test_another_seed_draws_other_pictures_of_the_same_names(drawn: list[Path], tmp_path: Path) -> None:
    others = contents(draw_samples(tmp_path, 3, seed=8))
    assert list(others) == [path.name for path in drawn[:3]]
    assert not set(others.values()) & set(contents(drawn).values())


def test_a_second_call_keeps_what_is_there_and_draws_what_is_missing(tmp_path: Path) -> None:
    first = draw_samples(tmp_path, 3)
    before = contents(first)
    first[1].unlink()
    first[2].write_bytes(b"somebody's own")
    kept = first[0].stat().st_mtime_ns
    assert draw_samples(tmp_path, 3) == first
    assert first[0].stat().st_mtime_ns == kept
    assert contents(first) == {**before, first[2].name: b"somebody's own"}


def test_more_pictures_leave_the_first_ones_as_they_are(drawn: list[Path], tmp_path: Path) -> None:
    few = draw_samples(tmp_path, 2)
    assert few == draw_samples(tmp_path, 4)[:2]
    assert [path.name for path in few] == [path.name for path in drawn[:2]]


def test_no_pictures(tmp_path: Path) -> None:
    assert draw_samples(tmp_path / "none", 0) == []
    assert list((tmp_path / "none").iterdir()) == []


def test_a_failure_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Canvas) -> Image.Image:
        raise OSError("no space left on device")

    monkeypatch.setattr(Canvas, "finish", fail)
    with pytest.raises(OSError, match="no space left"):
        draw_samples(tmp_path, 4)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(OSError, match="taken"):
        draw_samples(tmp_path / "taken", 1)


@pytest.mark.parametrize("name", _PAINTERS)
def test_every_painter_copes_with_chance_and_shape(name: str) -> None:
    for number, size in enumerate(((96, 72), (72, 96), (80, 80))):
        canvas = Canvas(np.random.RandomState(number), size)
        _PAINTERS[name](canvas)
        picture = np.asarray(canvas.finish(), float)
        assert picture.shape == (size[1], size[0], 3)
        assert np.isfinite(canvas.pixels).all()
        # neither empty nor drowned in white or black
        assert picture.std() > 8
        assert 10 < picture.mean() < 245


def test_the_canvas() -> None:
    canvas = Canvas(np.random.RandomState(0), (40, 20))
    assert canvas.ratio == 2
    canvas.box(0, 0, 0.5, 1, (255, 0, 0))
    canvas.paint(canvas.below(0.5), (0, 0, 255))
    assert canvas.pixels[2, 2].tolist() == [255, 0, 0]
    assert canvas.pixels[2, 30].tolist() == [0, 0, 0]
    assert canvas.pixels[18, 2].tolist() == canvas.pixels[18, 30].tolist() == [0, 0, 255]
    disc = canvas.disc(0.5, 0.5, 0.25)
    assert disc[10, 20] == 1
    assert disc[0, 0] == 0
    assert disc.sum() == pytest.approx(np.pi * 5**2, rel=0.1)
    assert mix((0, 0, 0), (100, 200, 50), 0.5).tolist() == [50, 100, 25]
