"""The README's examples run, and its commands are the ones that are run elsewhere."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from converters import arch, convert, torch_io
from jaxunlearn.models import small_vgg

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "adding-a-model.md"
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = small_vgg(10, (8, 8, 1), (4, 4, 4))
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, spec.init(jax.random.key(0))))
    Path("model.pth").write_bytes(torch_io.new_state_dict_bytes(arrays))
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), {})  # noqa: S102  # our own text


def test_the_page_on_adding_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its blocks in order are one program; run as a script, it cleans the new network's checkpoint."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arch, "_ARCHITECTURES", dict(arch._ARCHITECTURES))
    flags = ["--ckpt", "tiny.pth", "--clean", "digits[:100]", "--rounds", "1", "--out", "out"]
    monkeypatch.setattr("sys.argv", ["my_tiny_net.py", *flags])
    with pytest.raises(SystemExit) as ended:
        exec(compile("\n".join(blocks), str(PAGE), "exec"), {"__name__": "__main__"})  # noqa: S102  # our own text
    assert ended.value.code == 0, capsys.readouterr().err
    assert torch_io.read(Path("out/model.pth")).content["epoch"] == 3


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


def anchors(page: Path) -> set[str]:
    """Where a link into a page may lead: its headings, as they are spelled in addresses."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(\s*([^)\s]+)\s*\)", page.read_text())
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    assert links or page == PAGE


def test_the_two_commands_are_one_line_each() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert [line.rsplit(" -m ", 1)[1] for line in commands] == ["jaxunlearn.ibau --demo", "pytest"]
