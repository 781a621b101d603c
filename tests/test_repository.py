"""What stands in the repository: text, and the few pictures of the documentation."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PICTURES = {".png", ".svg"}


def test_no_binary_file_is_in_the_repository() -> None:
    """A wheel once lay in its root for weeks."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    paths = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    assert len(paths) > 300
    binary = [path.name for path in paths if b"\0" in path.read_bytes()[:8192]]
    assert [name for name in binary if Path(name).suffix not in PICTURES] == []
