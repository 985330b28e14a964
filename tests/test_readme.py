"""The README's examples run, one after the other, as a reader would type them."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_in_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    exec(compile("\n".join(blocks), str(README), "exec"), names)
    assert (tmp_path / "pruned-unet" / "weights.safetensors").is_file()
    assert names["small"] is not names["model"]
