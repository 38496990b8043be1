//! A page over TLS, from a server on loopback whose certificate is trusted or not.

use axum::http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(include_bytes!("localhost.pem")).expect("a certificate")
}

/// Starts a server that answers every request, and returns its URL without the scheme.
async fn server() -> String {
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("localhost.key.pem")).expect("a private key");
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites")
        .with_no_client_auth()
        .with_single_cert(vec![certificate()], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncache-control: max-age=90\r\ncontent-length: 4\r\n\r\npage";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("localhost:{port}/")
}

#[tokio::test]
async fn a_page_comes_over_tls_from_a_server_that_is_trusted() {
    let url = server().await;
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).expect("a certificate");
    let trusting = Client::trusting(roots, Reach::ANYWHERE, 0);
    let page = trusting.get(&format!("https://{url}")).await.expect("a page");
    assert_eq!((&page.body[..], page.max_age), (&b"page"[..], Some(Duration::from_secs(90))));
    let stranger = Client::trusting(RootCertStore::empty(), Reach::ANYWHERE, 0);
    assert_eq!(stranger.get(&format!("https://{url}")).await.map(drop), Err(FetchError::Unreachable));
    assert!(trusting.get(&format!("http://{url}")).await.is_err(), "the server speaks TLS only");
}

#[tokio::test]
async fn a_name_that_leads_out_of_reach_is_not_asked() {
    let (error, other) = (std::io::Error::other(reach::OutOfReach), std::io::Error::other("refused"));
    assert!(is_out_of_reach(&error) && !is_out_of_reach(&other));
    let url = server().await;
    let headers = HeaderMap::new();
    let nowhere = Client::trusting(RootCertStore::empty(), Reach { private: false, public: false }, 0);
    let notified = nowhere.notify(&format!("https://{url}"), &headers, Bytes::new(), PAGE_TIME).await;
    assert_eq!(notified, Err(FetchError::Unreachable), "this machine is in reach; its certificate is not trusted");
}

#[test]
fn the_age_of_a_page_is_read_from_its_header() {
    for (value, expected) in [
        ("max-age=300", Some(300)),
        ("public, Max-Age=\"60\", must-revalidate", Some(60)),
        ("no-store", None),
        ("max-age=soon", None),
        ("s-maxage=5", None),
        ("max-age=99999999999999999999999", None),
    ] {
        let headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static(value))]);
        assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{value}");
    }
}
