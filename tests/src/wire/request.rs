//! A request's head, which the rows of a table may bend, and the response to it.

/// The key of RFC 6455 §1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The proof that [`KEY`] was understood.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of a request, line by line.
#[derive(Debug, Clone)]
pub struct Head {
    line: Vec<u8>,
    fields: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// A plain request that every server understands.
    #[must_use]
    pub fn get(path: impl AsRef<[u8]>) -> Self {
        let line = [b"GET ", path.as_ref(), b" HTTP/1.1"].concat();
        Self { line, fields: vec![("Host".into(), b"localhost".into())] }
    }

    /// A lawful handshake.
    #[must_use]
    pub fn upgrade(path: impl AsRef<[u8]>) -> Self {
        Self::get(path)
            .with("Upgrade", "websocket")
            .with("Connection", "Upgrade")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", KEY)
    }

    /// With another first line.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.line = line.into();
        self
    }

    /// With one more header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.into(), value.as_ref().into()));
        self
    }

    /// Without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self
    }

    /// With a header's lines replaced by one.
    #[must_use]
    pub fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).with(name, value)
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let fields = self.fields.iter().flat_map(|(name, value)| [name.as_bytes(), b": ", value, b"\r\n"].concat());
        [&self.line[..], b"\r\n"].concat().into_iter().chain(fields).chain(*b"\r\n").collect()
    }
}

/// A response to a request.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
    pub(super) head: String,
}

impl Response {
    /// The value of a header, whose name is given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}
