//! Which addresses requests may go to, also where a name leads.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

/// The addresses that requests may go to, beside those of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Those of private networks.
    pub(crate) private: bool,
    /// All others.
    pub(crate) public: bool,
}

/// A name leads only to addresses that are out of reach.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("out of reach")]
pub(super) struct OutOfReach;

/// Resolves names to addresses within reach.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    system: GaiResolver,
    reach: Reach,
}

impl Reach {
    pub(crate) const ANYWHERE: Self = Self { private: true, public: true };

    pub(crate) fn allows(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if ip.is_loopback() || ip.is_unspecified() {
            return true;
        }
        if is_private(ip) { self.private } else { self.public }
    }
}

/// RFC 1918, RFC 3927, RFC 4193, RFC 4291 §2.5.6, and RFC 6598, the last for networks of providers and clouds.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || is_shared(ip),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn is_shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0xc0 == 64
}

impl Resolver {
    pub(super) fn new(reach: Reach) -> Self {
        Self { system: GaiResolver::new(), reach }
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolved, reach) = (self.system.call(name), self.reach);
        Box::pin(async move {
            let all: Vec<_> = resolved.await?.filter(|address| reach.allows(address.ip())).collect();
            if all.is_empty() { Err(io::Error::other(OutOfReach)) } else { Ok(all.into_iter()) }
        })
    }
}

/// Whether an error came from a name that is out of reach.
pub(super) fn is_out_of_reach(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<OutOfReach>() || inner.is_some_and(|inner| inner.is::<OutOfReach>()) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_in_reach_and_other_networks_only_where_allowed() {
        for (text, private, public) in [
            ("127.0.0.1", true, true),
            ("::1", true, true),
            ("::ffff:127.0.0.1", true, true),
            ("10.1.2.3", true, false),
            ("192.168.0.1", true, false),
            ("169.254.169.254", true, false),
            ("100.100.0.1", true, false),
            ("fd00::1", true, false),
            ("fe80::1", true, false),
            ("::ffff:10.0.0.1", true, false),
            ("192.0.2.1", false, true),
            ("100.128.0.1", false, true),
            ("2001:db8::1", false, true),
        ] {
            let ip: IpAddr = text.parse().expect(text);
            assert_eq!(Reach { private: true, public: false }.allows(ip), private, "{text}");
            assert_eq!(Reach { private: false, public: true }.allows(ip), public, "{text}");
            assert!(Reach::ANYWHERE.allows(ip));
        }
    }
}
