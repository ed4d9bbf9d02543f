import sys

import pytest

from orchestrator.errors import UsageError
from orchestrator.spec.factory import call_factory, load_factory


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a user's module and forget it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = set(sys.modules)

    def write_module(name, text):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path

    yield write_module
    for name in set(sys.modules) - loaded:
        if getattr(sys.modules[name], "__file__", None):
            del sys.modules[name]


def test_a_callable_beside_the_job_file_is_found(write):
    folder = write("user_models", "def build(width):\n    return width * 2\n")
    factory = load_factory("user_models:build", folder=folder)
    assert call_factory(factory, path="user_models:build", config={"width": 4}) == 8


def test_a_module_in_a_package_can_import_its_neighbour(write):
    write("user_package/__init__", "")
    write("user_package/sizes", "WIDTH = 3\n")
    folder = write(
        "user_package/nets",
        "from user_package.sizes import WIDTH\ndef build():\n    return WIDTH\n",
    )
    factory = load_factory("user_package.nets:build", folder=folder)
    assert call_factory(factory, path="user_package.nets:build", config={}) == 3


def test_the_current_folder_is_searched_after_the_job_files(write, tmp_path):
    write("user_here", "def build():\n    return 'here'\n")
    job_folder = tmp_path / "jobs"
    job_folder.mkdir()
    assert load_factory("user_here:build", folder=job_folder)() == "here"
    (job_folder / "user_both.py").write_text("def build():\n    return 'job'\n")
    write("user_both", "def build():\n    return 'here'\n")
    assert load_factory("user_both:build", folder=job_folder)() == "job"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("", "user_absent:build", r"there is no module 'user_absent' in .*; put user_absent\.py"),
        ("", "user_made.deeper:build", r"there is no module 'user_made\.deeper' in "),
        (
            "import user_absent_library\n",
            "user_made:build",
            r"importing user_made raised ModuleNotFoundError: .*user_absent_library.*"
            r" \(user_made\.py:1\)",
        ),
        (
            "x = 1\n\nraise RuntimeError('no licence')\n",
            "user_made:build",
            r"importing user_made raised RuntimeError: no licence \(user_made\.py:3\)",
        ),
        (
            "def build(:\n",
            "user_made:build",
            r"importing user_made raised SyntaxError: .* \(user_made\.py:1\)",
        ),
        (
            "raise SystemExit(3)\n",
            "user_made:build",
            r"importing user_made raised SystemExit: 3 \(user_made\.py:1\)",
        ),
        (
            "def build_model(): ...\n",
            "user_made:buld_model",
            "user_made has no 'buld_model'; did you mean 'build_model'",
        ),
        ("", "user_made:build", "user_made has no 'build'; define it"),
        ("build = 3\n", "user_made:build", "'build' is of type int, not callable; name a function"),
        ("", "random:build", r"'random' is already loaded from .*; rename .*random\.py"),
    ],
)
def test_a_factory_that_cannot_be_loaded_is_one_line(write, text, path, message):
    folder = write("user_made", text)
    write("random", text)
    with pytest.raises(UsageError, match=message) as caught:
        load_factory(path, folder=folder)
    assert str(caught.value).startswith(f"factory {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "config", "message"),
    [
        (
            "def build(width): ...\n",
            {"widht": 3},
            "config does not fit its parameters: missing a required argument: 'width'; correct",
        ),
        (
            "def build(width): ...\n",
            {"width": 3, "x": 1},
            "config does not fit its parameters: got an unexpected keyword argument 'x'",
        ),
        (
            "def build():\n    return {}['width']\n",
            {},
            r"raised KeyError: 'width' \(user_made\.py:2\)",
        ),
        (
            "import json\ndef build():\n    return json.loads('{')\n",
            {},
            r"raised JSONDecodeError: .* \(user_made\.py:3\)",
        ),
        (
            "def build():\n    raise ValueError('first\\nsecond')\n",
            {},
            r"raised ValueError: first \(user_made\.py:2\)",
        ),
    ],
)
def test_a_factory_that_raises_is_one_line(write, text, config, message):
    factory = load_factory("user_made:build", folder=write("user_made", text))
    with pytest.raises(UsageError, match=message) as caught:
        call_factory(factory, path="user_made:build", config=config)
    assert str(caught.value).startswith("factory user_made:build")
    assert "\n" not in str(caught.value)


def test_a_class_is_a_factory_too(write):
    folder = write("user_made", "class Net:\n    def __init__(self, width):\n        pass\n")
    factory = load_factory("user_made:Net", folder=folder)
    built = call_factory(factory, path="user_made:Net", config={"width": 5})
    assert type(built).__name__ == "Net"
