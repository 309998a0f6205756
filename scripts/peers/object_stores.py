#!/usr/bin/env python3
"""Measures sources in a bucket against the same files in a folder, with latency injected in front of the server.

    scripts/object_stores.py PROGRAM [--latency-ms 0 20 100] [--repeat 40] [--keep JSON]

Starts moto (`pip install 'moto[server]'`, in the Python that runs this) and a proxy that delays every answer, uploads the bundled
photographs under many names as class folders and as WebDataset shards, and runs `PROGRAM ingest` on each. Prints one line a run:
images per second, requests, bytes. The server is a program in Python: it, and not the network, is the limit without latency.
"""

import argparse
import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

PHOTOS = Path(__file__).resolve().parent.parent / "data/photos"
SIGNATURE = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"
SHARDS = 8


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def put(port, path, body=b""):
    headers = {"Authorization": SIGNATURE, "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data=body, method="PUT", headers=headers)
    urllib.request.urlopen(request).read()


def start_moto():
    port = free_port()
    code = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
    server = subprocess.Popen([sys.executable, "-c", code, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            put(port, "bucket")
            return server, port
        except OSError:
            time.sleep(0.1)
    sys.exit("moto does not start")


def start_proxy(port, latency_secs):
    """A proxy that passes bytes on; the first ones of each answer come late."""

    async def copy(reader, writer, delay):
        try:
            while data := await reader.read(1 << 16):
                if delay:
                    await asyncio.sleep(delay)
                    delay = 0
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def handle(reader, writer):
        # Connections are not used again by moto: each answer is the first one of its connection.
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, up_writer, 0), copy(up_reader, writer, latency_secs))

    own = free_port()

    def run():
        async def serve():
            async with await asyncio.start_server(handle, "127.0.0.1", own, backlog=512) as server:
                await server.serve_forever()

        asyncio.run(serve())

    threading.Thread(target=run, daemon=True).start()
    time.sleep(0.5)
    return own


def make_images(folder, repeat):
    """Class folders with each photograph `repeat` times, and shards of all of them."""
    samples = []
    for label, wnid in enumerate(sorted(path for path in PHOTOS.iterdir() if path.is_dir())):
        for photo in sorted(wnid.iterdir())[:4]:
            for copy in range(repeat):
                name = f"{photo.stem}-{copy:04}"
                target = folder / "photos" / wnid.name / f"{name}{photo.suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(photo.read_bytes())
                samples.append((f"{wnid.name}-{name}", photo.suffix, photo.read_bytes(), label))
    (folder / "wds").mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / "wds" / f"{shard:03}.tar", "w") as archive:
            for stem, suffix, image, label in samples[shard::SHARDS]:
                for ending, body in ((suffix, image), (".cls", str(label).encode())):
                    member = tarfile.TarInfo(stem + ending)
                    member.size = len(body)
                    archive.addfile(member, io.BytesIO(body))
    return len(samples)


def ingest(program, source, stage, port=None):
    environment = dict(os.environ, TOKENGRID_STAGE_DIR=str(stage))
    if port is not None:
        environment |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
    started = time.monotonic()
    command = [program, "ingest", str(source), "--json", "--quiet"]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    report = json.loads(result.stdout)
    seconds = time.monotonic() - started
    return {
        "images": report["ok"],
        "images_per_second": report["ok"] / seconds,
        "requests": report["requests"],
        "bytes_fetched": report["bytes_fetched"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--latency-ms", type=int, nargs="+", default=[0, 20, 100])
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    server, port = start_moto()
    runs = []
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            count = make_images(folder, arguments.repeat)
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    put(port, f"bucket/{path.relative_to(folder).as_posix()}", path.read_bytes())
            cases = [("folder", folder / "photos", None), ("shards in a folder", folder / "wds", None)]
            for latency in arguments.latency_ms:
                proxy = start_proxy(port, latency / 1000)
                cases.append((f"class folders, {latency} ms", "s3://bucket/photos", proxy))
                cases.append((f"WebDataset, {latency} ms", "s3://bucket/wds", proxy))
            for number, (what, source, proxy) in enumerate(cases):
                run = ingest(arguments.program, source, folder / f"stage-{number}", proxy)
                assert run["images"] == count, (what, run)
                runs.append({"what": what, **run})
                print(f"{what:28} {run['images_per_second']:8.1f} images/s {run['requests']:6} requests {run['bytes_fetched']:12,} bytes")
    finally:
        server.kill()
    if arguments.keep:
        arguments.keep.write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
