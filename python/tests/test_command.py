"""The command that comes with the package."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import tokengrid

PROGRAM = Path(sysconfig.get_path("scripts")) / "tokengrid"
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the package was installed without programs (from source)")


def run(*arguments, code=0, **more):
    # Nothing of a developer's shell.
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LD_LIBRARY_PATH")}
    result = subprocess.run([*map(str, arguments)], capture_output=True, text=True, env=environment, **more)
    assert result.returncode == code, result.stderr
    return result


def test_version_and_module():
    assert run(PROGRAM, "--version").stdout.split()[1] == tokengrid.__version__
    assert run(sys.executable, "-m", "tokengrid", "--version").stdout == run(PROGRAM, "--version").stdout


def test_it_reads_what_the_writer_wrote(written):
    info = json.loads(run(PROGRAM, "cache", "info", written[0], "--json").stdout)
    assert info == tokengrid.TokenCache(written[0]).info
    message = run(PROGRAM, "cache", "info", "/nowhere", code=1).stderr
    with pytest.raises(tokengrid.NotACacheError) as caught:
        tokengrid.TokenCache("/nowhere")
    assert str(caught.value) in message


def test_commands_with_libtorch_use_that_of_the_installed_torch(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    photos = ROOT / "data/photos/n02123045"
    out = tmp_path / "cache"
    run(PROGRAM, "tokenize", photos, "--tokenizer", "tiny", "--size", "32", "--limit", "2", "--out", out, "--quiet")
    assert len(tokengrid.TokenCache(out)) == 2
    loaded = run("ldd", PROGRAM.with_name("tokengrid-torch")).stdout
    assert "libtorch_cpu.so => not found" in loaded, "it has no path of the machine that built it"


def test_without_torch_it_says_what_to_install(tmp_path):
    """The same programs and package in an environment without PyTorch."""
    prefix = tmp_path / "environment"
    packages = prefix / "lib/python3.10/site-packages"
    packages.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (packages / "tokengrid").symlink_to(Path(tokengrid.__file__).parent)
    for program in ("tokengrid", "tokengrid-torch"):
        os.link(PROGRAM.with_name(program), prefix / "bin" / program)
    (prefix / "bin/python3").symlink_to("/bin/true")
    command = (prefix / "bin/tokengrid", "weights", "info", "tiny")
    install = "pip install --find-links dist 'tokengrid[torch]'"
    assert install in run(*command, code=1).stderr
    (packages / "torch").mkdir()
    (packages / "torch/version.py").write_text("__version__ = '2.9.1+cu128'\n")
    assert "is PyTorch 2.9.1+cu128: pip install 'torch==2.11.*'" in run(*command, code=1).stderr
    (prefix / "bin/tokengrid-torch").unlink()
    (packages / "torch/version.py").write_text("__version__ = '2.11.0'\n")
    assert f"it comes with the package tokengrid-torch: {install}" in run(*command, code=1).stderr
