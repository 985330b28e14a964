"""Clips of videos with distinguishable frames, official lists, damaged files, and real videos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from helpers.real_data import real_data
from ranp.errors import DataError, InputError
from ranp.experiments.data import Problem
from ranp.experiments.data.ucf101 import UCF101, Video, central_square, predict_clips, random_clip, spaced_clips
from ranp.experiments.data.video import DEVIATION, MEAN, crop, decode, write_video

STEP = 6  # Between the brightness of two frames: enough to distinguish them after compression.


def counted(path: Path, frames: int) -> Path:
    """A video whose frames have a uniform brightness, proportional to the frame index."""
    brightness = (np.arange(frames) * STEP).astype(np.uint8)
    write_video(path, np.broadcast_to(brightness[:, None, None, None], (frames, 16, 24, 3)))
    return path


def numbers(clip: torch.Tensor) -> list[int]:
    """Frame indices of a clip `(3, frames, H, W)` of a counted video."""
    brightness = (clip.mean((0, 2, 3)) * DEVIATION + MEAN) * 255
    return [round(float(value) / STEP) for value in brightness]


@pytest.fixture
def twenty(tmp_path: Path) -> Path:
    return counted(tmp_path / "twenty.avi", 20)


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    folder = tmp_path / "generated"
    UCF101(size=16, frames=4).generate(folder, count=3, seed=0)
    return folder


def test_frames_have_the_requested_order(twenty: Path) -> None:
    pixels = decode(twenty, lambda count: [count - 1, 3, 3, 0])
    assert pixels is not None
    assert (pixels.shape, pixels.dtype) == ((4, 16, 24, 3), torch.uint8)
    assert (pixels.float().mean((1, 2, 3)) / STEP).round().tolist() == [19, 3, 3, 0]


def test_frames_are_counted_where_the_header_does_not_contain_their_number(tmp_path: Path) -> None:
    seen: list[int] = []

    def choose(count: int) -> list[int]:
        seen.append(count)
        return [count - 1]

    pixels = decode(counted(tmp_path / "video.mkv", 13), choose)
    assert pixels is not None
    assert seen == [13]
    assert round(float(pixels.float().mean()) / STEP) == 12


@pytest.mark.parametrize(("missing", "usable"), [(0, True), (2, True), (3, False), (12, False)])
def test_a_few_missing_frames_are_replaced_by_the_last_one(
    twenty: Path, missing: int, usable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ranp.experiments.data import video

    collect = video._collect
    monkeypatch.setattr(
        video, "_collect", lambda frames, wanted: collect((next(frames) for _ in range(20 - missing)), wanted)
    )
    problems: list[Problem] = []
    pixels = decode(twenty, lambda count: [0, count - 1], problems.append)
    if usable:
        assert pixels is not None
        assert (pixels.float().mean((1, 2, 3)) / STEP).round().tolist() == [0, 19 - missing]
    else:
        assert pixels is None
        assert [problem.message for problem in problems] == [f"the video ends after {20 - missing} of 20 frames"]
        with pytest.raises(DataError, match=rf"^{twenty}: the video ends after"):
            decode(twenty, lambda count: [0, count - 1])


def test_evaluation_clips_are_spaced_from_the_first_frame_to_the_last(twenty: Path) -> None:
    clips, label = spaced_clips(UCF101(size=8, frames=4, clips=3), Video(twenty, 5))
    assert (clips.shape, int(label)) == ((3, 3, 4, 8, 8), 5)
    assert [numbers(clip) for clip in clips] == [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 19]]


def test_a_single_evaluation_clip_is_in_the_middle(twenty: Path) -> None:
    clips, _ = spaced_clips(UCF101(size=8, frames=4, clips=1), Video(twenty, 0))
    assert [numbers(clip) for clip in clips] == [[8, 9, 10, 11]]


def test_a_video_that_is_too_short_is_repeated(tmp_path: Path) -> None:
    video = Video(counted(tmp_path / "short.avi", 3), 0)
    settings = UCF101(size=8, frames=5, clips=2)
    assert numbers(random_clip(settings, video)[0]) == [0, 1, 2, 0, 1]
    assert [numbers(clip) for clip in spaced_clips(settings, video)[0]] == [[0, 1, 2, 0, 1]] * 2


def test_training_clips_start_at_every_possible_frame(twenty: Path) -> None:
    settings = UCF101(size=8, frames=18)
    seen = {tuple(numbers(random_clip(settings, Video(twenty, 0))[0])) for _ in range(40)}
    assert seen == {tuple(range(start, start + 18)) for start in range(3)}


@pytest.mark.parametrize(("height", "width", "box"), [(4, 7, (0, 1, 4)), (9, 4, (2, 0, 4)), (5, 5, (0, 0, 5))])
def test_the_central_square_by_hand(height: int, width: int, box: tuple[int, int, int]) -> None:
    assert central_square(torch.zeros(2, height, width, 3)) == box


def test_a_square_is_cropped_flipped_and_normalized() -> None:
    pixels = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).reshape(2, 4, 5, 3)
    expected = ((pixels[:, 1:4, 2:5] / 255 - MEAN) / DEVIATION).permute(3, 0, 1, 2)
    assert torch.allclose(crop(pixels, (1, 2, 3), 3), expected)
    assert torch.allclose(crop(pixels, (1, 2, 3), 3, flip=True), expected.flip(-1))
    halved = crop(torch.tensor([0, 255], dtype=torch.uint8).repeat(6).reshape(1, 2, 2, 3), (0, 0, 2), 1)
    assert halved.flatten().tolist() == pytest.approx([(0.5 - MEAN) / DEVIATION] * 3)


def test_scaling_down_uses_every_pixel() -> None:
    # Two bright columns of eight: exactly those that scaling would look at if it took only the nearest.
    stripes = torch.tensor([0, 0, 0, 255, 255, 0, 0, 0], dtype=torch.uint8).repeat(2)
    pixels = stripes[None, None, :, None].repeat(1, 16, 1, 3)
    brightness = crop(pixels, (0, 0, 16), 2) * DEVIATION + MEAN
    assert float(brightness.max()) < 0.5


def test_training_squares_vary_in_size_position_and_flip(tmp_path: Path) -> None:
    # Brightness rises from left to right by 1 a pixel, so a square's range is its side and its minimum its place.
    ramp = np.broadcast_to(np.arange(40, 200, dtype=np.uint8)[None, None, :, None], (4, 80, 160, 3))
    write_video(tmp_path / "ramp.avi", ramp)
    video = Video(tmp_path / "ramp.avi", 0)
    sides, places, flipped = [], [], set()
    for _ in range(40):
        row = (random_clip(UCF101(size=80, frames=2), video)[0][0, 0].mean(0) * DEVIATION + MEAN) * 255
        sides.append(float(row.max() - row.min()))
        places.append(float(row.min()))
        flipped.add(bool(row[0] > row[-1]))
    assert flipped == {True, False}
    assert min(sides) > 0.66 * 80 - 6
    assert max(sides) < 80 + 3
    assert max(sides) - min(sides) > 15
    assert min(places) < 60
    assert max(places) > 100
    plain, _ = random_clip(UCF101(size=80, frames=2, augment=False), video)
    row = (plain[0, 0].mean(0) * DEVIATION + MEAN) * 255
    assert (float(row[0]), float(row[-1])) == pytest.approx((80, 159), abs=4)


def test_every_clip_is_predicted_separately() -> None:
    inputs = torch.arange(2 * 3 * 3 * 2 * 2 * 2.0).reshape(2, 3, 3, 2, 2, 2)
    outputs = predict_clips(lambda clips: clips.mean((2, 3, 4)), inputs)
    assert torch.equal(outputs, inputs.mean((3, 4, 5)))


def test_the_generated_layout_is_the_official_one(generated: Path) -> None:
    lists = generated / "ucfTrainTestlist"
    assert (lists / "classInd.txt").read_text().splitlines()[:2] == ["1 RedHorizontal", "2 RedVertical"]
    assert (lists / "trainlist01.txt").read_bytes().startswith(b"RedHorizontal/v_RedHorizontal_g02_c01.avi 1\r\n")
    assert (lists / "testlist01.txt").read_bytes().startswith(b"RedHorizontal/v_RedHorizontal_g01_c01.avi\nRedV")
    assert len(list((generated / "UCF-101").glob("*/v_*.avi"))) == 6 * 3
    tested: list[Path] = []
    for split in (1, 2, 3):
        train, test = UCF101(split=split).find(generated, pytest.fail)  # type: ignore[arg-type]
        assert (len(train), len(test)) == (12, 6)
        assert not {video.path for video in train} & {video.path for video in test}
        tested += [video.path for video in test]
    assert len(set(tested)) == 18


def test_class_folders_may_be_next_to_the_lists(generated: Path) -> None:
    for folder in (generated / "UCF-101").iterdir():
        folder.rename(generated / folder.name)
    (generated / "UCF-101").rmdir()
    assert UCF101().check(generated) == []


def test_every_damaged_video_is_reported_with_its_fault(generated: Path) -> None:
    train, test = UCF101().find(generated, pytest.fail)
    missing, cut_off, other = train[0].path, train[5].path, test[3].path
    cut_off.write_bytes(cut_off.read_bytes()[: cut_off.stat().st_size // 3])
    other.write_text("this is no video")
    missing.unlink()
    faults = {problem.path: problem.message for problem in UCF101().check(generated)}
    assert set(faults) == {missing, cut_off, other}
    assert faults[missing] == "the file is missing"
    assert faults[other] == "it cannot be read as a video (Invalid data found when processing input)"
    assert "read" in faults[cut_off] or "ends after" in faults[cut_off]
    with pytest.raises(DataError, match=missing.name):
        UCF101().open(generated)
    bundle = UCF101(size=16, frames=4).open(generated, skip_damaged=True)
    assert (len(bundle.train), len(bundle.evaluation)) == (10, 5)  # type: ignore[arg-type]


def test_check_decodes_all_frames(tmp_path: Path) -> None:
    path = tmp_path / "noise.avi"
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 80, 3)).astype(np.uint8)
    write_video(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    problems: list[Problem] = []
    assert UCF101().read(Video(path, 0), problems.append) is None
    assert [problem.message for problem in problems] == ["the video ends after 20 of 40 frames"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_error_of_a_worker_names_the_video(generated: Path) -> None:
    bundle = UCF101(size=16, frames=4).open(generated)
    path = UCF101().find(generated, pytest.fail)[0][7].path
    path.write_bytes(b"damaged after opening")
    with pytest.raises(DataError, match=path.name):
        list(DataLoader(bundle.train, num_workers=2))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("classInd.txt", None, "the file is missing"),
        ("classInd.txt", "", "a number, counting from 1, and the name of a class"),
        ("classInd.txt", "2 RedHorizontal\n", "a number, counting from 1, and the name of a class"),
        ("classInd.txt", "1 RedHorizontal\n2\n", "a number, counting from 1, and the name of a class"),
        ("trainlist01.txt", None, "the file is missing"),
        ("trainlist01.txt", "RedHorizontal/v_RedHorizontal_g02_c01.avi 2\n", "g02_c01.avi 2' in line 1"),
        ("testlist01.txt", "\nNobody/v_Nobody_g01_c01.avi\n", "'Nobody/v_Nobody_g01_c01.avi' in line 1"),
    ],
)
def test_an_invalid_list_is_reported(generated: Path, name: str, content: str | None, reason: str) -> None:
    path = generated / "ucfTrainTestlist" / name
    path.unlink() if content is None else path.write_text(content)
    (problem,) = UCF101().check(generated)
    assert problem.path == path
    assert reason in problem.message
    with pytest.raises(DataError, match=name):
        UCF101().open(generated)


def test_too_few_videos_for_three_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 3"):
        UCF101().generate(tmp_path / "new", count=2)


@pytest.mark.parametrize(("split", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_official_lists_have_the_published_lengths(tmp_path: Path, split: int, train: int, test: int) -> None:
    (tmp_path / "ucfTrainTestlist").symlink_to(real_data("ucfTrainTestlist"))
    found = UCF101(split=split).find(tmp_path, pytest.fail)  # type: ignore[arg-type]
    assert [len(part) for part in found] == [train, test]
    assert [sorted({video.label for video in part}) for part in found] == [list(range(101))] * 2
    first = found[0][0]
    assert first.path.parent == tmp_path / "ApplyEyeMakeup"
    assert first.path.suffix == ".avi"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_real_videos_are_decoded_and_move_as_their_class_says(tmp_path: Path) -> None:
    source = real_data("colored_shape_actions") / "actions"
    classes = ["circular", "horizontal", "vertical"]
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    lists.joinpath("classInd.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(classes, 1)))
    chosen = {name: sorted((source / name).glob("*.mp4"))[:4] for name in classes}
    for part, numbered in (("train", True), ("test", False)):
        lines = [
            f"{name}/{path.name}" + (f" {classes.index(name) + 1}" if numbered else "")
            for name, paths in chosen.items()
            for path in (paths[:3] if numbered else paths[3:])
        ]
        lists.joinpath(f"{part}list01.txt").write_text("\n".join(lines) + "\n")
    for name in classes:
        (tmp_path / name).symlink_to(source / name)
    data = UCF101(size=64, frames=32, clips=3, augment=False)  # Of 32 frames: all of a video.
    assert data.check(tmp_path) == []
    bundle = data.open(tmp_path)
    assert bundle.class_names == tuple(classes)
    batch, labels = next(iter(DataLoader(bundle.train, batch_size=9, num_workers=2)))
    assert (batch.shape, sorted(labels.tolist())) == ((9, 3, 32, 64, 64), [0] * 3 + [1] * 3 + [2] * 3)
    axis = torch.arange(64.0)
    for clip, label in zip(batch, labels.tolist(), strict=True):
        # The shape is what differs from the background, which is the commonest colour of the clip.
        strength = (clip - clip.flatten(1).median(1).values[:, None, None, None]).abs().sum(0)
        mass = strength.sum((1, 2))
        x, y = ((strength.sum(1) @ axis) / mass).std(), ((strength.sum(2) @ axis) / mass).std()
        assert (float(x) > 3 * float(y), float(y) > 3 * float(x)) == (label == 1, label == 2)
    videos, _ = next(iter(DataLoader(bundle.evaluation, batch_size=3, num_workers=2)))
    assert videos.shape == (3, 3, 3, 32, 64, 64)
