"""Tests of setup's logic; no network, no compiler. Run by `make test`."""

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cargo_config
import existing
import libtorch
import machine
import own_copy
import wrapper
from messages import SetupError

VERSION = "2.11.0"
WHEEL_NAME = "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl"
FILES = {
    "torch/bin/unwanted_first": b"1",
    "torch/include/torch/csrc/api/include/torch/torch.h": b"// torch\n",
    "torch/lib/libc10.so": b"c10" * 1000,
    "torch/lib/libtorch_cpu.so": b"cpu" * 1000,
    "torch/lib/libunwanted_last.so": b"4",
    "torch-2.11.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n",
    "torch-2.11.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp312-cp312-manylinux_2_28_x86_64\n",
    "torch-2.11.0.dist-info/RECORD": b"",
}


def quietly(function, *arguments):
    """Calls the function; returns (its result or SetupError, its messages)."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            result = function(*arguments)
        except SetupError as error:
            result = error
    return result, said.getvalue()


class InScratchFolder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tokengrid-setup-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, contents, *parts):
        path = self.path(*parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(contents.encode() if isinstance(contents, str) else contents)
        return path

    def read(self, *parts):
        with open(self.path(*parts), "rb") as file:
            return file.read()


class OwnCopy(InScratchFolder):
    """pip itself fetches a small wheel from a folder, as on a machine without a network."""

    def setUp(self):
        super().setUp()
        with zipfile.ZipFile(self.write(b"", "wheels", WHEEL_NAME), "w") as archive:
            for name, contents in FILES.items():
                archive.writestr(name, contents)
        self.pin(hashlib.sha256(self.read("wheels", WHEEL_NAME)).hexdigest())
        settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.path("wheels"), "PIP_CONFIG_FILE": os.devnull}
        for patch in (
            mock.patch.object(own_copy, "HERE", self.folder),
            mock.patch.object(machine, "check_platform", lambda: "x86_64"),
            mock.patch.dict(os.environ, settings),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def pin(self, sha256):
        self.write(f"# A comment\ntorch==2.11.0 \\\n    --hash=sha256:{sha256}\n", "libtorch-cpu.txt")

    def provide(self):
        """The result or error of `provide`, and its messages without pip's own."""
        run = subprocess.run

        def silent(command, **_):
            return run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

        with mock.patch.object(subprocess, "run", silent):
            return quietly(own_copy.provide, self.path("cache"), "cpu")

    def test_unpacks_the_wanted_members_and_leaves_only_the_finished_copy(self):
        self.write(b"", "cache", ".tmp-killed", "torch", "half")
        self.provide()
        self.assertEqual(sorted(os.listdir(self.path("cache"))), [".lock", "libtorch-2.11.0-cpu"])
        copy = self.path("cache", "libtorch-2.11.0-cpu")
        found = {os.path.relpath(os.path.join(folder, name), copy) for folder, _, names in os.walk(copy) for name in names}
        wanted = {name for name in FILES if "unwanted" not in name and "dist-info" not in name}
        self.assertEqual(found, wanted | {"torch/build-version"})
        self.assertEqual(self.read("cache", "libtorch-2.11.0-cpu", "torch/lib/libc10.so"), FILES["torch/lib/libc10.so"])

    def test_a_wheel_with_another_checksum_is_refused_and_nothing_kept(self):
        self.pin("0" * 64)
        error, _ = self.provide()
        self.assertRegex(str(error), "could not download torch==2.11.0(.|\n)*HTTPS_PROXY(.|\n)*Offline")
        self.assertEqual(sorted(os.listdir(self.path("cache"))), [".lock", "downloads"])
        self.assertEqual(os.listdir(self.path("cache", "downloads")), [])

    def test_a_finished_copy_needs_no_network(self):
        self.provide()
        shutil.rmtree(self.path("wheels"))
        found, said = self.provide()
        self.assertEqual(found.lib, self.path("cache", "libtorch-2.11.0-cpu", "torch", "lib"))
        self.assertEqual(said, "")

    def test_two_setups_at_once_install_once(self):
        installed = []

        def install(cache, folder, variant, processor):
            installed.append(processor)
            self.write("2.11.0", os.path.relpath(folder, self.folder), "torch", "build-version")

        threads = [threading.Thread(target=own_copy.provide, args=(self.path("cache"), "cpu")) for _ in range(3)]
        with contextlib.redirect_stderr(io.StringIO()), mock.patch.object(own_copy, "install", install):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(installed, ["x86_64"])

    def test_a_full_disk_is_noticed_before_the_download(self):
        with mock.patch.object(own_copy.shutil, "disk_usage", lambda _: mock.Mock(free=5_000_000)):
            error, _ = self.provide()
        for part in (self.path("cache"), "5 MB free", "1,100 MB", "TOKENGRID_LIBTORCH_DIR"):
            self.assertIn(part, str(error))

    def test_every_wheel_is_pinned_for_every_processor(self):
        with mock.patch.object(own_copy, "HERE", os.path.dirname(os.path.abspath(own_copy.__file__))):
            pinned = own_copy.requirements("cuda")
            self.assertEqual(pinned[: len(own_copy.requirements("cpu"))], own_copy.requirements("cpu"))
        for requirement in pinned:
            self.assertRegex(requirement, r"^[a-z0-9-]+==[0-9.]+( --hash=sha256:[0-9a-f]{64}){2}$")

    def test_where_the_cache_is(self):
        self.assertEqual(own_copy.cache_folder({"TOKENGRID_LIBTORCH_DIR": "/x", "XDG_CACHE_HOME": "/y"}), "/x")
        self.assertEqual(own_copy.cache_folder({"XDG_CACHE_HOME": "/y"}), "/y/tokengrid")
        self.assertEqual(own_copy.cache_folder({}), os.path.expanduser("~/.cache/tokengrid"))

    def test_variant(self):
        cases = (("auto", True, "cuda"), ("", False, "cpu"), ("cpu", True, "cpu"), ("cuda", False, "cuda"))
        for wish, has_cuda, expected in cases:
            with mock.patch.object(machine, "has_cuda", lambda: has_cuda):
                self.assertEqual(own_copy.wanted_variant({"TOKENGRID_LIBTORCH": wish}, self.folder), expected)
        with self.assertRaisesRegex(SetupError, "TOKENGRID_LIBTORCH=rocm: expected auto, cpu or cuda"):
            own_copy.wanted_variant({"TOKENGRID_LIBTORCH": "rocm"}, self.folder)


# --- An existing libtorch ---------------------------------------------------------------------------------------------


class Existing(InScratchFolder):
    def make_libtorch(self, name, version="2.11.0", file="build-version"):
        root = self.path(name)
        for library in ("libtorch_cpu.so", "libc10.so"):
            self.write(b"", name, "lib", library)
        self.write(b"", name, "include/torch/csrc/api/include/torch/torch.h")
        if file == "headers":
            numbers = zip(("MAJOR", "MINOR", "PATCH"), version.split("."))
            text = "".join(f"#define TORCH_VERSION_{part} {number}\n" for part, number in numbers)
            self.write(text, name, "include/torch/headeronly/version.h")
        else:
            self.write(version, name, file)
        return root

    def find(self, environment, old_config=None, python=None):
        def provide(cache, variant):
            return existing.Libtorch(cache, cache, cache, VERSION, variant)

        with mock.patch.object(own_copy, "provide", provide), mock.patch.object(existing, "from_python", lambda: python):
            with mock.patch.object(machine, "has_cuda", lambda: False):
                return libtorch.find_libtorch(environment, old_config, self.path("cache"))

    def config(self, root):
        return cargo_config.render("x86_64", existing.usable(root, root, root, ""), None, True)

    def test_the_users_libtorch_wins(self):
        mine, other = self.make_libtorch("mine"), self.make_libtorch("other")
        python = existing.usable(other, other, other, "your PyTorch")
        found = self.find({"LIBTORCH": mine}, self.config(other), python)
        self.assertEqual((found.root, found.origin), (mine, "LIBTORCH"))

    def test_versions_are_found_in_every_layout(self):
        version_py = "from typing import Optional\n__version__ = '2.11.0+cpu'\ndebug = False\n"
        for file, text, expected in (
            ("build-version", "2.11.0+cu130\n", "2.11.0+cu130"),
            ("version.py", version_py, "2.11.0+cpu"),
            ("headers", "2.11.1", "2.11.1"),
        ):
            root = self.make_libtorch(f"with-{file}", text, file)
            self.assertEqual(existing.from_environment({"LIBTORCH": root}).version, expected)

    def test_a_libtorch_of_another_version_is_an_error(self):
        for version in ("2.5.1", "2.1.1", "2.110.0"):
            root = self.make_libtorch("old", version)
            with self.assertRaises(SetupError) as caught:
                existing.from_environment({"LIBTORCH": root})
            for part in (f"LIBTORCH={root}", f"version {version}", "needs 2.11", "unset it"):
                self.assertIn(part, str(caught.exception))

    def test_a_folder_that_is_no_libtorch_is_an_error(self):
        with self.assertRaisesRegex(SetupError, "LIBTORCH=/nowhere: /nowhere/lib/libtorch_cpu.so is missing"):
            existing.from_environment({"LIBTORCH": "/nowhere"})

    def test_headers_and_libraries_may_lie_apart(self):
        self.make_libtorch("headers-only")
        shutil.rmtree(self.path("headers-only", "lib"))
        environment = {"LIBTORCH": self.path("headers-only"), "LIBTORCH_LIB": self.make_libtorch("libraries")}
        self.assertEqual(existing.from_environment(environment).lib, self.path("libraries", "lib"))

    def test_pytorch_of_this_python(self):
        root = self.make_libtorch("site/torch", "__version__ = '2.11.0'\n", "version.py")
        self.write("raise RuntimeError('imported')", "site", "torch", "__init__.py")
        with mock.patch.object(sys, "path", [self.path("site")] + sys.path):
            self.assertEqual(existing.from_python().root, root)
            self.write("__version__ = '2.9.0'\n", "site", "torch", "version.py")
            found, said = quietly(existing.from_python)
        self.assertIsNone(found)
        self.assertIn("is not used: it is version 2.9.0, tokengrid needs 2.11", said)

    def test_stays_with_the_libtorch_in_use(self):
        used, new = self.make_libtorch("used"), self.make_libtorch("new")
        python = existing.usable(new, new, new, "your PyTorch")
        self.assertEqual(self.find({}, self.config(used), python).root, used)
        config = self.config(used)
        shutil.rmtree(used)
        self.assertEqual(self.find({}, config, python).root, new)

    def test_our_own_copy_in_use_is_kept_when_a_pytorch_appears(self):
        ours, new = self.make_libtorch("cache/libtorch-2.11.0-cpu/torch"), self.make_libtorch("new")
        python = existing.usable(new, new, new, "your PyTorch")
        self.assertEqual(self.find({}, self.config(ours), python).origin, "cpu")

    def test_asking_for_a_variant_means_our_own_copy(self):
        new = self.make_libtorch("new")
        python = existing.usable(new, new, new, "your PyTorch")
        self.assertEqual(self.find({"TOKENGRID_LIBTORCH": "cuda"}, None, python).origin, "cuda")


# --- What setup writes ------------------------------------------------------------------------------------------------


class CargoConfig(InScratchFolder):
    def setUp(self):
        super().setUp()
        self.file = self.path(".cargo", "config.toml")
        root = '/a "b"/torch'
        self.found = existing.Libtorch(root, root, root, VERSION, "cpu")
        self.text = cargo_config.render("x86_64", self.found, "/wrapper", True)

    def test_an_unchanged_file_is_not_written_again(self):
        self.assertTrue(cargo_config.write_if_changed(self.file, self.text))
        os.utime(self.file, (1, 1))
        self.assertFalse(cargo_config.write_if_changed(self.file, self.text))
        self.assertEqual(os.path.getmtime(self.file), 1)
        self.assertTrue(cargo_config.write_if_changed(self.file, self.text + "# more\n"))

    def test_a_file_of_the_users_is_left_alone(self):
        self.write("[build]\njobs = 2\n", ".cargo", "config.toml")
        with self.assertRaisesRegex(SetupError, "was not made by setup"):
            cargo_config.write_if_changed(self.file, self.text)
        self.assertEqual(self.read(".cargo", "config.toml"), b"[build]\njobs = 2\n")

    def test_says_what_cargo_needs(self):
        self.assertTrue(self.text.startswith("# Generated by"))
        for line in (
            'LIBTORCH = "/a \\"b\\"/torch"',
            'rustflags = ["-C", "link-arg=-Wl,-rpath,/a \\"b\\"/torch/lib"]',
            "[target.x86_64-unknown-linux-gnu.tch]",
            'rustc-link-search = ["native=/wrapper", "native=/a \\"b\\"/torch/lib"]',
        ):
            self.assertIn("\n" + line + "\n", self.text)
        self.assertNotIn("tch]", cargo_config.render("x86_64", self.found, None, True))

    def test_flags_for_the_environment(self):
        self.assertEqual(cargo_config.rustflags_of(self.text), '-C link-arg=-Wl,-rpath,/a "b"/torch/lib')
        self.assertEqual(cargo_config.rustflags_of(None), "")

    def test_remembers_whether_nasm_was_there(self):
        self.assertFalse(cargo_config.lacked_nasm(self.text))
        self.assertTrue(cargo_config.lacked_nasm(cargo_config.render("x86_64", self.found, None, False)))
        self.assertFalse(cargo_config.lacked_nasm(None))


class Wrapper(InScratchFolder):
    def libtorch(self, root="/libtorch", version=VERSION):
        return existing.Libtorch(root, root, root, version, "")

    def test_version_comes_from_the_lock_file(self):
        self.assertIsNone(wrapper.torch_sys_version(self.folder))
        self.write('[[package]]\nname = "torch-sys"\nversion = "0.24.0"\n', "Cargo.lock")
        self.assertEqual(wrapper.torch_sys_version(self.folder), "0.24.0")

    def test_everything_it_depends_on_is_in_its_name(self):
        compiler = [sys.executable, self.write("print('12.2')", "compiler.py")]
        before_upgrade = wrapper.folder_name("0.24.0", self.libtorch(), compiler)
        self.write("print('12.3')", "compiler.py")
        names = {
            before_upgrade,
            wrapper.folder_name("0.24.0", self.libtorch(), compiler),
            wrapper.folder_name("0.25.0", self.libtorch(), compiler),
            wrapper.folder_name("0.24.0", self.libtorch("/elsewhere"), compiler),
            wrapper.folder_name("0.24.0", self.libtorch(version="2.11.1"), compiler),
        }
        self.assertEqual(len(names), 5)
        self.assertIn(wrapper.folder_name("0.24.0", self.libtorch(), compiler), names)

    def test_a_failing_compiler_leaves_nothing(self):
        with mock.patch.object(wrapper, "torch_sys_folder", lambda *_: self.folder):
            error, _ = quietly(wrapper.build, self.path("cache", "torch-sys"), "", "0.24.0", self.libtorch(), ["false"])
        self.assertIn("compiling torch-sys's C++ failed", str(error))
        self.assertEqual(os.listdir(self.path("cache")), [])


class ThisMachine(InScratchFolder):
    def test_unsupported_platforms_are_told_the_way_out(self):
        with mock.patch.object(machine.platform, "system", lambda: "Darwin"):
            with self.assertRaisesRegex(SetupError, "not Darwin(.|\n)*--no-default-features"):
                machine.check_linux()
        with mock.patch.object(machine.platform, "machine", lambda: "riscv64"):
            with self.assertRaisesRegex(SetupError, "for riscv64(.|\n)*LIBTORCH"):
                machine.check_platform()
        with mock.patch.object(machine.platform, "machine", lambda: "x86_64"):
            with mock.patch.object(machine.os, "confstr", lambda _: None):
                with self.assertRaisesRegex(SetupError, "musl"):
                    machine.check_platform()
            with mock.patch.object(machine.os, "confstr", lambda _: "glibc 2.17"):
                with self.assertRaisesRegex(SetupError, "this system has glibc 2.17"):
                    machine.check_platform()

    def test_no_compiler_and_not_root_names_the_command(self):
        with mock.patch.dict(os.environ, {"PATH": self.folder, "CXX": ""}), mock.patch.object(os, "geteuid", lambda: 1000):
            with self.assertRaisesRegex(SetupError, "sudo apt-get install g[+][+]"):
                machine.cxx_compiler()

    def test_no_nasm_and_not_root_goes_on(self):
        with mock.patch.dict(os.environ, {"PATH": self.folder}), mock.patch.object(os, "geteuid", lambda: 1000):
            result, said = quietly(machine.has_assembler, "x86_64")
            self.assertFalse(result)
            self.assertIn("sudo apt-get install nasm", said)
            self.assertEqual(quietly(machine.has_assembler, "aarch64"), (True, ""))

    def fake_apt_get(self):
        """Records its arguments; the first `install` fails, as with empty package lists; then it "installs" nasm."""
        script = f"""#!/bin/sh
echo "$@" >>{self.path('calls')}
case "$1" in
update) : >{self.path('updated')} ;;
install) [ -e {self.path('updated')} ] || exit 100
         printf '#!/bin/sh\\n' >{self.path('nasm')}; /bin/chmod +x {self.path('nasm')} ;;
esac
"""
        os.chmod(self.write(script, "apt-get"), 0o755)

    def test_root_gets_packages_installed(self):
        self.fake_apt_get()
        environment = {"PATH": self.folder, "TOKENGRID_APT": ""}
        with mock.patch.dict(os.environ, environment), mock.patch.object(os, "geteuid", lambda: 0):
            self.assertTrue(quietly(machine.has_assembler, "x86_64")[0])
        calls = [line.split()[0] for line in self.read("calls").decode().splitlines()]
        self.assertEqual(calls, ["install", "update", "install"])

    def test_root_may_forbid_it(self):
        self.fake_apt_get()
        environment = {"PATH": self.folder, "TOKENGRID_APT": "0"}
        with mock.patch.dict(os.environ, environment), mock.patch.object(os, "geteuid", lambda: 0):
            self.assertFalse(quietly(machine.has_assembler, "x86_64")[0])
        self.assertFalse(os.path.exists(self.path("calls")))
        with self.assertRaisesRegex(SetupError, "TOKENGRID_APT=no: expected 0 or 1"):
            machine.may_use_apt({"TOKENGRID_APT": "no"})

    def test_an_old_driver_means_cpu(self):
        def driver_with(version):
            def get_version(pointer):
                pointer._obj.value = version
                return 0

            return mock.Mock(cuDriverGetVersion=get_version)

        for version, expected in ((13000, True), (13010, True), (12040, False)):
            with mock.patch.object(machine.ctypes, "CDLL", lambda _: driver_with(version)):
                result, said = quietly(machine.has_cuda)
            self.assertEqual(result, expected, version)
        self.assertIn("supports CUDA 12.4, libtorch needs 13.0", said)


class Messages(unittest.TestCase):
    def test_errors_end_with_status_1_and_no_traceback(self):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libtorch.py")
        environment = {**os.environ, "LIBTORCH": "/nowhere", "TOKENGRID_APT": "0", "CXX": "true"}
        result = subprocess.run([sys.executable, script], env=environment, stderr=subprocess.PIPE, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"setup: error: LIBTORCH=/nowhere", result.stderr)
        self.assertNotIn(b"Traceback", result.stderr)

    def test_disk_errors_in_words(self):
        self.assertIn("no space left in /c", libtorch.explain(OSError(28, "x"), "/c"))
        self.assertIn("/d cannot be written", libtorch.explain(OSError(13, "Permission denied", "/d"), "/c"))


if __name__ == "__main__":
    unittest.main()
