"""A new folder: complete, or not there."""

from pathlib import Path

import pytest

from ranp.errors import ArtifactError
from ranp.files import new_folder, refuse_existing


def test_the_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with new_folder(out) as partial:
        (partial / "file").write_text("content")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "file").read_text() == "content"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failure(tmp_path: Path, failure: type[BaseException]) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "a" / "b" / "out") as partial:
            (partial / "sub").mkdir()
            (partial / "sub" / "file").write_text("half")
            raise failure

    with pytest.raises(failure):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ArtifactError, match="a path that exists"), new_folder(tmp_path):
        pytest.fail("the body must not run")
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_dangling_link_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="exists"):
        refuse_existing(tmp_path / "out")


def test_a_folder_that_appears_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "out"):
            (tmp_path / "out").mkdir()

    with pytest.raises(ArtifactError, match="exists"):
        fill()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
