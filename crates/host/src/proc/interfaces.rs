//! What went through the interfaces of a network namespace.

use std::path::PathBuf;

/// Largest list read: thousands of interfaces.
const BYTES_MAX: u64 = 1 << 20;

/// One interface since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// As the namespace knows it, e.g. `eth0`.
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// All interfaces of the namespace in which a process lives, the loopback among them, in the kernel's order. `None` when
/// the process is gone.
pub fn interfaces(pid: u32) -> Option<Vec<Interface>> {
    let path = PathBuf::from(format!("/proc/{pid}/net/dev"));
    Some(parse(&super::read_bounded(&path, BYTES_MAX).ok()?))
}

/// Lines `eth0: bytes packets errs drop fifo frame compressed multicast`, the last eight numbers being what was sent.
fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        // An alias has a colon in its name.
        let (name, numbers) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let traffic = |first: usize| {
            let &[bytes, packets, errors, dropped] = numbers.get(first..first + 4)?.first_chunk::<4>()?;
            Some(Traffic { bytes, packets, errors, dropped })
        };
        Some(Interface { name: name.trim().to_owned(), received: traffic(0)?, sent: traffic(8)? })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_as_the_kernel_lists_them() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1200      12    0    0    0     0          0         0     1200      12    0    0    0     0       0          0
  eth0: 87654321   65432    3    4    0     0          0         9 12345678    4321    5    6    0     0       0          0
eth0:1:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  half:       1       2
";
        let found = parse(text);
        let names: Vec<&str> = found.iter().map(|interface| interface.name.as_str()).collect();
        assert_eq!(names, ["lo", "eth0", "eth0:1"]);
        assert_eq!(found[1].received, Traffic { bytes: 87_654_321, packets: 65_432, errors: 3, dropped: 4 });
        assert_eq!(found[1].sent, Traffic { bytes: 12_345_678, packets: 4321, errors: 5, dropped: 6 });
    }

    #[test]
    fn this_process_has_a_loopback() {
        let found = interfaces(std::process::id()).unwrap();
        assert!(found.iter().any(|interface| interface.name == "lo"), "{found:?}");
        assert_eq!(interfaces(u32::MAX), None);
    }
}
