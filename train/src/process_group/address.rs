//! Which address of this machine the other processes reach. Gloo would ask for the host name, and where that resolves to
//! the loopback interface, as on many machines, no other machine reaches it.

use super::ffi::Listen;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

/// The variable with which users of PyTorch choose a network interface.
pub(crate) const INTERFACE: &str = "GLOO_SOCKET_IFNAME";

/// The address that packets towards `host` leave from. Nothing is sent.
pub(super) fn towards(host: &str, port: u16) -> std::io::Result<IpAddr> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for target in (host, port).to_socket_addrs()? {
        match route(target) {
            Ok(address) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn route(target: SocketAddr) -> std::io::Result<IpAddr> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

/// Where this process listens, given the addresses that all processes have found towards the store: where this one is at
/// the store's machine and found the loopback interface, but another process is elsewhere, the route to that one.
pub(super) fn listen(own: IpAddr, all: &[IpAddr], interface: Option<String>) -> Listen {
    if let Some(name) = interface {
        return Listen::Interface(name);
    }
    let elsewhere = all.iter().find(|address| own.is_loopback() && !address.is_loopback());
    let address = elsewhere.and_then(|other| route(SocketAddr::new(*other, 1)).ok()).unwrap_or(own);
    Listen::Address(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_to_this_machine_is_the_loopback_interface() {
        assert!(towards("127.0.0.1", 29500).unwrap().is_loopback());
        assert!(towards("no-such-host.invalid", 29500).is_err());
    }

    #[test]
    fn loopback_is_left_only_for_a_process_elsewhere() {
        let [here, there] = ["127.0.0.1", "192.0.2.7"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(listen(here, &[here, here], None), Listen::Address(here.to_string()));
        assert_eq!(listen(there, &[here, there], None), Listen::Address(there.to_string()));
        assert_eq!(listen(here, &[here, there], Some("eth7".into())), Listen::Interface("eth7".into()));
    }
}
