//! Valid headers from the specification, and malformed ones.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("it is short").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

/// Source and destination over IPv4.
const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0x1F, 0x90, 0, 80];

fn v6() -> Vec<u8> {
    let source: Ipv6Addr = "2001:db8::9".parse().expect("an address");
    [&source.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0x1F, 0x90, 0, 80]].concat()
}

/// Parses a header that is whole.
fn whole(header: &[u8]) -> Result<Header, Malformed> {
    match extent(header)? {
        Extent::Whole(length) => parse(&header[..length]),
        Extent::More => panic!("{header:?} is not whole"),
    }
}

fn client(address: &str) -> Result<Header, Malformed> {
    Ok(Header::Client(address.parse().expect("an address and a port")))
}

#[test]
fn a_header_of_version_1_names_the_client() {
    for (line, expected) in [
        ("PROXY TCP4 203.0.113.9 10.0.0.1 8080 80", client("203.0.113.9:8080")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", client("255.255.255.255:65535")),
        ("PROXY TCP6 2001:db8::9 ::1 8080 80", client("[2001:db8::9]:8080")),
        ("PROXY TCP4 203.0.113.9 10.0.0.1 0 0", client("203.0.113.9:0")),
        ("PROXY UNKNOWN", Ok(Header::Local)),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", Ok(Header::Local)),
        ("PROXY TCP4 203.0.113.9 10.0.0.1 8080", Err(Malformed)),
        ("PROXY TCP4 203.0.113.9 10.0.0.1 8080 80 1", Err(Malformed)),
        ("PROXY TCP4 203.0.113.9 10.0.0.1 8080 80 ", Err(Malformed)),
        ("PROXY TCP4  203.0.113.9 10.0.0.1 8080 80", Err(Malformed)),
        ("PROXY TCP4 2001:db8::9 ::1 8080 80", Err(Malformed)),
        ("PROXY TCP6 203.0.113.9 10.0.0.1 8080 80", Err(Malformed)),
        ("PROXY TCP4 203.0.113.9 10.0.0.1 08080 80", Err(Malformed)),
        ("PROXY TCP4 203.0.113.9 10.0.0.1 +8080 80", Err(Malformed)),
        ("PROXY TCP4 203.0.113.9 10.0.0.1 8080 65536", Err(Malformed)),
        ("PROXY TCP4 203.0.113.9 10.0.0.256 8080 80", Err(Malformed)),
        ("PROXY UDP4 203.0.113.9 10.0.0.1 8080 80", Err(Malformed)),
        ("PROXY ", Err(Malformed)),
        ("PROXY tcp4 203.0.113.9 10.0.0.1 8080 80", Err(Malformed)),
    ] {
        assert_eq!(whole(format!("{line}\r\n").as_bytes()), expected, "{line}");
    }
    assert_eq!(whole(b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 80\n"), Err(Malformed), "a bare line feed");
    assert_eq!(whole(b"PROXY UNKNOWN \xFF\r\n"), Err(Malformed), "not text");
}

#[test]
fn a_header_of_version_2_names_the_client_and_bytes_after_the_addresses_are_ignored() {
    for (header, expected) in [
        (v2(0x21, 0x11, &V4), client("203.0.113.9:8080")),
        (v2(0x21, 0x11, &[&V4[..], &[0x04, 0, 2, 0, 0]].concat()), client("203.0.113.9:8080")),
        (v2(0x21, 0x11, &[&V4[..], &[0; 0xffff - 12]].concat()), client("203.0.113.9:8080")),
        (v2(0x21, 0x21, &v6()), client("[2001:db8::9]:8080")),
        (v2(0x20, 0x00, &[]), Ok(Header::Local)),
        (v2(0x20, 0x11, &V4), Ok(Header::Local)),
        (v2(0x20, 0xFF, &[1, 2, 3]), Ok(Header::Local)),
        (v2(0x21, 0x00, &[1, 2, 3]), Ok(Header::Local)),
        (v2(0x21, 0x11, &V4[..11]), Err(Malformed)),
        (v2(0x21, 0x21, &v6()[..35]), Err(Malformed)),
        (v2(0x21, 0x21, &V4), Err(Malformed)),
        (v2(0x21, 0x12, &V4), Ok(Header::Local)),
        (v2(0x21, 0x31, &[0; 216]), Ok(Header::Local)),
        (v2(0x21, 0x13, &V4), Err(Malformed)),
        (v2(0x21, 0x41, &V4), Err(Malformed)),
        (v2(0x22, 0x11, &V4), Err(Malformed)),
        (v2(0x11, 0x11, &V4), Err(Malformed)),
        (v2(0x31, 0x11, &V4), Err(Malformed)),
    ] {
        assert_eq!(whole(&header), expected, "{header:x?}");
    }
}

#[test]
fn a_line_that_is_too_long_or_has_another_beginning_is_rejected_at_once() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x16\x03\x01",
        b"proxy TCP4",
        b"\r\n\r\n\0\r\nQUIX",
        &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; LINE]].concat(),
    ] {
        assert_eq!(extent(bytes), Err(Malformed), "{bytes:x?}");
    }
}

proptest! {
    #[test]
    fn the_end_of_a_header_is_found_however_many_bytes_have_arrived(
        version_1: bool,
        address: [u8; 4],
        port: u16,
        tlvs in proptest::collection::vec(any::<u8>(), 0..300),
        after in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let source = Ipv4Addr::from(address);
        let header = if version_1 {
            format!("PROXY TCP4 {source} 10.0.0.1 {port} 80\r\n").into_bytes()
        } else {
            let [high, low] = port.to_be_bytes();
            v2(0x21, 0x11, &[&address[..], &[10, 0, 0, 1, high, low, 0, 80], &tlvs].concat())
        };
        for length in 0..header.len() {
            prop_assert_eq!(extent(&header[..length]), Ok(Extent::More));
        }
        let bytes = [&header[..], &after].concat();
        prop_assert_eq!(extent(&bytes), Ok(Extent::Whole(header.len())));
        prop_assert_eq!(parse(&header), Ok(Header::Client((source, port).into())));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), begin in 0..3_usize) {
        let begin: &[u8] = [&b""[..], b"PROXY ", &SIGNATURE][begin];
        let bytes = [begin, &bytes].concat();
        if let Ok(Extent::Whole(length)) = extent(&bytes) {
            prop_assert!(length <= bytes.len());
            let _ = parse(&bytes[..length]);
        }
    }
}

#[tokio::test]
async fn the_reader_takes_no_byte_after_the_header_however_it_is_split() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let headers =
        [b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 80\r\n".to_vec(), v2(0x21, 0x11, &[&V4[..], &[7; 9999]].concat())];
    for header in headers {
        for piece in [1, 7, 1000] {
            let mut sender = TcpStream::connect(address).await.expect("it listens");
            sender.set_nodelay(true).expect("it is open");
            let (mut receiver, _) = listener.accept().await.expect("it was connected to");
            let bytes = [&header[..], b"the rest"].concat();
            let sent = async {
                for piece in bytes.chunks(piece) {
                    sender.write_all(piece).await.expect("it is open");
                    tokio::task::yield_now().await;
                }
            };
            let (client, ()) = tokio::join!(read(&mut receiver), sent);
            assert_eq!(client.expect("a header"), Some(SocketAddr::from(([203, 0, 113, 9], 8080))));
            let mut rest = [0; 8];
            receiver.read_exact(&mut rest).await.expect("it is all there");
            assert_eq!(&rest, b"the rest");
        }
    }
}

#[tokio::test]
async fn waiting_for_the_rest_of_a_header_does_not_spin() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut sender = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
    let (mut receiver, _) = listener.accept().await.expect("it was connected to");
    sender.write_all(b"PROXY TCP4 ").await.expect("it is open");
    // A loop that peeks the same bytes again and again would never let the timer fire on this one thread.
    let waited = tokio::time::timeout(Duration::from_millis(20), read(&mut receiver)).await;
    assert!(waited.is_err(), "there is more to come");
    drop(sender);
    let mut none = [0; 1];
    assert_eq!(receiver.read(&mut none).await.expect("closed in order"), 0, "all bytes that arrived were taken");
}
