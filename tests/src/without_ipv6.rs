//! A kernel without IPv6, for one program: a library that lets no socket of that family be made.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use real_brokers::Scratch;

const SOURCE: &str = r"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <errno.h>
    #include <sys/socket.h>
    int socket(int domain, int type, int protocol) {
        int (*real)(int, int, int) = dlsym(RTLD_NEXT, __func__);
        if (domain != AF_INET6) return real(domain, type, protocol);
        errno = EAFNOSUPPORT;
        return -1;
    }
";

/// The library. A program with it in `LD_PRELOAD` has no IPv6.
#[derive(Debug)]
pub struct WithoutIpv6(Scratch);

impl WithoutIpv6 {
    /// Compiles it.
    pub fn new() -> Result<Self> {
        let made = Self(Scratch::new("without-ipv6")?);
        let source = made.0.path().join("socket.c");
        std::fs::write(&source, SOURCE)?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(made.library()).arg(source).arg("-ldl");
        let output = cc.output().context("cc cannot be run: apt-get install build-essential")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(made)
    }

    /// Where it is.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.0.path().join("without-ipv6.so")
    }
}
