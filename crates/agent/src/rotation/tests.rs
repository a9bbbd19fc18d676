use std::collections::BTreeMap;
use std::io::Read;

use super::*;

const POLICY: Policy = Policy { bytes_max: 4, files_max: 4 };

fn at(second: i8) -> DateTime {
    jiff::civil::date(2026, 3, 9).at(7, 5, second, 0)
}

/// What stands in the directory, decompressed, by what comes after `0.log`.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let content = |path: &Path| {
        let mut text = String::new();
        match path.extension().is_some_and(|end| end == "gz") {
            true => flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap(),
            false => File::open(path).unwrap().read_to_string(&mut text).unwrap(),
        };
        text
    };
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            (entry.file_name().to_str().unwrap().strip_prefix("0.log").unwrap().to_owned(), content(&entry.path()))
        })
        .collect()
}

fn expect(dir: &Path, wanted: &[(&str, &str)]) {
    let wanted: BTreeMap<_, _> = wanted.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    assert_eq!(files(dir), wanted);
}

#[tokio::test]
async fn files_are_rotated_compressed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.log");
    fs::write(&log, "one").unwrap();
    fs::write(dir.path().join("0.log.20260101-000000.tmp"), "half").unwrap();
    for (second, next) in [(1, "two"), (2, "three"), (3, "four"), (4, "five")] {
        let reopen = async || {
            assert!(!log.exists(), "it was renamed before");
            fs::write(&log, next).map_err(|e| e.to_string())
        };
        rotate(&log, POLICY, at(second), reopen).await.unwrap();
    }
    let kept =
        [(".20260309-070502.gz", "two"), (".20260309-070503.gz", "three"), (".20260309-070504", "four"), ("", "five")];
    expect(dir.path(), &kept);
    let twice = rotate(&log, POLICY, at(4), async || Err("reopened".to_owned())).await.unwrap_err();
    assert!(twice.ends_with("0.log.20260309-070504 is there already"), "{twice}");
}

#[tokio::test]
async fn a_log_that_cannot_be_reopened_keeps_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.log");
    fs::write(&log, "one").unwrap();
    let refused = rotate(&log, POLICY, at(1), async || Err("no".to_owned())).await.unwrap_err();
    assert_eq!(refused, "no");
    expect(dir.path(), &[("", "one")]);
    // Opened all the same: nothing is overwritten.
    let reopen = async || {
        fs::write(&log, "two").unwrap();
        Err("late".to_owned())
    };
    let refused = rotate(&log, POLICY, at(2), reopen).await.unwrap_err();
    assert!(refused.starts_with("late; yet "), "{refused}");
    expect(dir.path(), &[(".20260309-070502", "one"), ("", "two")]);
}

#[test]
fn large_and_missing_logs_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.log");
    assert!(is_due(&log, 4));
    fs::write(&log, "abc").unwrap();
    assert!(!is_due(&log, 4));
    fs::write(&log, "abcd").unwrap();
    assert!(is_due(&log, 4), "kubelet 1.36: of just that size, too");
}
