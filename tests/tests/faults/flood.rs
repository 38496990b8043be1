//! Commands without an end, from threads of their own that do nothing else, so that sending them delays little of what is
//! measured.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use tests::wire::Head;

/// A flood, while it lasts.
pub(crate) struct Flood(Vec<Socket>);

struct Socket {
    stream: TcpStream,
    writer: JoinHandle<io::Error>,
    reader: JoinHandle<io::Result<u64>>,
}

impl Flood {
    /// Sends these frames again and again over so many sockets, as fast as the node takes them.
    pub(crate) fn begin(address: SocketAddr, frames: &[u8], sockets: usize) -> Result<Self> {
        Ok(Self((0..sockets).map(|_| Socket::begin(address, frames.to_vec())).collect::<Result<_>>()?))
    }

    /// Ends it; fails if a socket has ended before.
    pub(crate) fn end(self) -> Result<()> {
        for Socket { stream, writer, reader } in self.0 {
            let going = !writer.is_finished() && !reader.is_finished();
            // An error means that it has ended.
            let _ = stream.shutdown(Shutdown::Both);
            let ended = writer.join().ok().context("a writer panicked")?;
            let read = reader.join().ok().context("a reader panicked")?;
            ensure!(going, "the flood ended by itself: {ended}, {read:?} bytes read");
        }
        Ok(())
    }
}

impl Socket {
    fn begin(address: SocketAddr, frames: Vec<u8>) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        (&stream).write_all(&Head::upgrade("/ws").bytes())?;
        let first = (&stream).read(&mut [0; 1024])?;
        ensure!(first > 0, "it is not taken");
        let (mut to, mut from) = (stream.try_clone()?, stream.try_clone()?);
        let writer = thread::spawn(move || {
            loop {
                if let Err(error) = to.write_all(&frames) {
                    return error;
                }
            }
        });
        let reader = thread::spawn(move || io::copy(&mut from, &mut io::sink()));
        Ok(Self { stream, writer, reader })
    }
}
