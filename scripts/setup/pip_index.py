"""Where the user's pip would find a wheel: its index, mirror, local folders, proxy and certificates.

Some machines reach PyPI only through a mirror, so pip's own settings are asked for (`pip config list` and the PIP_*
variables), then the index is read directly, which allows ranges and resuming.
"""

import ast
import base64
import html.parser
import importlib.util
import json
import netrc
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

DEFAULT_INDEX_URL = "https://pypi.org/simple"
TIMEOUT_SECS = 30
INDEX_PAGE_TYPES = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
# Later ones win, as in pip.
SETTING_SECTIONS = ("global", "install", "download", ":env:")


def has_pip():
    return importlib.util.find_spec("pip") is not None


def pip_settings():
    """pip's settings by name, e.g. `index-url`. Without pip: what the environment says."""
    if not has_pip():
        return {name[4:].lower().replace("_", "-"): value for name, value in os.environ.items() if name[:4] == "PIP_"}
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True, check=False)
    return parse_pip_settings(result.stdout)


def parse_pip_settings(listing):
    by_section = {section: {} for section in SETTING_SECTIONS}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals and section in by_section:
            try:
                by_section[section][name.replace("_", "-")] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    settings = {}
    for section in SETTING_SECTIONS:
        settings.update(by_section[section])
    return settings


class Session:
    """HTTP with pip's proxy and certificates, and the credentials of the index URL or of ~/.netrc."""

    def __init__(self, settings):
        handlers = [urllib.request.HTTPSHandler(context=tls_context(settings))]
        if settings.get("proxy"):
            handlers.append(urllib.request.ProxyHandler({"http": settings["proxy"], "https": settings["proxy"]}))
        self._opener = urllib.request.build_opener(*handlers)
        self._credentials = {}

    def without_credentials(self, url):
        """Remembers the `user:password@` of `url` for its host, and returns the URL without them."""
        parts = urllib.parse.urlsplit(url)
        userinfo, at, host = parts.netloc.rpartition("@")
        if not at:
            return url
        user, _, password = userinfo.partition(":")
        self._credentials[host] = (urllib.parse.unquote(user), urllib.parse.unquote(password))
        return urllib.parse.urlunsplit(parts._replace(netloc=host))

    def open(self, url, headers):
        request = urllib.request.Request(url, headers={"User-Agent": "tokengrid-setup", **headers})
        login = self._login(urllib.parse.urlsplit(url).netloc)
        if login:
            token = base64.b64encode(":".join(login).encode("utf-8")).decode("ascii")
            # Not passed on when the server redirects to another host.
            request.add_unredirected_header("Authorization", f"Basic {token}")
        return self._opener.open(request, timeout=TIMEOUT_SECS)

    def _login(self, host):
        if host in self._credentials:
            return self._credentials[host]
        try:
            entry = netrc.netrc().authenticators(host.partition(":")[0])
        except (OSError, netrc.NetrcParseError):
            return None
        return (entry[0], entry[2] or "") if entry else None


def tls_context(settings):
    context = ssl.create_default_context()
    certificates = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if certificates and os.path.exists(certificates):
        if os.path.isdir(certificates):
            context.load_verify_locations(capath=certificates)
        else:
            context.load_verify_locations(cafile=certificates)
    if settings.get("client-cert"):
        context.load_cert_chain(settings["client-cert"])
    return context


def index_urls(settings):
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return []
    urls = [settings.get("index-url") or DEFAULT_INDEX_URL]
    return urls + settings.get("extra-index-url", "").split()


def local_copy(settings, filename):
    """The wheel in one of the folders of `find-links`, if it is there: the way to work offline."""
    for place in settings.get("find-links", "").split():
        folder = urllib.request.url2pathname(urllib.parse.urlsplit(place).path) if place.startswith("file:") else place
        path = os.path.join(os.path.expanduser(folder), filename)
        if os.path.isfile(path):
            return path
    return None


def wheel_url(session, index_url, project, filename):
    """The wheel's address according to one index, or None if the index does not have it.

    Raises OSError (urllib's errors among them) if the index cannot be read.
    """
    page_url = session.without_credentials(index_url).rstrip("/") + f"/{project}/"
    with session.open(page_url, {"Accept": INDEX_PAGE_TYPES}) as response:
        page_url = response.geturl()
        content_type = response.headers.get_content_type()
        page = response.read().decode("utf-8", "replace")
    if content_type.endswith("json"):
        links = {file["filename"]: file["url"] for file in json.loads(page).get("files", [])}
    else:
        links = LinkParser(page).links
    if filename not in links:
        return None
    return session.without_credentials(urllib.parse.urljoin(page_url, links[filename]))


class LinkParser(html.parser.HTMLParser):
    """File name -> address, from an index page in HTML (PEP 503)."""

    def __init__(self, page):
        super().__init__()
        self.links = {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        address = dict(attrs).get("href") if tag == "a" else None
        if address:
            address = address.partition("#")[0]
            name = urllib.parse.unquote(urllib.parse.urlsplit(address).path.rpartition("/")[2])
            self.links[name] = address


def pip_download(wheel, pin, folder):
    """Lets pip itself fetch the wheel: the way for set-ups that only pip knows (keyrings, for example).

    Returns the wheel's path, or None.
    """
    tags = pin.name[: -len(".whl")].split("-")
    python, abi, platforms = tags[-3], tags[-2], tags[-1].split(".")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
    command += ["--disable-pip-version-check", "--implementation", "cp", "--abi", abi]
    command += ["--python-version", python[2:] if len(python) > 3 else "3.12"]
    for platform in platforms:
        command += ["--platform", platform]
    command.append(f"{wheel.project}=={wheel.version}")
    path = os.path.join(folder, pin.name)
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0 or not os.path.isfile(path):
        return None
    return path
