import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def refresh():
    """The script that writes printed results into the pages."""
    spec = importlib.util.spec_from_file_location("refresh_readme", ROOT / "benchmarks" / "refresh_readme.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def demo(readme):
    """The demo's output as the README shows it."""
    found = re.search(
        r"<!-- output of: trilemma plan examples/chat-70b.yaml -->\n```text\n(.*?)```\n<!-- end of output -->",
        readme,
        re.DOTALL,
    )
    assert found, "README.md has lost the demo's output: run python benchmarks/refresh_readme.py"
    return found[1]
