//! What the kernel says about a server: CPU time, memory, descriptors and threads, read from `/proc`.
//!
//! User memory is `RssAnon` of `/proc/PID/status`: the heap and stacks that are really there; not the program's text.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// `USER_HZ`, the unit of times in `/proc/PID/stat`: 100 on every architecture we run on (proc(5), time(7)).
const TICKS_PER_SECOND: u64 = 100;
const PAGE: u64 = 4096;

/// A running process.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Its number.
    pub pid: u32,
}

impl Process {
    /// CPU time of all its threads so far, user and system, to 10 ms.
    pub fn cpu(self) -> Result<Duration> {
        let ticks = cpu_ticks(&self.read("stat")?).with_context(|| format!("/proc/{}/stat is unreadable", self.pid))?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Bytes of anonymous memory.
    pub fn memory(self) -> Result<u64> {
        let status = self.read("status")?;
        let field = kilobytes(&status, "RssAnon:");
        field.with_context(|| format!("process {} has no memory left: it has ended", self.pid))
    }

    /// Open descriptors.
    pub fn descriptors(self) -> Result<usize> {
        Ok(self.list("fd")?.count())
    }

    /// Threads.
    pub fn threads(self) -> Result<usize> {
        Ok(self.list("task")?.count())
    }

    fn list(self, name: &str) -> Result<fs::ReadDir> {
        let path = format!("/proc/{}/{name}", self.pid);
        fs::read_dir(&path).with_context(|| format!("the server (process {}) is gone", self.pid))
    }

    fn read(self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.pid);
        fs::read_to_string(&path).with_context(|| format!("the server (process {}) is gone", self.pid))
    }
}

/// Memory that the kernel spends on sockets: the clients' and the servers' ends together.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Buffers of TCP sockets.
    pub buffers: u64,
    /// All slabs: sockets, files and poll entries are among them.
    pub slab: u64,
}

impl Kernel {
    /// Of this moment.
    pub fn now() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let (sockets, memory) = (read("/proc/net/sockstat")?, read("/proc/meminfo")?);
        let (Some(pages), Some(slab)) = (tcp_pages(&sockets), kilobytes(&memory, "Slab:")) else {
            bail!("the kernel does not tell its memory in /proc/net/sockstat and /proc/meminfo");
        };
        Ok(Self { buffers: pages * PAGE, slab })
    }
}

/// `utime + stime`: the 14th and 15th fields; the second, the program's name, may itself hold blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(number * 1024)
}

fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.split_once(" mem ")?.1.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_brackets() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 131 0 0 20 0 1 0 100 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(381));
        assert_eq!(cpu_ticks("42 (a) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn memory_lines_are_read_with_their_unit() {
        let status = "VmRSS:\t    9000 kB\nRssAnon:\t    1234 kB\nRssFile:\t 1 kB\n";
        assert_eq!(kilobytes(status, "RssAnon:"), Some(1234 * 1024));
        assert_eq!(kilobytes(status, "RssShmem:"), None);
        assert_eq!(kilobytes("RssAnon: 12 MB", "RssAnon:"), None);
    }

    #[test]
    fn socket_memory_is_that_of_tcp() {
        let sockstat = "sockets: used 5\nTCP: inuse 5 orphan 0 tw 2 alloc 7 mem 31\nUDP: inuse 0 mem 9\n";
        assert_eq!(tcp_pages(sockstat), Some(31));
        assert_eq!(tcp_pages("UDP: inuse 0 mem 9\n"), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        let this = Process { pid: std::process::id() };
        assert!(this.memory().unwrap() > 0);
        this.cpu().unwrap();
        assert!(this.descriptors().unwrap() > 0 && this.threads().unwrap() > 0);
        Kernel::now().unwrap();
        let gone = Process { pid: u32::MAX }.cpu().unwrap_err().to_string();
        assert!(gone.contains("is gone"), "{gone}");
    }
}
