//! Whether the host swaps.

use std::io;
use std::path::Path;

/// The swap areas in use, one line each as `/proc/swaps` shows them; none: the host does not swap.
///
/// # Errors
/// The file's, except that a kernel without it has no swap.
pub fn areas() -> io::Result<Vec<String>> {
    areas_in(Path::new("/proc/swaps"))
}

fn areas_in(path: &Path) -> io::Result<Vec<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_as_the_kernel_lists_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("swaps");
        assert!(areas_in(&path).unwrap().is_empty(), "no file, no swap");
        let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        std::fs::write(&path, header).unwrap();
        assert!(areas_in(&path).unwrap().is_empty());
        std::fs::write(&path, format!("{header}/dev/dm-1   partition\t16760828\t0\t-2\n")).unwrap();
        assert_eq!(areas_in(&path).unwrap(), ["/dev/dm-1   partition\t16760828\t0\t-2"]);
    }
}
