//! The iptables chains that a node has: `KUBE-FIREWALL` against spoofed loopback addresses, `KUBE-IPTABLES-HINT` by
//! which other programs see which iptables is in use, and `KUBE-KUBELET-CANARY`, whose absence shows that someone
//! flushed the tables.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Why the chains could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// The program could not be run.
    #[error("run {program}")]
    Run {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The program refused.
    #[error("{program} {arguments}: {said}")]
    Refused {
        /// The program.
        program: PathBuf,
        /// What it was told.
        arguments: String,
        /// What it said on stderr.
        said: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

/// One of `iptables` and `ip6tables`, as found on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Iptables {
    program: PathBuf,
    family: Family,
}

const FIREWALL: &str = "KUBE-FIREWALL";
const HINT: &str = "KUBE-IPTABLES-HINT";
const CANARY: &str = "KUBE-KUBELET-CANARY";
const TABLES_WITH_CANARY: [&str; 3] = ["mangle", "nat", "filter"];

/// Packets to loopback addresses that come from elsewhere, unless they answer a connection from here.
const SPOOFED: [&str; 15] = [
    "-m",
    "comment",
    "--comment",
    "block incoming localnet connections",
    "--dst",
    "127.0.0.0/8",
    "!",
    "--src",
    "127.0.0.0/8",
    "-m",
    "conntrack",
    "!",
    "--ctstate",
    "RELATED,ESTABLISHED,DNAT",
    "-j",
];

impl Iptables {
    /// The programs in the folders of `path` (the value of `PATH`): none, one or both families.
    pub fn find(path: &OsStr) -> Vec<Self> {
        [("iptables", Family::V4), ("ip6tables", Family::V6)]
            .into_iter()
            .filter_map(|(name, family)| {
                let program = std::env::split_paths(path).map(|dir| dir.join(name)).find(|file| is_file(file))?;
                Some(Self { program, family })
            })
            .collect()
    }

    /// Makes whatever is missing of the chains and rules. Blocks while the programs run.
    ///
    /// # Errors
    /// The first program's refusal; what was made before stays.
    pub fn ensure(&self) -> Result<(), IptablesError> {
        self.ensure_chain("filter", FIREWALL)?;
        for chain in ["OUTPUT", "INPUT"] {
            self.ensure_first(chain, &["-j", FIREWALL])?;
        }
        if self.family == Family::V4 {
            let mut rule = SPOOFED.to_vec();
            rule.push("DROP");
            self.ensure_first(FIREWALL, &rule)?;
        }
        self.ensure_chain("mangle", HINT)?;
        for table in TABLES_WITH_CANARY {
            self.ensure_chain(table, CANARY)?;
        }
        Ok(())
    }

    /// Whether the canaries are still there; else someone flushed the tables and [`Self::ensure`] is due.
    ///
    /// # Errors
    /// A program could not be run.
    pub fn is_untouched(&self) -> Result<bool, IptablesError> {
        for table in TABLES_WITH_CANARY {
            if !self.run(table, &["-S", CANARY])?.status.success() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn ensure_chain(&self, table: &str, chain: &str) -> Result<(), IptablesError> {
        let output = self.run(table, &["-N", chain])?;
        // 1 is also said of a chain that exists; then it can be listed.
        if output.status.success() || self.run(table, &["-S", chain])?.status.success() {
            return Ok(());
        }
        Err(self.refused(table, &["-N", chain], &output))
    }

    /// Puts a rule of the table `filter` first in its chain, unless the chain has it.
    fn ensure_first(&self, chain: &str, rule: &[&str]) -> Result<(), IptablesError> {
        if self.run("filter", &[&["-C", chain], rule].concat())?.status.success() {
            return Ok(());
        }
        let arguments = [&["-I", chain], rule].concat();
        let output = self.run("filter", &arguments)?;
        if output.status.success() { Ok(()) } else { Err(self.refused("filter", &arguments, &output)) }
    }

    fn run(&self, table: &str, arguments: &[&str]) -> Result<Output, IptablesError> {
        // -w: wait for the lock that other users of iptables hold, 5 seconds at most.
        Command::new(&self.program)
            .args(["-w", "5", "-t", table])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| IptablesError::Run { program: self.program.clone(), source })
    }

    fn refused(&self, table: &str, arguments: &[&str], output: &Output) -> IptablesError {
        IptablesError::Refused {
            program: self.program.clone(),
            arguments: format!("-t {table} {}", arguments.join(" ")),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }
    }
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `work` returns in a network namespace of its own; `None` when this process may not make one.
    fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
        let alone = || {
            // SAFETY: unshare(CLONE_NEWNET) moves the calling thread only, and the thread ends with the test.
            let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
            moved.then(work)
        };
        std::thread::scope(|scope| scope.spawn(alone).join().unwrap())
    }

    fn rules(tool: &Iptables, table: &str) -> String {
        String::from_utf8(tool.run(table, &["-S"]).unwrap().stdout).unwrap()
    }

    #[test]
    fn chains_are_made_once_and_again_after_a_flush() {
        let tools = Iptables::find(OsStr::new("/usr/sbin:/sbin"));
        if tools.is_empty() {
            eprintln!("not run: no iptables here");
            return;
        }
        let ran = apart(|| {
            for tool in &tools {
                assert!(!tool.is_untouched().unwrap());
                tool.ensure().unwrap();
                tool.ensure().unwrap();
                assert!(tool.is_untouched().unwrap());
                let filter = rules(tool, "filter");
                assert_eq!(filter.matches("-A INPUT -j KUBE-FIREWALL").count(), 1, "{filter}");
                assert_eq!(filter.matches("-A OUTPUT -j KUBE-FIREWALL").count(), 1, "{filter}");
                let drops = filter.lines().filter(|line| line.ends_with("-j DROP")).collect::<Vec<_>>();
                match tool.family {
                    Family::V4 => assert_eq!(
                        drops,
                        [
                            "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
                        ]
                    ),
                    Family::V6 => assert!(drops.is_empty(), "{drops:?}"),
                }
                assert!(rules(tool, "mangle").contains("-N KUBE-IPTABLES-HINT"));
                assert!(tool.run("nat", &["-X", CANARY]).unwrap().status.success());
                assert!(!tool.is_untouched().unwrap());
                tool.ensure().unwrap();
                assert!(tool.is_untouched().unwrap());
            }
        });
        if ran.is_none() {
            eprintln!("not run: needs to be root");
        }
    }

    #[test]
    fn a_missing_program_is_not_found() {
        assert!(Iptables::find(OsStr::new("/nowhere")).is_empty());
        let gone = Iptables { program: "/nowhere/iptables".into(), family: Family::V4 };
        assert!(matches!(gone.ensure(), Err(IptablesError::Run { .. })));
    }
}
