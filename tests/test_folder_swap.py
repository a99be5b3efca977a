"""A folder takes its place whole, or what was there stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from steelyard.encoders.folder_swap import new_folder


def write(place: Path, text: str) -> None:
    with new_folder(place) as folder:
        (folder / "inner").mkdir(mode=0o700)
        (folder / "inner" / "file.txt").write_text(text, encoding="utf-8")
        (folder / "inner" / "file.txt").chmod(0o600)


def contents(place: Path) -> str:
    return (place / "inner" / "file.txt").read_text(encoding="utf-8")


def test_a_new_folder_and_one_over_an_old_one(tmp_path: Path) -> None:
    place = tmp_path / "parents" / "made"
    for text in ("old", "new"):
        write(place, text)
        assert contents(place) == text
        assert [entry.name for entry in place.parent.iterdir()] == ["made"]
    modes = [p.stat().st_mode & 0o777 for p in (place, place / "inner", *place.rglob("*.txt"))]
    assert modes == [0o755, 0o755, 0o644]


def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "made") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    write(tmp_path / "made", "old")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(tmp_path / "made") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("there", [True, False])
def test_a_rename_that_fails_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    place = tmp_path / "made"
    if there:
        write(place, "old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if (self / "inner").exists() and contents(self) == "new":
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        write(place, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == (["made"] if there else [])
    assert not there or contents(place) == "old"
