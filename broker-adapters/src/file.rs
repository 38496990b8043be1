//! Reads a file that a configuration names: only regular files, and only up to 1 MiB.
//!
//! A device or a pipe could be read for ever, and a large file could fill the memory.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The largest file that is read, in bytes. A system's list of all CAs has about a quarter of that.
const MOST: u64 = 1 << 20;

/// The content of a regular file of at most 1 MiB; symbolic links are followed.
///
/// # Errors
/// Says why it cannot be read, without any of its content.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    // Before it is opened: to open a pipe waits for a writer.
    if !kind.is_file() {
        return Err(unusable(format!("it is {}, not a regular file", words(kind))));
    }
    let mut content = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut content)?;
    match content.len() as u64 > MOST {
        true => Err(unusable(format!("it is larger than {} MiB", MOST >> 20))),
        false => Ok(content),
    }
}

fn unusable(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn words(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_file_is_read_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("fanfare-file-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let (good, large, link) = (directory.join("good"), directory.join("large"), directory.join("link"));
        fs::write(&good, "content").expect("writable");
        File::create(&large).and_then(|file| file.set_len(MOST + 1)).expect("writable");
        std::os::unix::fs::symlink(&good, &link).expect("writable");
        let _socket = std::os::unix::net::UnixListener::bind(directory.join("socket")).expect("writable");
        for path in [&good, &link] {
            assert_eq!(read_file(path).expect("a regular file"), b"content");
        }
        for (path, why) in [
            (directory.as_path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
            (&directory.join("socket"), "a socket"),
            (&large, "larger than 1 MiB"),
            (&directory.join("nothing"), "No such file"),
        ] {
            let error = read_file(path).expect_err("not a file to read").to_string();
            assert!(error.contains(why), "{}: {error}", path.display());
        }
        fs::remove_dir_all(&directory).expect("nothing else uses it");
    }
}
