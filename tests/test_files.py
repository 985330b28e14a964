"""The one reader of versioned JSON: what it accepts, what it upgrades, and what it refuses at once."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ranp import files
from ranp.errors import ArtifactError, PlanError
from ranp.files import read_json, write_json

NOTES = {"format": "notes", "version": 3}


def read(source: Path | str | bytes, **options: Any) -> dict[str, Any]:
    return read_json(source, **{"format": "notes", "version": 3, **options})


def nested(depth: int) -> str:
    """An object of the given depth, by lists and objects in turn."""
    inner = "1"
    for level in range(depth - 1):
        inner = f"[{inner}]" if level % 2 else f'{{"a": {inner}}}'
    return f'{{"format": "notes", "version": 3, "value": {inner}}}'


def test_a_file_a_text_and_bytes_give_the_same(tmp_path: Path) -> None:
    value = {**NOTES, "text": 'brackets [[{{ in "strings" \\', "list": [1, 2.5, -1e-3, None, True, {}]}
    write_json(tmp_path / "notes.json", value)
    text = (tmp_path / "notes.json").read_text()
    assert read(tmp_path / "notes.json") == read(text) == read(text.encode()) == value


def test_older_versions_are_upgraded_step_by_step() -> None:
    upgrades: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
        1: lambda found: {"words": found["word"] * 2},
        2: lambda found: {"text": found["words"] + "!"},
    }
    old = {"format": "notes", "version": 1, "word": "ab"}
    assert read(json.dumps(old), upgrades=upgrades) == {**NOTES, "text": "abab!"}
    assert read(json.dumps({**old, "version": 2, "words": "c"}), upgrades=upgrades) == {**NOTES, "text": "c!"}
    with pytest.raises(ArtifactError, match=r"^notes: does not match version 1 of the format notes \(KeyError: 'word'"):
        read(json.dumps({"format": "notes", "version": 1}), upgrades=upgrades)
    with pytest.raises(ArtifactError, match="has the format version 1, which this version of ranp cannot read"):
        read(json.dumps(old), upgrades={2: upgrades[2]})


@pytest.mark.parametrize("version", [4, 10**30])
def test_a_newer_version_says_so(version: int) -> None:
    with pytest.raises(ArtifactError, match=r"^notes: was written by a newer version of ranp .*; update ranp$"):
        read(json.dumps({**NOTES, "version": version}))


@pytest.mark.parametrize("version", [0, -1, -(10**30), 2, True, "3", 3.0, None, [3]])
def test_versions_that_cannot_be_read(version: Any) -> None:
    with pytest.raises(ArtifactError, match="which this version of ranp cannot read"):
        read(json.dumps({**NOTES, "version": version}))


@pytest.mark.parametrize("text", ["[]", "null", "7", '"notes"', "{}", '{"format": "other", "version": 3}'])
def test_other_formats(text: str) -> None:
    with pytest.raises(ArtifactError, match='is not a notes file; expected a JSON object with "format": "notes"'):
        read(text)


@pytest.mark.parametrize(
    "text",
    ["", "{", "\x00", '{"a": 1} x', "\ufeff{}", '{"a": tru}', '{"a}', '"\\', "]]", "1" * 5000, "[" * 64, "\ud800"],
)
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(ArtifactError, match=r"^notes: is not valid JSON \(.*restore it"):
        read(text)


def test_bytes_that_are_not_utf8() -> None:
    with pytest.raises(ArtifactError, match=r"is not valid JSON .*utf-8"):
        read(b"\xff\xfe{}")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite(number: str) -> None:
    with pytest.raises(ArtifactError, match=f"contains the number {number}, which is not finite"):
        read(f'{{"format": "notes", "version": 3, "value": [{number}]}}')


def test_a_key_that_occurs_twice() -> None:
    with pytest.raises(ArtifactError, match="contains the key 'b' twice in one object"):
        read('{"format": "notes", "version": 3, "value": {"a": 1, "b": 1, "b": 1}}')


def test_depth_is_limited() -> None:
    read(nested(files.MAX_JSON_DEPTH))
    for text in (nested(files.MAX_JSON_DEPTH + 1), "[" * 100_000, '{"a":' * 100_000, "[]" * 9 + "[" * 65):
        with pytest.raises(ArtifactError, match="nests lists and objects more than 64 deep"):
            read(text)
    # Brackets in strings are not counted, wherever a quotation mark is escaped.
    for string in ("[" * 100, '\\"' + "[" * 100, '\\\\\\"' + "{" * 100):
        read(f'{{"format": "notes", "version": 3, "value": "{string}"}}')
    with pytest.raises(ArtifactError, match="64 deep"):
        read(f'{{"format": "notes", "version": 3, "a": "\\\\", "b": {"[" * 100}{"]" * 100}}}')


def test_size_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 1 << 20)
    text = json.dumps({**NOTES, "text": ""})
    fits = text[:-2] + "x" * ((1 << 20) - len(text)) + text[-2:]
    (tmp_path / "notes.json").write_text(fits)
    assert read(fits) == read(tmp_path / "notes.json")
    (tmp_path / "notes.json").write_text(fits + " ")
    for source in (fits + " ", (fits + " ").encode(), tmp_path / "notes.json", "ä" * (1 << 19) + "ä"):
        with pytest.raises(ArtifactError, match="is larger than 1 MiB"):
            read(source)


@pytest.mark.parametrize("item", ["[],", "{},", "1,", '"",', '"\\"",'])
def test_large_lists_are_refused_at_once(item: str) -> None:
    text = '{"format": "notes", "version": 3, "value": [' + item * (60 * 2**20 // len(item)) + "1]}"
    start = time.process_time()
    with pytest.raises(ArtifactError, match="has more than 1,000,000 values"):
        read(text)
    assert time.process_time() - start < 4


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "endless"):
        with pytest.raises(ArtifactError, match=r"is not a regular file; the file may be damaged") as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(ArtifactError, match=r"/none: there is no such file; expected a notes file"):
        read(tmp_path / "none")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ArtifactError, match=r"/loop: cannot be read \(.*check the path"):
        read(tmp_path / "loop")


def test_the_schema_is_that_of_the_current_version() -> None:
    pytest.importorskip("jsonschema")
    schema = {"required": ["text"], "properties": {"text": {"type": "string"}, "version": {"const": 3}}}
    assert read(json.dumps({**NOTES, "text": "a"}), schema=schema)["text"] == "a"
    old = json.dumps({"format": "notes", "version": 2, "words": 1})
    assert read(old, schema=schema, upgrades={2: lambda found: {"text": str(found["words"])}})["text"] == "1"
    with pytest.raises(ArtifactError, match=r"does not match the format notes: \$\.text is wrong \(1 is not of type"):
        read(json.dumps({**NOTES, "text": 1}), schema=schema)


def test_errors_have_the_class_and_the_place_of_the_caller() -> None:
    with pytest.raises(PlanError, match=r"^plan: is not a notes file"):
        read("{}", error=PlanError, place="plan")
