#!/usr/bin/env python3
"""Provides libtorch for building and running tokengrid. Needs only Python's standard library.

The first of these that there is: the LIBTORCH of the environment; the one in use so far; the PyTorch of this Python; our
own copy in the cache folder (own_copy.py), downloaded once. Then torch-sys's C++ is compiled, once (wrapper.py), and
.cargo/config.toml says where everything is (cargo_config.py). For users: docs/src/install.md.
"""

import argparse
import errno
import os
import signal
import sys

sys.dont_write_bytecode = True  # write nothing into the source folder

import cargo_config  # noqa: E402
import existing  # noqa: E402
import machine as this_machine  # noqa: E402
import own_copy  # noqa: E402
import wrapper  # noqa: E402
from messages import SetupError, say  # noqa: E402

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def set_up(environment, repository):
    this_machine.check_linux()
    config_path = os.path.join(repository, ".cargo", "config.toml")
    old_config = cargo_config.current(config_path)
    cache = own_copy.cache_folder(environment)
    processor = os.uname().machine

    compiler = this_machine.cxx_compiler()
    has_nasm = this_machine.has_assembler(processor)
    libtorch = find_libtorch(environment, old_config, cache)
    built = provide_wrapper(cache, repository, libtorch, compiler)
    config = cargo_config.render(processor, libtorch, built, has_nasm)
    if cargo_config.write_if_changed(config_path, config):
        say("wrote .cargo/config.toml")
        if has_nasm and cargo_config.lacked_nasm(old_config):
            this_machine.forget_builds_without_nasm(repository)
    say(f"libtorch {libtorch.version} ({libtorch.origin}) in {libtorch.root}")


def find_libtorch(environment, old_config, cache):
    asked_for = existing.from_environment(environment)
    if asked_for:
        return asked_for
    variant = own_copy.wanted_variant(environment, cache)
    so_far = existing.from_config(old_config)
    is_ours = so_far is not None and so_far.root.startswith(cache + os.sep)
    if environment.get("TOKENGRID_LIBTORCH") or is_ours:
        return own_copy.provide(cache, variant)
    return so_far or existing.from_python() or own_copy.provide(cache, variant)


def provide_wrapper(cache, repository, libtorch, compiler):
    """The folder of libtch.a; None if nothing here depends on torch-sys."""
    version = wrapper.torch_sys_version(repository)
    if version is None:
        return None
    folder = os.path.join(cache, wrapper.folder_name(version, libtorch, compiler))
    if not os.path.exists(folder):
        with own_copy.lock(cache):
            if not os.path.exists(folder):
                wrapper.build(folder, repository, version, libtorch, compiler)
    return folder


def explain(error, cache):
    """An OSError with advice."""
    elsewhere = "TOKENGRID_LIBTORCH_DIR=/path make setup"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left in {cache}. Free some space, or choose another folder: {elsewhere}. It continues where it stopped"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename or cache} cannot be written ({error.strerror}). For another cache folder: {elsewhere}"
    return str(error)


def main(arguments):
    parser = argparse.ArgumentParser(description="Provides libtorch and writes .cargo/config.toml.")
    parser.add_argument("--rustflags", action="store_true", help="only print the compiler flags of .cargo/config.toml")
    if parser.parse_args(arguments).rustflags:
        print(cargo_config.rustflags_of(cargo_config.current(os.path.join(REPOSITORY, ".cargo", "config.toml"))))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        set_up(os.environ, REPOSITORY)
    except SetupError as error:
        print(f"setup: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup: error: {explain(error, own_copy.cache_folder(os.environ))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to continue", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
