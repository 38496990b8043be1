//! Reads this machine's limits and finds those that are too low for a plan.
//!
//! Reads `/proc` and `/sys` (Linux). A limit that cannot be read is not checked.

use std::fs;

use serde::Serialize;

use super::plan::Needs;
use crate::columns::grouped;
use crate::door::BACKLOG;

/// The most source ports between two addresses: 1,024 to 65,535.
const PORTS: f64 = 64_512.0;
/// The part of the memory that a node or a balancer may use.
const MEMORY: f64 = 0.8;

/// The limits of this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Soft limit of open files.
    pub files: Option<u64>,
    /// Hard limit of open files.
    pub files_hard: Option<u64>,
    /// The highest value that a limit of open files can have (`fs.nr_open`).
    pub files_ceiling: Option<u64>,
    /// Ports for outgoing connections (`net.ipv4.ip_local_port_range`).
    pub ports: Option<u64>,
    /// The longest accept queue (`net.core.somaxconn`).
    pub accept_queue: Option<u64>,
    /// The most connections that the firewall tracks (`net.netfilter.nf_conntrack_max`).
    pub tracked: Option<u64>,
    /// Memory in bytes: the machine's, or the container's limit if that is lower.
    pub memory: Option<u64>,
    /// Cores that this process may use.
    pub cores: Option<u64>,
}

/// A limit that is too low.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    /// The limit, the value needed and the value allowed.
    pub what: String,
    /// How to raise the limit.
    pub raise: String,
}

impl Machine {
    /// Reads the limits of this machine and this process.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let number = |path: &str| text(path).trim().parse().ok();
        let (files, files_hard) = open_files(&text("/proc/self/limits"));
        Self {
            files,
            files_hard,
            files_ceiling: number("/proc/sys/fs/nr_open"),
            ports: ports(&text("/proc/sys/net/ipv4/ip_local_port_range")),
            accept_queue: number("/proc/sys/net/core/somaxconn"),
            tracked: number("/proc/sys/net/netfilter/nf_conntrack_max"),
            memory: [memory(&text("/proc/meminfo")), number("/sys/fs/cgroup/memory.max")].into_iter().flatten().min(),
            cores: std::thread::available_parallelism().ok().map(|cores| cores.get() as u64),
        }
    }

    /// The limits that are too low for this machine to be a node or the balancer of the plan.
    pub(super) fn shortfalls(&self, needs: &Needs) -> Vec<Shortfall> {
        let mut short = Vec::new();
        let mut check = |limit: Option<u64>, need: f64, what: &str, raise: &str| {
            if let Some(limit) = limit.filter(|limit| (*limit as f64) < need) {
                let need = if need < 10.0 { format!("{need:.1}") } else { grouped(need.ceil()) };
                let what = format!("{what}: {need} needed, {} allowed here", grouped(limit as f64));
                short.push(Shortfall { what, raise: raise.replace("NEED", &need.replace(',', "")) });
            }
        };
        let hard = "systemd: LimitNOFILE=NEED; containers: --ulimit nofile=NEED; a shell: ulimit -n NEED, after a line \
                    in /etc/security/limits.conf";
        if self.files_hard.is_some_and(|hard| (hard as f64) < needs.node.files) {
            check(self.files_hard, needs.node.files, "descriptors, as a node", hard);
        } else {
            let raise = "ulimit -n NEED before the start";
            check(self.files, needs.node.files, "descriptors, as a node (soft limit)", raise);
        }
        // HAProxy raises its soft limit itself.
        check(self.files_hard, needs.balancer.files, "descriptors, as the balancer", hard);
        let most = needs.node.files.max(needs.balancer.files);
        check(self.files_ceiling, most, "descriptors that any limit may allow", "sysctl -w fs.nr_open=NEED");
        let addresses = (needs.connections / PORTS).ceil();
        let more = match addresses {
            0.0..=1.0 => String::new(),
            _ => format!(
                "; this many connections also need {addresses} pairs of addresses: give each node {addresses} ports or \
                 addresses, each as a separate server in HAProxy, or use `source` on the server lines, or add nodes"
            ),
        };
        let raise = format!("sysctl -w net.ipv4.ip_local_port_range='1024 65535'{more}");
        check(self.ports, needs.connections, "source ports, from the balancer to one node", &raise);
        check(self.accept_queue, f64::from(BACKLOG), "accept queue", "sysctl -w net.core.somaxconn=NEED");
        check(
            self.tracked,
            2.0 * needs.maxconn,
            "connections tracked by the firewall, as the balancer",
            "sysctl -w net.netfilter.nf_conntrack_max=NEED, or do not track these ports (NOTRACK)",
        );
        let memory = self.memory.map(|memory| (memory as f64 * MEMORY / 1e6) as u64);
        check(memory, needs.node.memory / 1e6, "memory in MB, as a node", "more nodes, or more memory");
        check(memory, needs.balancer.memory / 1e6, "memory in MB, as the balancer", "more balancers, or more memory");
        check(self.cores, needs.node.cores, "cores, as a node", "more nodes, or more cores");
        check(self.cores, needs.balancer.cores, "cores, as the balancer", "more balancers, or more cores");
        short
    }
}

/// The soft and the hard limit; `None` for `unlimited`.
fn open_files(limits: &str) -> (Option<u64>, Option<u64>) {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.unwrap_or_default().split_ascii_whitespace().map(|number| number.parse().ok());
    (numbers.next().flatten(), numbers.next().flatten())
}

fn ports(range: &str) -> Option<u64> {
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    (last.trim().parse::<u64>().ok()? + 1).checked_sub(first.parse().ok()?)
}

fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::super::{options, plan::plan};
    use super::*;

    const LARGE: Machine = Machine {
        files: Some(1 << 20),
        files_hard: Some(1 << 20),
        files_ceiling: Some(1 << 30),
        ports: Some(64_512),
        accept_queue: Some(4096),
        tracked: Some(1 << 22),
        memory: Some(64 << 30),
        cores: Some(32),
    };

    #[test]
    fn the_kernels_files_are_parsed() {
        let limits =
            "Max processes  1 2 processes\nMax open files            1024                 20000       files \n";
        assert_eq!(open_files(limits), (Some(1024), Some(20_000)));
        assert_eq!(open_files("Max open files unlimited unlimited files"), (None, None));
        assert_eq!(ports("32768\t60999\n"), Some(28_232));
        assert_eq!((ports(""), ports("9 1")), (None, None));
        assert_eq!(memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
    }

    #[test]
    fn a_limit_that_is_too_low_is_reported_with_the_way_to_raise_it() {
        let needs = plan(&options("--connections 100000 --nodes 3")).1;
        assert_eq!(LARGE.shortfalls(&needs), []);
        assert_eq!(Machine::default().shortfalls(&needs), [], "an unknown limit is not checked");
        for (machine, whats, raise) in [
            (
                Machine { files: Some(1024), ..LARGE },
                &["as a node (soft limit): 50,200 needed, 1,024"][..],
                "ulimit -n 50200",
            ),
            (
                Machine { files: Some(1024), files_hard: Some(20_000), ..LARGE },
                &["as a node: 50,200 needed, 20,000", "as the balancer: 220,200 needed"],
                "LimitNOFILE=50200",
            ),
            (Machine { ports: Some(28_232), ..LARGE }, &["source ports, from the balancer"], "ip_local_port_range"),
            (Machine { accept_queue: Some(128), ..LARGE }, &["accept queue: 4,096 needed, 128"], "somaxconn=4096"),
            (Machine { tracked: Some(65_536), ..LARGE }, &["tracked by the firewall"], "nf_conntrack_max=220000"),
            (Machine { memory: Some(1 << 29), ..LARGE }, &["memory in MB, as the balancer"], "more memory"),
        ] {
            let short = machine.shortfalls(&needs);
            for what in whats {
                assert!(short.iter().any(|short| short.what.contains(what)), "{what}: {short:?}");
            }
            assert!(short[0].raise.contains(raise), "{raise}: {short:?}");
        }
    }

    #[test]
    fn more_connections_than_an_address_has_ports_need_more_addresses() {
        let raise = |line: &str| {
            let short = Machine { ports: Some(28_232), ..LARGE }.shortfalls(&plan(&options(line)).1);
            short.into_iter().find(|short| short.what.contains("source ports")).map(|short| short.raise)
        };
        let one = raise("--connections 100000 --nodes 3").expect("50,000 to a node");
        assert!(one.ends_with("'1024 65535'"), "{one}");
        let many = raise("--connections 1000000 --nodes 3").expect("500,000 to a node");
        assert!(many.contains("need 8 pairs of addresses"), "{many}");
        let ceiling = Machine { files_ceiling: Some(1 << 20), files: None, files_hard: None, ..LARGE };
        let short = ceiling.shortfalls(&plan(&options("--connections 1000000")).1);
        assert_eq!(short[0].raise, "sysctl -w fs.nr_open=2200200");
    }
}
