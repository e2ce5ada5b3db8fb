"""Recipes for projects that train with a framework run as their pages say."""

import re
import subprocess
import sys

import pytest
from processes import REPOSITORY, clean_environment


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "framework"), [("diffusion_policy", "accelerate"), ("viscy", "lightning")]
)
def test_a_recipe_ends_with_what_its_page_says(recipe, framework):
    """Stopped in mid-epoch on 2 processes, ended on 3: the script itself asserts that each sample is trained on once."""
    pytest.importorskip(framework)
    example = f"examples/recipes/{recipe}.py"
    page = (REPOSITORY / "docs" / "howto" / "recipes" / f"{recipe}.md").read_text()
    assert f"{example}\n:language: python" in page
    done = subprocess.run(
        [sys.executable, REPOSITORY / example],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.S)
    printed = [line for line in done.stdout.splitlines() if line in shown.splitlines()]
    assert printed == shown.splitlines()
