"""Files: folders and files that appear complete or not at all, and the one reader of ranp's versioned JSON."""

import json
import math
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Annotated, Any, NoReturn, TypeAlias

from ranp.arguments import Must
from ranp.errors import ArtifactError, RanpError, first_line
from ranp.optional import optional_import


def _is_path(value: str | os.PathLike[str]) -> bool:
    try:
        path = os.fspath(value)
        longest = max((len(part) for part in os.fsencode(path).split(os.fsencode(os.sep))), default=0)
        return isinstance(path, str) and 0 < len(os.fsencode(path)) < 4096 and longest < 256 and "\0" not in path
    except UnicodeError:
        return False


FilePath: TypeAlias = Annotated[str | os.PathLike[str], Must(_is_path, "a path")]
"""A path that a file or folder can have."""

# Far above what ranp writes, and low enough that a hostile file is refused within about a second.
MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 64
MAX_JSON_VALUES = 1_000_000


def is_rank_zero() -> bool:
    """Whether this process writes files: it is the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def cache_folder() -> Path:
    """The user's folder for what ranp can make again; it need not exist."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / usual
    return Path(base) / "ranp"


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder that gets its name once it is complete, or is removed if anything fails.

    An `ArtifactError` says that the folder exists already, or that its parent cannot be written.
    """
    target = Path(folder)
    missing: list[Path] = []
    try:
        refuse_existing(target)
        missing += [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True) as name:
            partial = Path(name)
            yield partial
            for path in (partial, *partial.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)  # Temporary ones exclude other users.
            refuse_existing(target)
            partial.rename(target)
    except OSError as error:
        raise ArtifactError(str(target), f"cannot be written ({first_line(error)})") from error
    finally:
        for parent in missing:
            with suppress(OSError):  # It is not empty, as it should be.
                parent.rmdir()


def refuse_existing(folder: Path) -> None:
    """Raise an `ArtifactError` if a path exists already."""
    if os.path.lexists(folder):
        hint = "choose another name or remove it; nothing is overwritten"
        raise ArtifactError(str(folder), "exists already", hint=hint)


def read_json(
    source: Path | str | bytes,
    *,
    format: str,
    version: int,
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = MappingProxyType({}),
    schema: Mapping[str, Any] | None = None,
    error: type[RanpError] = ArtifactError,
    place: str = "",
) -> dict[str, Any]:
    """Read JSON that ranp wrote: an object with a `format`, a `version` and further fields. No code is executed.

    Refused are: files that are not regular files; more than `MAX_JSON_BYTES`; values nested deeper than
    `MAX_JSON_DEPTH` or more than `MAX_JSON_VALUES` of them (both checked before anything is parsed); text that is not
    JSON; numbers that are not finite; halves of characters; keys that occur twice in one object; another format; a
    newer version.

    Args:
        source: Path of the file, or its content as text or bytes.
        format: Value that the field `format` must have.
        version: Current version of the format; the result has this version.
        upgrades: For each older version that is still read, a function from the object as that version has it to the
            next version's. An object that such a function cannot handle (`KeyError`, `TypeError`, ...) is refused.
        schema: JSON schema that the upgraded object must match. Needs the package jsonschema.
        error: Class of the error that says what is wrong and what to do.
        place: Name of the source in errors; by default the path, or for text the format.

    Example:
        >>> old = '{"format": "notes", "version": 1, "words": "a"}'
        >>> read_json(old, format="notes", version=2, upgrades={1: lambda found: {"text": found["words"]}})
        {'format': 'notes', 'version': 2, 'text': 'a'}
    """
    place = place or (str(source) if isinstance(source, Path) else format)

    def refuse(problem: str, hint: str = "the file may be damaged: restore it or create it again") -> NoReturn:
        raise error(place, problem, hint=hint)

    try:
        text = _content(source)
        _check_structure(text)
        content = _parse(text)
    except FileNotFoundError:
        refuse("there is no such file", f"expected a {format} file, as ranp writes it")
    except OSError as problem:
        refuse(f"cannot be read ({problem.strerror or first_line(problem)})", "check the path and its permissions")
    except _UnacceptableError as problem:
        refuse(str(problem))
    except (ValueError, RecursionError) as problem:
        refuse(f"is not valid JSON ({first_line(problem)})")
    if not isinstance(content, dict) or content.get("format") != format:
        refuse(f"is not a {format} file", f'expected a JSON object with "format": "{format}"')
    found = content.get("version")
    if type(found) is int and found > version:
        refuse(f"was written by a newer version of ranp (format version {found})", "update ranp")
    if type(found) is not int or any(number not in upgrades for number in range(found, version)):
        refuse(f"has the format version {ascii(found)[:40]}, which this version of ranp cannot read", "create it again")
    try:
        for number in range(found, version):
            content = {**upgrades[number](content), "format": format, "version": number + 1}
    except (LookupError, TypeError, ValueError, AttributeError) as problem:
        refuse(f"does not match version {found} of the format {format} ({type(problem).__name__}: {problem})")
    if schema is not None and (mismatch := schema_mismatch(content, schema, place)):
        refuse(f"does not match the format {format}: {mismatch}")
    return {"format": content["format"], "version": content["version"], **content}


def schema_mismatch(value: Any, schema: Mapping[str, Any], where: str = "JSON schema") -> str:
    """Where a value does not match a JSON schema, in words; empty if it does. Needs the package jsonschema.

    Example:
        >>> schema_mismatch({"steps": "three"}, {"properties": {"steps": {"type": "integer"}}})
        "$.steps is wrong ('three' is not of type 'integer')"
    """
    validator = optional_import("jsonschema", where, extra="report").Draft202012Validator
    found = next(iter(validator(schema).iter_errors(value)), None)
    return "" if found is None else f"{found.json_path} is wrong ({found.message[:80]})"


class _UnacceptableError(Exception):
    """JSON beyond the limits, or with values that ranp never writes."""


def _content(source: Path | str | bytes) -> bytes:
    if isinstance(source, Path):
        if not stat.S_ISREG(source.stat().st_mode):  # Checked before it is opened: opening a pipe blocks.
            raise _UnacceptableError("is not a regular file")
        with source.open("rb") as stream:
            source = stream.read(MAX_JSON_BYTES + 1)
    content = source.encode() if isinstance(source, str) else source
    if len(content) > MAX_JSON_BYTES:
        raise _UnacceptableError(f"is larger than {MAX_JSON_BYTES >> 20} MiB")
    return content


def _check_structure(content: bytes) -> None:
    """Refuse JSON that is too deep or has too many values, without parsing it."""
    import numpy as np  # Here, so that the command line starts without it.

    text = np.frombuffer(content.replace(rb"\\", b"").replace(rb"\"", b""), dtype=np.uint8)
    text = text[~np.logical_xor.accumulate(text == ord('"'))]  # what is outside of strings
    opens = (text == ord("[")) | (text == ord("{"))
    closes = (text == ord("]")) | (text == ord("}"))
    depth = np.cumsum(opens.astype(np.int8) - closes.astype(np.int8), dtype=np.int32)
    if depth.max(initial=0) > MAX_JSON_DEPTH:
        raise _UnacceptableError(f"nests lists and objects more than {MAX_JSON_DEPTH} deep")
    if np.count_nonzero(opens) + np.count_nonzero(text == ord(",")) > MAX_JSON_VALUES:
        raise _UnacceptableError(f"has more than {MAX_JSON_VALUES:,} values")


def _parse(content: bytes) -> Any:
    found = json.loads(
        content.decode(), parse_constant=_finite_float, parse_float=_finite_float, object_pairs_hook=_object
    )
    if b"\\ud" in content.lower():  # Half of a pair that stands for a character can be neither printed nor written.
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _UnacceptableError(f"contains the number {text:.40}, which is not finite")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _UnacceptableError(f"contains the key {ascii(twice)[:40]} twice in one object")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write JSON at once or not at all. Numbers that are not finite are refused with a ValueError."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file at once or not at all: an existing file is replaced once the new one is complete on the disk."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):  # It has been renamed.
            partial.unlink()
