//! A network of IP addresses, in CIDR notation: `10.0.0.0/8`, `fd00::/8`, or one address alone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether an address is in it. An IPv4 address is the same in its IPv6 form (`::ffff:10.0.0.1`).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.bits) == self.first
            && address.to_canonical().is_ipv4() == self.first.is_ipv4()
    }
}

/// The address with all but its first bits set to 0.
pub(crate) fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0)).into())
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected networks such as \"10.0.0.0/8\", \"fd00::/8\" or \"192.0.2.7\"".to_owned();
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        if address != address.to_canonical() {
            return Err(format!("expected the IPv4 form of {address}: write {}", address.to_canonical()));
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            // `parse` alone would take a sign.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| expected())?,
            Some(_) => return Err(expected()),
        };
        if bits > most {
            return Err(format!("expected at most {most} bits after the `/` of {text}"));
        }
        let first = masked(address, bits);
        if first != address {
            // More likely a mistake than intended.
            return Err(format!("expected a network's first address: write {first}/{bits} if {text} means that"));
        }
        Ok(Self { first, bits })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_network_or_not() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "a00::", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.6/31", "192.0.2.7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1", "::1", true),
        ] {
            let parsed: Network = network.parse().expect(network);
            assert_eq!(parsed.contains(address.parse().expect(address)), inside, "{address} in {network}");
        }
    }

    #[test]
    fn a_network_reads_back_as_it_prints() {
        for (text, printed) in [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("::1", "::1/128")] {
            let network: Network = text.parse().expect(text);
            assert_eq!(network.to_string(), printed);
            assert_eq!(printed.parse(), Ok(network));
        }
    }

    #[test]
    fn text_that_is_no_network_gets_a_message_with_the_right_form() {
        for (text, message) in [
            ("", "such as"),
            ("localhost", "such as"),
            ("10.0.0.0/", "such as"),
            ("10.0.0.0/+8", "such as"),
            ("10.0.0.0/8/8", "such as"),
            ("10.0.0.0/999", "such as"),
            ("10.0.0.0/33", "at most 32 bits"),
            ("::/129", "at most 128 bits"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("fd00::1/64", "write fd00::/64"),
            ("::ffff:10.0.0.0/104", "write 10.0.0.0"),
        ] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
