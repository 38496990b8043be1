//! Reads two facts from an X.509 certificate (RFC 5280 §4.1): its names and its last day.
//!
//! Pure. Whether the certificate can be trusted is decided by rustls.

/// The facts of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The DNS names and IP addresses it is valid for.
    pub(crate) names: Vec<String>,
    /// Its last day, as in "2027-02-21".
    pub(crate) until: String,
    /// Its last day, in days since 1970-01-01.
    pub(crate) last_day: i64,
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
/// 2.5.29.17, subjectAltName.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1D, 0x11];
const DNS_NAME: u8 = 0x82;
const ADDRESS: u8 = 0x87;

/// Parses DER; `None` if it is not a certificate.
pub(crate) fn read(der: &[u8]) -> Option<Certificate> {
    let signed = content(der, SEQUENCE)?;
    let mut rest = content(signed, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, mut rest) = element(rest)?;
    let (kind, until, _) = element(element(validity)?.2)?;
    let (until, last_day) = day(kind, until)?;
    let mut names = Vec::new();
    while let Some((tag, extensions, after)) = element(rest) {
        if tag == EXTENSIONS {
            names = alternative_names(content(extensions, SEQUENCE)?).unwrap_or_default();
        }
        rest = after;
    }
    Some(Certificate { names, until, last_day })
}

fn alternative_names(mut extensions: &[u8]) -> Option<Vec<String>> {
    loop {
        let (_, extension, after) = element(extensions)?;
        let (_, identifier, mut rest) = element(extension)?;
        if identifier == ALTERNATIVE_NAMES {
            // An optional boolean, `critical`, comes before the value.
            if rest.first() == Some(&0x01) {
                rest = element(rest)?.2;
            }
            let mut list = content(element(rest)?.1, SEQUENCE)?;
            let mut names = Vec::new();
            while let Some((tag, name, after)) = element(list) {
                match (tag, name) {
                    (DNS_NAME, name) => names.push(String::from_utf8_lossy(name).into_owned()),
                    (ADDRESS, &[a, b, c, d]) => names.push(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
                    (ADDRESS, name) => {
                        names.extend(<[u8; 16]>::try_from(name).map(|ip| std::net::Ipv6Addr::from(ip).to_string()))
                    }
                    _ => {}
                }
                list = after;
            }
            return Some(names);
        }
        extensions = after;
    }
}

/// Splits off the first element: its tag, its content and the bytes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match short {
        0..=0x7F => (usize::from(short), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short & 0x7F))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn content(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    element(bytes).filter(|(tag, ..)| *tag == wanted).map(|(_, content, _)| content)
}

/// The day of a `UTCTime` or a `GeneralizedTime`, as text and in days since 1970-01-01.
fn day(kind: u8, time: &[u8]) -> Option<(String, i64)> {
    let text = str::from_utf8(time).ok()?;
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, at) = match kind {
        // RFC 5280 §4.1.2.5.1: 50 to 99 are years of the 20th century.
        0x17 => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        0x18 => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, at + 2)?, number(at + 2, at + 4)?);
    // Count years from March, so that a leap day is the last day of a year.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1;
    Some((format!("{year:04}-{month:02}-{day:02}"), days - 719_468))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = content.len();
        let head =
            if length < 128 { vec![tag, length as u8] } else { vec![tag, 0x82, (length >> 8) as u8, length as u8] };
        [head, content].concat()
    }

    fn certificate(until: &[u8], names: &[&[u8]]) -> Vec<u8> {
        let (one, nothing) = (wrap(2, &[&[1]]), wrap(SEQUENCE, &[]));
        let validity = wrap(SEQUENCE, &[&wrap(0x17, &[b"260101000000Z"]), until]);
        let list = wrap(0x04, &[&wrap(SEQUENCE, names)]);
        let other = wrap(SEQUENCE, &[&wrap(6, &[&[0x55, 0x1D, 0x0F]]), &wrap(4, &[&[0; 200]])]);
        let alternative = wrap(SEQUENCE, &[&wrap(6, &[ALTERNATIVE_NAMES]), &wrap(1, &[&[0xFF]]), &list]);
        let extensions = wrap(EXTENSIONS, &[&wrap(SEQUENCE, &[&other, &alternative])]);
        let version = wrap(VERSION, &[&one]);
        let body = wrap(SEQUENCE, &[&version, &one, &nothing, &nothing, &validity, &nothing, &nothing, &extensions]);
        wrap(SEQUENCE, &[&body, &nothing, &nothing])
    }

    #[test]
    fn names_and_last_day_are_read() {
        let until = wrap(0x17, &[b"270221115959Z"]);
        let der = certificate(&until, &[&wrap(DNS_NAME, &[b"*.example.com"]), &wrap(ADDRESS, &[&[127, 0, 0, 1]])]);
        let read = read(&der).expect("a certificate");
        assert_eq!(read.names, ["*.example.com", "127.0.0.1"]);
        assert_eq!((read.until.as_str(), read.last_day), ("2027-02-21", 20_870));
    }

    #[test]
    fn days_are_counted_over_leap_years_and_centuries() {
        for (kind, time, days) in [
            (0x17, &b"700101000000Z"[..], 0),
            (0x18, b"20000229000000Z", 11_016),
            (0x18, b"20000301000000Z", 11_017),
            (0x18, b"21000301000000Z", 47_541),
            (0x17, b"991231000000Z", 10_956),
        ] {
            assert_eq!(day(kind, time).map(|(_, days)| days), Some(days), "{time:?}");
        }
    }

    #[test]
    fn truncated_or_damaged_bytes_are_not_a_certificate() {
        let der = certificate(&wrap(0x18, &[b"20500101000000Z"]), &[]);
        assert!(read(&der).is_some());
        for cut in 0..der.len() {
            assert_eq!(read(&der[..cut]), None, "{cut}");
        }
        for byte in 0..der.len() {
            let mut bent = der.clone();
            bent[byte] ^= 0xFF;
            drop(read(&bent)); // It may still parse; it must not panic.
        }
        assert_eq!(day(0x17, "27é221115959Z".as_bytes()), None);
    }
}
