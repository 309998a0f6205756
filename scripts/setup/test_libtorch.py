"""Tests of setup's logic against a web server on loopback; no network, no compiler. Run by `make test`."""

import base64
import contextlib
import hashlib
import http.server
import io
import json
import os
import random
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
import download
import existing
import libtorch
import machine
import own_copy
import pins
import pip_index
import unpack
import wrapper
from messages import Progress, SetupError

PROJECT = "torch"
VERSION = "2.11.0"
WHEEL_NAME = "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl"
SECRET = "s3cret"


# --- Stand-ins --------------------------------------------------------------------------------------------------------


def make_wheel(files, project=PROJECT):
    """A wheel with these members and a true RECORD: its bytes and the pin for it."""
    rows = []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
            digest = base64.urlsafe_b64encode(hashlib.sha256(contents).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(contents)}")
        record_name = f"{project}-{VERSION}.dist-info/RECORD"
        record = "\n".join(rows + [f"{record_name},,"]).encode()
        archive.writestr(record_name, record)
    data = buffer.getvalue()
    return data, pins.File(WHEEL_NAME, len(data), hashlib.sha256(record).hexdigest())


def random_bytes(num_bytes, seed):
    return random.Random(seed).getrandbits(8 * num_bytes).to_bytes(num_bytes, "big")


FILES = {
    "torch/bin/unwanted_first": random_bytes(3_000_000, 1),
    "torch/include/torch/csrc/api/include/torch/torch.h": b"// torch\n",
    "torch/lib/libc10.so": random_bytes(700_000, 2),
    "torch/lib/libtorch_cpu.so": random_bytes(2_000_000, 3),
    "torch/lib/libunwanted_last.so": random_bytes(3_000_000, 4),
}
MEMBERS = ("torch/include/*", "torch/lib/libc10.so", "torch/lib/libtorch_cpu.so")
UNWANTED = [name for name in FILES if "unwanted" in name]


class Mirror(http.server.ThreadingHTTPServer):
    """An index with one wheel. The attributes choose how it misbehaves; the counters say what it was asked for."""

    daemon_threads = True

    def __init__(self, wheel):
        super().__init__(("127.0.0.1", 0), MirrorHandler)
        self.wheel = wheel
        self.index_is_html = False
        self.knows_ranges = True
        self.wants_login = False
        self.cut_after_bytes = None  # of all wheel bytes served, once
        self.refuses_wheel = False
        self.served_bytes = 0
        self.index_requests = 0
        self.wheel_requests = 0
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def index_url(self):
        login = f"user:{SECRET}@" if self.wants_login else ""
        return f"http://{login}127.0.0.1:{self.server_port}/simple/"

    def stop(self):
        self.shutdown()
        self.server_close()
        self.thread.join()


class MirrorHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        expected = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
        if self.server.wants_login and self.headers.get("Authorization") != expected:
            return self.send_error(401)
        if self.path == f"/simple/{PROJECT}/":
            return self.send_index()
        if self.path == f"/files/{WHEEL_NAME}":
            return self.send_wheel()
        return self.send_error(404)

    def send_index(self):
        self.server.index_requests += 1
        if self.server.index_is_html:
            kind, page = "text/html", f'<html><a href="../../files/{WHEEL_NAME}#sha256=0">torch</a></html>'
        else:
            kind = "application/vnd.pypi.simple.v1+json"
            page = json.dumps({"files": [{"filename": WHEEL_NAME, "url": f"/files/{WHEEL_NAME}"}]})
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(page.encode())

    def send_wheel(self):
        server = self.server
        server.wheel_requests += 1
        if server.refuses_wheel:
            return self.send_error(403)
        start, end, wanted = 0, len(server.wheel), self.headers.get("Range")
        if wanted and server.knows_ranges:
            first, _, last = wanted[len("bytes=") :].partition("-")
            start, end = int(first), int(last) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(server.wheel)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        data = server.wheel[start:end]
        if server.cut_after_bytes is not None and server.served_bytes + len(data) > server.cut_after_bytes:
            data = data[: max(0, server.cut_after_bytes - server.served_bytes)]
        server.served_bytes += len(data)
        self.wfile.write(data)


def quietly(function, *arguments):
    """Calls the function; returns (its result or SetupError, what it said)."""
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
        patch = mock.patch.object(download, "RETRY_DELAYS_SECS", (0, 0))
        patch.start()
        self.addCleanup(patch.stop)

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


class WithMirror(InScratchFolder):
    def setUp(self):
        super().setUp()
        self.data, self.pin = make_wheel(FILES)
        self.wheel = pins.Wheel(PROJECT, VERSION, MEMBERS, {"x86_64": self.pin, "aarch64": self.pin})
        self.mirror = Mirror(self.data)
        self.addCleanup(self.mirror.stop)
        for target, name, value in (
            (pip_index, "has_pip", lambda: False),
            (pip_index, "pip_settings", self.settings),
            (pins, "wheels", lambda variant: [self.wheel]),
            (machine, "check_platform", lambda: "x86_64"),
        ):
            patch = mock.patch.object(target, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def settings(self):
        return {"index-url": self.mirror.index_url}

    def fetch(self, settings=None):
        """Result and messages of one run that unpacks the wheel to out/."""
        fetcher = own_copy.Fetcher(self.path("downloads"), settings or self.settings())
        return quietly(fetcher.unpack, self.wheel, self.pin, self.path("out"))

    def assert_unpacked(self):
        for name, contents in FILES.items():
            if name in UNWANTED:
                self.assertFalse(os.path.exists(self.path("out", name)), name)
            else:
                self.assertEqual(self.read("out", name), contents, name)


# --- Downloads --------------------------------------------------------------------------------------------------------


class Downloads(WithMirror):
    def test_fetches_only_the_wanted_members(self):
        self.assertEqual(self.fetch()[0], None)
        self.assert_unpacked()
        wanted = sum(len(contents) for name, contents in FILES.items() if name not in UNWANTED)
        self.assertLess(self.mirror.served_bytes, wanted + 4 * download.BLOCK_BYTES)

    def test_reads_html_index_pages(self):
        self.mirror.index_is_html = True
        self.assertEqual(self.fetch()[0], None)
        self.assert_unpacked()

    def test_a_server_without_ranges_gives_the_whole_wheel(self):
        self.mirror.knows_ranges = False
        self.assertEqual(self.fetch()[0], None)
        self.assert_unpacked()
        self.assertEqual(self.mirror.served_bytes, len(self.data))

    def test_continues_after_an_interrupted_run(self):
        self.mirror.cut_after_bytes = 1_500_000
        error, _ = self.fetch()
        self.assertIn("it continues where it stopped", str(error))
        self.assertEqual(self.mirror.served_bytes, 1_500_000)
        self.mirror.cut_after_bytes = None
        self.assertEqual(self.fetch()[0], None)
        self.assert_unpacked()
        wanted = sum(len(contents) for name, contents in FILES.items() if name not in UNWANTED)
        self.assertLess(self.mirror.served_bytes, wanted + 4 * download.BLOCK_BYTES)

    def test_a_broken_connection_is_continued_in_the_same_run(self):
        self.mirror.cut_after_bytes = 1_500_000
        healed = lambda *_: setattr(self.mirror, "cut_after_bytes", None)
        with mock.patch.object(download.time, "sleep", healed):
            self.assertEqual(self.fetch()[0], None)
        self.assert_unpacked()

    def test_a_journal_of_another_file_is_not_believed(self):
        self.write(b"junk", "downloads", WHEEL_NAME + ".part")
        journal = {"size_bytes": len(self.data), "intervals": [[0, len(self.data)]]}
        self.write(json.dumps(journal), "downloads", WHEEL_NAME + ".part.json")
        self.assertEqual(self.fetch()[0], None)
        self.assert_unpacked()

    def test_login_of_the_index_url_is_used_and_not_shown(self):
        self.mirror.wants_login = True
        self.assertEqual(self.fetch()[0], None)
        self.assert_unpacked()
        self.mirror.refuses_wheel = True
        shutil.rmtree(self.path("downloads"))
        error, said = self.fetch()
        self.assertIn("403", str(error))
        self.assertNotIn(SECRET, str(error) + said)

    def test_an_extra_index_is_asked_when_the_first_fails(self):
        settings = {"index-url": "http://127.0.0.1:9/simple", "extra-index-url": self.mirror.index_url}
        self.assertEqual(self.fetch(settings)[0], None)
        self.assert_unpacked()

    def test_no_network_says_what_was_tried_and_what_to_do(self):
        error, _ = self.fetch({"index-url": "http://127.0.0.1:9/simple"})
        for part in ("http://127.0.0.1:9/simple", "refused", "HTTPS_PROXY", "PIP_INDEX_URL", "Offline"):
            self.assertIn(part, str(error))

    def test_an_index_without_the_wheel_is_named(self):
        self.wheel = pins.Wheel("torch", VERSION, MEMBERS, {})
        self.pin = pins.File("torch-2.11.0-other.whl", 1, "")
        self.assertIn("has no torch-2.11.0-other.whl", str(self.fetch()[0]))

    def test_pip_fetches_what_no_index_gives(self):
        self.mirror.refuses_wheel = True

        def pip_download(wheel, pin, folder):
            return self.write(self.data, "downloads", pin.name)

        with mock.patch.multiple(pip_index, has_pip=lambda: True, pip_download=pip_download):
            self.assertEqual(self.fetch()[0], None)
        self.assert_unpacked()

    def test_a_wheel_in_a_find_links_folder_needs_no_network(self):
        self.write(self.data, "my wheels".replace(" ", "-"), WHEEL_NAME)
        self.assertEqual(self.fetch({"find-links": self.path("my-wheels"), "no-index": "1"})[0], None)
        self.assert_unpacked()
        self.assertEqual(self.mirror.wheel_requests, 0)


class Checksums(WithMirror):
    def test_an_altered_member_is_refused_and_nothing_kept(self):
        files = dict(FILES)
        files["torch/lib/libtorch_cpu.so"] = random_bytes(2_000_000, 99)
        altered, altered_pin = make_wheel(files)
        # The altered library under the true RECORD.
        true_record = zipfile.ZipFile(io.BytesIO(self.data)).read(f"torch-{VERSION}.dist-info/RECORD")
        altered_record = zipfile.ZipFile(io.BytesIO(altered)).read(f"torch-{VERSION}.dist-info/RECORD")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, contents in files.items():
                archive.writestr(name, contents)
            archive.writestr(f"torch-{VERSION}.dist-info/RECORD", true_record)
        self.assertNotEqual(true_record, altered_record)
        self.mirror.wheel = buffer.getvalue()
        self.assertEqual(len(self.mirror.wheel), self.pin.size_bytes)
        error, _ = quietly(own_copy.provide, self.path("cache"), "cpu")
        self.assertIn("libtorch_cpu.so has sha256=", str(error))
        self.assertIn("nothing of it was kept", str(error))
        self.assertEqual(os.listdir(self.path("cache", "downloads")), [])
        self.assertFalse(os.path.exists(self.path("cache", "libtorch-2.11.0-cpu")))
        # The true file at the next try.
        self.mirror.wheel = self.data
        found, _ = quietly(own_copy.provide, self.path("cache"), "cpu")
        self.assertEqual(found.version, VERSION)

    def test_an_altered_record_is_refused(self):
        self.pin = pins.File(self.pin.name, self.pin.size_bytes, "0" * 64)
        error, _ = self.fetch()
        self.assertIn("expected " + "0" * 64, str(error))
        self.assertFalse(os.path.exists(self.path("out", "torch")))

    def test_a_file_of_another_size_is_refused(self):
        self.mirror.wheel = self.data + b"x"
        for knows_ranges in (True, False):
            self.mirror.knows_ranges = knows_ranges
            self.assertIn(f"{len(self.data) + 1} bytes, not {len(self.data)}", str(self.fetch()[0]))

    def test_a_damaged_local_wheel_is_refused_and_left_alone(self):
        path = self.write(self.data[:-5000] + b"\0" * 5000, "wheels", WHEEL_NAME)
        error, _ = self.fetch({"find-links": self.path("wheels")})
        self.assertIn(path, str(error))
        self.assertTrue(os.path.exists(path))

    def test_more_bytes_than_recorded_are_not_written(self):
        archive = zipfile.ZipFile(io.BytesIO(self.data))
        info = archive.getinfo("torch/lib/libc10.so")
        record = {info.filename: ("sha256=x", 10)}
        with self.assertRaises(unpack.WrongContents):
            unpack.unpack_member(archive, info, record, self.path("out"))
        self.assertEqual(os.path.getsize(self.path("out", info.filename)), 0)


class OwnCopy(WithMirror):
    def test_two_setups_at_once_download_once(self):
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(own_copy.provide(self.path("cache"), "cpu"))) for _ in range(3)
        ]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(len(results), 3)
        self.assertEqual(self.mirror.index_requests, 1)
        self.assertIn("another setup is running", said.getvalue())

    def test_leaves_only_the_finished_copy(self):
        self.write(b"", "cache", ".tmp-killed", "torch", "half")
        quietly(own_copy.provide, self.path("cache"), "cpu")
        self.assertEqual(sorted(os.listdir(self.path("cache"))), [".lock", "libtorch-2.11.0-cpu"])
        self.assertEqual(self.read("cache", "libtorch-2.11.0-cpu", "torch", "build-version"), b"2.11.0\n")

    def test_a_finished_copy_needs_no_network(self):
        quietly(own_copy.provide, self.path("cache"), "cpu")
        self.mirror.index_requests = 0
        found, said = quietly(own_copy.provide, self.path("cache"), "cpu")
        self.assertEqual(found.lib, self.path("cache", "libtorch-2.11.0-cpu", "torch", "lib"))
        self.assertEqual((self.mirror.index_requests, said), (0, ""))

    def test_a_full_disk_is_noticed_before_the_download(self):
        usage = mock.Mock(free=5_000_000)
        with mock.patch.object(own_copy.shutil, "disk_usage", lambda _: usage):
            error, _ = quietly(own_copy.provide, self.path("cache"), "cpu")
        for part in (self.path("cache"), "5 MB free", "700 MB", "TOKENGRID_LIBTORCH_DIR"):
            self.assertIn(part, str(error))
        self.assertEqual(self.mirror.index_requests, 0)

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


# --- A libtorch that is there already ---------------------------------------------------------------------------------


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
        """Notes its arguments; the first `install` fails, as with empty package lists; then it "installs" nasm."""
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


# --- Pip's settings, pins, messages -----------------------------------------------------------------------------------


class PipSettings(unittest.TestCase):
    def test_the_environment_beats_the_files(self):
        listing = "\n".join(
            (
                "global.index-url='https://global/simple'",
                "global.extra-index-url='https://a/simple\\nhttps://b/simple'",
                "download.index-url='https://download/simple'",
                ":env:.index-url='https://env/simple'",
                ":env:.find-links='/wheels'",
                "list.format='json'",
                "nonsense",
            )
        )
        settings = pip_index.parse_pip_settings(listing)
        self.assertEqual(settings["find-links"], "/wheels")
        expected = ["https://env/simple", "https://a/simple", "https://b/simple"]
        self.assertEqual(pip_index.index_urls(settings), expected)

    def test_defaults(self):
        self.assertEqual(pip_index.index_urls({}), [pip_index.DEFAULT_INDEX_URL])
        self.assertEqual(pip_index.index_urls({"no-index": "true"}), [])

    def test_without_pip_the_environment_counts(self):
        with mock.patch.object(pip_index, "has_pip", lambda: False):
            with mock.patch.dict(os.environ, {"PIP_INDEX_URL": "https://env/simple"}):
                self.assertEqual(pip_index.pip_settings()["index-url"], "https://env/simple")


class Pins(unittest.TestCase):
    def test_every_wheel_is_pinned_for_every_processor(self):
        for wheel in pins.wheels("cuda"):
            self.assertEqual(set(wheel.files), set(machine.PROCESSORS), wheel.project)
            for processor, file in wheel.files.items():
                self.assertRegex(file.record_sha256, "^[0-9a-f]{64}$")
                self.assertTrue(file.name.startswith(f"{wheel.project.replace('-', '_')}-{wheel.version}-"), file.name)
                self.assertIn(processor, file.name)

    def test_cuda_is_the_cpu_copy_and_more(self):
        cpu, cuda = pins.wheels("cpu"), pins.wheels("cuda")
        self.assertLess(set(cpu[0].members), set(cuda[0].members))
        self.assertLess({wheel.project for wheel in cpu}, {wheel.project for wheel in cuda})


class Messages(unittest.TestCase):
    def test_plain_lines_without_a_terminal(self):
        stream = io.StringIO()
        with mock.patch("messages.time.monotonic", mock.Mock(side_effect=[0, 1, 6, 7, 11.5])):
            progress = Progress("torch", 100_000_000, stream=stream)
            for _ in range(4):
                progress.advance(25_000_000)
            progress.finish()
        self.assertEqual(stream.getvalue().splitlines(), [
            "setup: torch: 50 MB of 100 MB, 8.3 MB/s",
            "setup: torch: 100 MB of 100 MB, 8.7 MB/s",
        ])

    def test_a_bar_on_a_terminal(self):
        stream = io.StringIO()
        stream.isatty = lambda: True
        progress = Progress("torch", 10, 5, stream=stream)
        progress.advance(5)
        progress.finish()
        self.assertIn("\r", stream.getvalue())
        self.assertTrue(stream.getvalue().endswith("\n"))

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
