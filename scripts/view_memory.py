#!/usr/bin/env python3
"""Time and peak resident memory of the server of `view`, page by page.

    python3 scripts/view_memory.py target/release/tokengrid CACHE [--export-dir DIR] [--beside OTHER]

All pages are asked of one server, in order. Of each: wall time, processor time, bytes of the answer, the peak of resident memory
(with mapped pages) since the page before, and what is resident afterwards. Linux only.
"""

import argparse
import json
import subprocess
import time
import urllib.error
import urllib.request


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("cache")
    parser.add_argument("--export-dir")
    parser.add_argument("--beside")
    arguments = parser.parse_args()
    command = [arguments.program, "view", arguments.cache, "--port", "0"]
    if arguments.export_dir:
        command += ["--export-dir", arguments.export_dir]
    if arguments.beside:
        command += ["--beside", arguments.beside]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        measure(server, arguments)
    finally:
        server.terminate()
        server.wait()


def measure(server, arguments):
    address = None
    while address is None:
        line = server.stdout.readline()
        if not line:
            raise SystemExit("the server ended")
        words = [word for word in line.split() if word.startswith("http://")]
        address = words[0].rstrip("/") if words else None
    pages = Pages(server.pid, address)
    rows = pages.get("overview", "/api/overview")["info"]["rows"]
    if arguments.beside:
        pages.get("grid, beside", "/api/rows?limit=500")
        pages.get("grid, beside, the last rows", f"/api/rows?offset={rows - 500}&limit=500")
        pages.get("sample, beside", f"/api/beside/{rows // 2}")
        pages.get("CSV of a class, beside", "/api/rows?label=5000&format=csv", is_json=False)
        return
    pages.get("grid", "/api/rows")
    pages.get("grid, the last rows", f"/api/rows?offset={rows - 60}")
    pages.get("sample", f"/api/row/{rows // 2}")
    pages.get("grid: class", "/api/rows?label=5000")
    pages.get("grid: four classes", "/api/rows?label=5,6,7,5000")
    pages.get("grid: part of a key", "/api/rows?key=_12300.JPEG")
    pages.get("grid: part of all keys", "/api/rows?key=JPEG")
    pages.get("grid: code", "/api/rows?code=77")
    pages.get("grid: from the last", "/api/rows?sort=row&order=down")
    pages.get("grid: by margin", "/api/rows?sort=margin")
    pages.get("similar", f"/api/similar/{rows // 2}")
    pages.get("selection of all", "/api/row-numbers")
    pages.wait("survey", "/api/map")
    pages.get("map: every 7th point", "/api/map/points?step=7", is_json=False)
    pages.get("grid: by entropy", "/api/rows?sort=entropy")
    pages.get("grid: by entropy, next page", "/api/rows?sort=entropy&offset=60")
    pages.get("grid: by distance", "/api/rows?sort=distance&order=down")
    pages.get("lasso: a tenth", "/api/map/lasso", square(0.1))
    half = pages.get("lasso: a third", "/api/map/lasso", square(0.33))
    pages.wait("statistics", "/api/statistics")
    pages.get("codebook", "/api/codes?limit=1000")
    pages.get("codebook, CSV", "/api/codes?format=csv", is_json=False)
    pages.get("classes", "/api/classes?sort=entropy")
    pages.get("duplicates", "/api/duplicates")
    pages.get("near duplicates", "/api/near-duplicates")
    pages.get("conflicts", "/api/label-conflicts")
    pages.get("quarantine", "/api/quarantine")
    pages.get("CSV of 1300 rows", "/api/rows?label=5000&format=csv", is_json=False)
    pages.get("CSV, the first 50 MB", "/api/rows?format=csv", is_json=False, most=50_000_000)
    if "rows" in half:
        text = half["rows"].encode()
        pages.get("keys of the lasso, the first 20 MB", "/api/selection/keys", text, is_json=False, most=20_000_000)
        del text
    if arguments.export_dir:
        request = json.dumps({"rows": half.get("rows", "0-1000000"), "name": f"subset-{time.time_ns()}"}).encode()
        pages.wait("selection as a cache", "/api/subset", request)


def square(share):
    side = int(65535 * share**0.5)
    low, high = (65535 - side) // 2, (65535 + side) // 2
    corners = [[low, low], [high, low], [high, high], [low, high]]
    return json.dumps({"corners": corners}).encode()


class Pages:
    def __init__(self, process, address):
        self.process, self.address = process, address

    def get(self, name, target, body=None, is_json=True, most=None):
        self.begin()
        answer = self.ask(target, body, most)
        self.end(name, len(answer))
        return json.loads(answer) if is_json else answer

    def wait(self, name, target, body=b""):
        self.begin()
        self.ask(target, body, None)
        while True:
            state = json.loads(self.ask(target, None, None))
            if state["state"] != "running":
                break
            time.sleep(0.1)
        self.end(f"{name} ({state['state']})", 0)

    def ask(self, target, body, most):
        request = urllib.request.Request(self.address + target, data=body)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.read(most) if most else answer.read()
        except urllib.error.HTTPError as error:
            return error.read()

    def begin(self):
        with open(f"/proc/{self.process}/clear_refs", "w") as file:
            file.write("5")
        self.started, self.used = time.time(), self.processor()

    def end(self, name, length):
        wall, used = time.time() - self.started, self.processor() - self.used
        peak, now = self.status("VmHWM"), self.status("VmRSS")
        print(f"| {name} | {wall:.3f} s | {used:.2f} s | {length / 1e6:.2f} MB | {peak:.0f} MB | {now:.0f} MB |", flush=True)

    def processor(self):
        with open(f"/proc/{self.process}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def status(self, field):
        with open(f"/proc/{self.process}/status") as file:
            line = next(line for line in file if line.startswith(field))
        return int(line.split()[1]) / 1000 * 1.024


if __name__ == "__main__":
    main()
