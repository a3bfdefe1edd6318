"""A stage of sampling that is declared in Python is on the page: its control, its limits, its place in the order."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from new_stage import FROM_PATH, copy_with_new_stage

from .conftest import served

pytestmark = pytest.mark.slow  # a server of its own


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Provide a server that has the stage ``floor``."""
    folder = tmp_path_factory.mktemp("copy")
    environment = copy_with_new_stage(folder)
    run = FROM_PATH + "from gpt2lab.cli.main import main; main(['serve', *sys.argv[1:]])"
    url, process = served([sys.executable, "-c", run], cwd=folder, env=environment)
    yield url
    process.kill()
    process.wait()


def test_a_new_stage_has_a_control_a_default_limits_and_its_arithmetic(url, new_page):
    page = new_page(url)
    page.goto("/")
    page.wait_for_selector("[data-ready]")
    labels = page.locator(".controls label").all_text_contents()
    assert labels[labels.index("Min-p") + 1] == "Floor"
    found = page.evaluate("""async () => {
      const [{ stages }, { DEFAULTS, LIMITS }] = [await import("/page/sampling.js"), await import("/page/settings.js")];
      const drawn = stages([3, 2, 1, 0], { floor: 0.1, min_p: 0.01 });
      const left = drawn.map(({ name, probabilities }) => [name, probabilities[3]]);
      return { left, value: DEFAULTS.floor, limits: LIMITS.floor };
    }""")
    assert [name for name, _ in found["left"]] == ["model", "min_p", "floor"]
    assert found["left"][-1][1] == 0
    assert (found["value"], found["limits"]["least"], found["limits"]["most"]) == (0, 0, 1)
