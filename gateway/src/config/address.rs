//! An address to listen on: an IP address and a port, never a name. [`or_off`] also takes "off".

use std::{fmt, net::SocketAddr};

use serde::{Deserializer, de};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    deserializer.deserialize_str(Address)
}

/// An address, or "off" for `None`.
pub(super) mod or_off {
    use serde::{Deserialize, Serializer};

    use super::{Deserializer, SocketAddr, de};

    pub(in super::super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str("off"),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(None);
        }
        de::Visitor::visit_str(super::Address, &text)
            .map(Some)
            .map_err(|error: D::Error| de::Error::custom(format_args!("{error}, or \"off\"")))
    }
}

struct Address;

impl de::Visitor<'_> for Address {
    type Value = SocketAddr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an IP address and a port, such as \"127.0.0.1:8080\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SocketAddr, E> {
        text.parse().map_err(|_| match text.rsplit_once(':') {
            Some(("", port)) if is_port(port) => E::custom(format_args!(
                "expected an IP address before the port: \"0.0.0.0:{port}\" for all, \"127.0.0.1:{port}\" for this machine only"
            )),
            Some(("localhost", port)) if is_port(port) => {
                E::custom(format_args!("expected an IP address, not a name: \"127.0.0.1:{port}\""))
            }
            _ => E::invalid_value(de::Unexpected::Str(text), &self),
        })
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}
