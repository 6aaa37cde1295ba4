"""What the workers' image is made of, and how plugins get into it."""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.image import ROOT, SECRET, TAG, Engine, Failed, built, container_options
from tests.deploy.wheel import make_wheel

pytestmark = pytest.mark.slow

_COMPILERS = re.compile(r"(.*-)?(cc|c\+\+|gcc|g\+\+|cpp|clang|clang\+\+|tcc|as|ld|gold|make|nvcc|rustc|go)(-[\d.]+)?")
_HOOKS = """
from synicix_core import ModelProvider, hookimpl

@hookimpl
def synicix_models():
    yield ModelProvider("Net", target="%s:Net", summary="A network of the lab")
"""


# The Dockerfiles of two lines, by what is mounted for the second one.
_CHILDREN = {
    mount: lines
    for lines, mount in re.findall(
        r"^```dockerfile\n(FROM .+\nRUN --mount=type=(\w+),.+\n)```$",
        (ROOT / "docs" / "containers.md").read_text(),
        re.MULTILINE,
    )
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    """With the image built from this checkout."""
    return built()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private source of plugins: one that fits, and others that do not."""
    folder = tmp_path_factory.mktemp("private")
    folder.chmod(0o755)  # an image that starts from ours installs as its user
    make_wheel(folder, "lab-fitting", "1.2", {"lab_fitting.py": _HOOKS % "lab_fitting"}, hooks="lab_fitting")
    modules = {"lab_torch.py": _HOOKS % "lab_torch"}
    make_wheel(folder, "lab-torch", "1.0", modules, hooks="lab_torch", requires=["torch==2.6.0"])
    make_wheel(folder, "lab-broken", "1.0", {"lab_broken.py": "import something_left_out\n"}, hooks="lab_broken")
    return folder


@pytest.fixture
def tag(engine: Engine) -> Iterator[str]:
    """A name for an image that is gone after the test."""
    name = f"localhost/synicix-tried:{uuid.uuid4().hex[:8]}"
    yield name
    engine.remove(name)


def test_the_image_says_how_it_is_run(engine: Engine) -> None:
    config = engine.inspect(TAG)["Config"]
    assert config["User"] == "10001:10001"
    assert (config["Entrypoint"], config["Cmd"]) == (["synicix-run"], ["populate"])
    assert (config["WorkingDir"], config["StopSignal"]) == ("/project", "SIGTERM")
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert environment["HOME"] == "/tmp"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert "NVIDIA_VISIBLE_DEVICES" not in environment  # whoever starts a container says what it may see
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_no_layer_holds_a_compiler(engine: Engine) -> None:
    layers = engine.layers(TAG)
    assert len(layers) > 5  # else this looked at nothing
    places = {"bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/lib/gcc", "opt/venv/bin"}
    programs = {path.name for layer in layers for place in places for path in (layer / place).glob("*")}
    assert "synicix-run" in programs
    assert not {name for name in programs if _COMPILERS.fullmatch(name)}
    assert not [path for layer in layers for path in layer.glob("usr/lib/gcc/*/*/cc1*")]


def test_no_layer_holds_a_secret_a_cache_or_the_rest_of_the_checkout(engine: Engine) -> None:
    layers = engine.layers(TAG)
    assert not _that_hold(SECRET, engine, TAG)
    unwanted = "http-v2", "selfcheck", "pip.conf", ".git", "tests", "source", ".secrets", "datajoint.json", "demo"
    for layer in layers:
        places = [layer, layer / "root", layer / "tmp", layer / "etc", layer / "root/.cache/pip", layer / "project"]
        assert not [place / name for place in places for name in unwanted if (place / name).exists()]
        assert not list((layer / "tmp").glob("*"))


def test_what_is_installed_can_be_added_to_and_not_changed(engine: Engine) -> None:
    script = """
import os, pathlib, stat, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
mine = [str(p) for p in site.parents[2].rglob("*") if p.lstat().st_uid == os.getuid()]
free = [str(p) for p in [site.parents[2], *site.parents[2].rglob("*")]
        if not p.is_symlink() and os.access(p, os.W_OK) and not p.stat().st_mode & stat.S_ISVTX]
print(mine, free, os.access(site, os.W_OK))
"""
    # Not read-only, or nothing could be written anyway.
    options = [option for option in container_options() if not option.startswith("--read-only")]
    command = ["run", "--rm", *options, "--entrypoint", '["python"]', TAG, "-c", script]
    assert engine.podman(*command).stdout.strip() == "[] [] True"


def test_a_plugin_of_a_private_index_is_installed_by_a_build_argument(engine: Engine, wheels: Path, tag: str) -> None:
    engine.build(tag, arguments={"EXTRA_PLUGINS": "lab-fitting==1.2"}, wheels=wheels, comment=SECRET)
    listed = engine.podman("run", "--rm", *container_options(), tag, "plugins", "list").stdout
    assert "lab-fitting/Net" in listed
    assert _that_hold("lab-fitting", engine, tag)
    assert not _that_hold(SECRET, engine, tag)
    assert not _that_hold(str(wheels), engine, tag)


def test_an_image_that_starts_from_ours_gets_a_plugin_of_a_private_index(
    engine: Engine, wheels: Path, tag: str, tmp_path: Path
) -> None:
    lines = _CHILDREN["secret"].replace("lab-plugin==1.2", "lab-fitting==1.2")
    (tmp_path / "empty").mkdir()
    _build_child(engine, tag, lines, tmp_path / "empty", wheels=wheels)
    assert not _that_hold(SECRET, engine, tag)
    assert not _that_hold(str(wheels), engine, tag)


def test_an_image_that_starts_from_ours_gets_a_plugin_of_a_folder(
    engine: Engine, wheels: Path, tag: str, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    shutil.copy(wheels / "lab_fitting-1.2-py3-none-any.whl", tmp_path / "wheels")
    _build_child(engine, tag, _CHILDREN["bind"], tmp_path / "wheels")
    (added, *_) = engine.layers(tag)
    assert list(added.rglob("lab_fitting.py"))
    assert not list(added.rglob("*.whl"))


def _build_child(engine: Engine, tag: str, lines: str, context: Path, *, wheels: Path | None = None) -> None:
    file = context.with_name("Dockerfile")
    file.write_text(lines.replace("synicix:0.1.0-cpu", TAG))
    engine.build(tag, context=context, file=str(file), wheels=wheels, comment=SECRET)
    listed = engine.podman("run", "--rm", *container_options(), tag, "plugins", "list").stdout
    assert "lab-fitting/Net" in listed


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        pytest.param("lab-torch", ("lab-torch 1.0 depends on torch==2.6.0", "(constraint) torch==2."), id="torch"),
        pytest.param("lab-broken", ("cannot be imported", "something_left_out"), id="one that cannot be imported"),
    ],
)
def test_a_plugin_that_does_not_fit_fails_the_build_and_says_why(
    engine: Engine, wheels: Path, tag: str, plugin: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(Failed) as failed:
        engine.build(tag, arguments={"EXTRA_PLUGINS": f"{plugin}==1.0"}, wheels=wheels)
    assert all(word in str(failed.value) for word in words)


def _that_hold(text: str, engine: Engine, image: str) -> list[str]:
    """Return the layers' files that hold a text, and ``history`` if what the image says of itself does."""
    layers = map(str, engine.layers(image))
    found = subprocess.run(["grep", "-rlaF", "--exclude=*.so*", "--", text, *layers], capture_output=True, text=True)
    assert found.returncode in (0, 1), found.stderr  # 1: nothing found
    history = engine.podman("history", "--no-trunc", image).stdout
    assert "synicix-run" in history
    return [
        *found.stdout.splitlines(),
        *(["history"] if text in history + str(engine.inspect(image)["Config"]) else []),
    ]
