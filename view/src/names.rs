//! Under which names the server answers, and from which pages it takes orders.
//!
//! A page of any origin may make a browser send requests to this machine. It may not read the answers, unless its own name
//! is made to stand for this machine's address (DNS rebinding). That name is then the request's host, so hosts are addresses,
//! names that this machine gives itself, and names that the user allowed; never any other.

use hyper::header::{self, HeaderMap};
use std::net::IpAddr;

/// The names that requests may address.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnNames {
    /// In lower case.
    names: Vec<String>,
    allowed: Vec<String>,
}

impl OwnNames {
    /// `localhost`, `host` (what the server listens at), the machine's names, and those that were allowed.
    pub(crate) fn new(host: &str, allowed: &[String]) -> OwnNames {
        let mut names = vec!["localhost".to_owned(), host.to_ascii_lowercase()];
        names.extend(machine_names());
        let allowed = allowed.iter().map(|name| host_name(name).to_ascii_lowercase()).collect();
        OwnNames { names, allowed }
    }

    /// Whether `authority`, a request's host with or without a port, is this server.
    pub(crate) fn contains(&self, authority: &str) -> bool {
        let name = host_name(authority).to_ascii_lowercase();
        // A name that ends in a dot is the same name.
        let name = name.strip_suffix('.').unwrap_or(&name);
        let is_named = |names: &[String]| names.iter().any(|known| known == name);
        !name.is_empty() && (name.parse::<IpAddr>().is_ok() || is_named(&self.names) || is_named(&self.allowed))
    }

    /// Whether a request that changes something comes from the server's own page, or from no page at all. Browsers name the
    /// page's origin in every such request; programs that are not browsers need not.
    pub(crate) fn is_own_page(&self, headers: &HeaderMap, authority: &str) -> bool {
        if is_from_another_site(headers) {
            return false;
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        // A proxy may end TLS, or put its own name for this server's into the host.
        let Some(page) = origin.strip_prefix("http://").or(origin.strip_prefix("https://")) else { return false };
        page.eq_ignore_ascii_case(authority)
            || self.allowed.iter().any(|name| host_name(page).eq_ignore_ascii_case(name))
    }
}

/// Whether a browser says that another site's page sent this request: as a picture or a script in that page, for instance.
/// Following a link to the inspector is fine.
pub(crate) fn is_from_another_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found.as_bytes() == value.as_bytes());
    let is_foreign = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    is_foreign && !is("sec-fetch-mode", "navigate")
}

/// The host of `host`, `host:port`, `[address]` or `[address]:port`.
fn host_name(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((address, "")) => address,
            Some((address, port)) if port.strip_prefix(':').is_some_and(is_port) => address,
            _ => "",
        };
    }
    match authority.rsplit_once(':') {
        // More than one colon and no brackets: an IPv6 address without a port.
        Some((name, port)) if is_port(port) && !name.contains(':') => name,
        _ => authority,
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name of an address for the part of a URL before the path.
pub(crate) fn machine_name() -> Option<String> {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    (!name.is_empty()).then_some(name)
}

/// What the machine is called by itself and by those around it: its host name, alone, in mDNS and in the domains in which it
/// looks up names, and its other names in the table of hosts. A stranger has no say in any of them.
fn machine_names() -> Vec<String> {
    let Some(name) = machine_name() else { return Vec::new() };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    names_of(&name, &read("/etc/resolv.conf"), &read("/etc/hosts"))
}

fn names_of(name: &str, resolver: &str, hosts: &str) -> Vec<String> {
    let name = name.to_ascii_lowercase();
    let short = name.split('.').next().unwrap_or(&name).to_owned();
    let mut names = vec![name.clone(), short.clone(), format!("{short}.local")];
    for line in resolver.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            names.extend(words.map(|domain| format!("{short}.{}", domain.trim_matches('.').to_ascii_lowercase())));
        }
    }
    for line in hosts.lines() {
        let entry = line.split('#').next().unwrap_or_default().to_ascii_lowercase();
        let others: Vec<&str> = entry.split_whitespace().skip(1).collect();
        if others.iter().any(|other| *other == name || *other == short) {
            names.extend(others.into_iter().map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let names = OwnNames::new("0.0.0.0", &["jupyter.lan".to_owned(), "Proxy.example:443".to_owned()]);
        let machine = machine_name().expect("every machine has a name");
        for own in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1:8080",
            "[::1]:80",
            "[::1]",
            "::1",
            "192.168.1.7",
            "[fe80::1]:8080",
            "jupyter.lan:8080",
            "proxy.example",
            &machine,
            &format!("{machine}:8080"),
            &machine.to_uppercase(),
            &format!("{}.local:80", machine.split('.').next().unwrap()),
        ] {
            assert!(names.contains(own), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":80",
            ".",
            "[::1",
            "[::1]x",
            "[evil.example]:80x",
            &format!("{machine}.evil.example"),
            "jupyter.lan.evil.example",
        ] {
            assert!(!names.contains(other), "{other}");
        }
    }

    #[test]
    fn a_machine_has_the_names_that_its_own_tables_give_it() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 box.lab.example Box # box of the lab\n10.0.0.2 other.example other";
        let names = names_of("box", "nameserver 1.1.1.1\nsearch lab.example. eu.example\n", hosts);
        let expected = ["box", "box", "box.local", "box.lab.example", "box.eu.example", "box.lab.example", "box"];
        assert_eq!(names, expected);
    }

    #[test]
    fn orders_come_from_the_own_page() {
        let names = OwnNames::new("127.0.0.1", &["jupyter.lan".to_owned()]);
        for own in [
            &[][..],
            &[("origin", "http://localhost:1")],
            &[("origin", "https://localhost:1"), ("sec-fetch-site", "same-origin")],
            &[("origin", "https://jupyter.lan")],
        ] {
            assert!(names.is_own_page(&headers(own), "localhost:1"), "{own:?}");
        }
        for other in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "http://localhost:2")],
            &[("sec-fetch-site", "cross-site")],
            &[("origin", "http://localhost:1"), ("sec-fetch-site", "same-site")],
        ] {
            assert!(!names.is_own_page(&headers(other), "localhost:1"), "{other:?}");
        }
        let link = headers(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]);
        assert!(!is_from_another_site(&link));
    }
}
