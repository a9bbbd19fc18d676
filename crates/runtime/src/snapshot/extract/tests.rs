use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proptest::prelude::*;
use rustix::process::geteuid;
use tar::{EntryType, Header};

use super::*;

/// An archive under construction. Names are written as given, whatever they are.
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn raw(mut self, kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(u64::from(geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_mtime(1_600_000_000);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(EntryType::Directory, name, "", mode, b"")
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.raw(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }

    pub(crate) fn link(self, name: &str, to: &str) -> Self {
        self.raw(EntryType::Symlink, name, to, 0o777, b"")
    }

    pub(crate) fn hard(self, name: &str, to: &str) -> Self {
        self.raw(EntryType::Link, name, to, 0o644, b"")
    }

    /// Extended records of the entry that follows.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|n| n.to_string().len() + rest == *n).unwrap();
            content.extend(format!("{length} {key}=").bytes());
            content.extend(*value);
            content.push(b'\n');
        }
        self.raw(EntryType::XHeader, "pax", "", 0, &content)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn rules() -> Rules {
    Rules { limits: Limits::default(), is_privileged: geteuid().is_root() }
}

/// A folder with the layer `l` in it, beside which nothing must appear.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        let ground = Self(tempfile::tempdir().unwrap());
        fs::create_dir(ground.layer()).unwrap();
        fs::write(ground.0.path().join("outside"), "untouched").unwrap();
        ground
    }

    fn layer(&self) -> PathBuf {
        self.0.path().join("l")
    }

    fn extract(&self, archive: &[u8]) -> Result<Extracted, ExtractError> {
        extract(archive, &self.layer(), &[], &rules())
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.layer().join(path)).unwrap()
    }

    fn assert_outside_is_untouched(&self) {
        let names: BTreeSet<_> = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, BTreeSet::from(["l".into(), "outside".into()]));
        let outside = self.0.path().join("outside");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
        assert_eq!(fs::metadata(&outside).unwrap().nlink(), 1);
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o7777, 0o644);
    }
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("not run: needs root");
    }
    is_root
}

#[test]
fn files_directories_and_links() {
    let ground = Ground::new();
    let archive = Tar::new()
        .dir("./", 0o755)
        .dir("etc/", 0o2750)
        .file("etc/a", "A")
        .link("etc/b", "a")
        .hard("etc/c", "etc/a")
        .raw(EntryType::Regular, "bin/su", "", 0o4755, b"su")
        .end();
    let done = ground.extract(&archive).unwrap();
    assert_eq!(done, Extracted { bytes: 3, entries: 6 });
    assert_eq!((ground.read("etc/a").as_str(), ground.read("etc/b").as_str()), ("A", "A"));
    let stat = fs::metadata(ground.layer().join("etc/c")).unwrap();
    assert_eq!((stat.nlink(), stat.mtime()), (2, 1_600_000_000));
    assert_eq!(fs::metadata(ground.layer().join("bin/su")).unwrap().mode() & 0o7777, 0o4755);
    let etc = fs::metadata(ground.layer().join("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.mtime()), (0o2750, 1_600_000_000));
}

#[test]
fn names_that_lead_out_stay_inside_or_are_refused() {
    let ground = Ground::new();
    for archive in [
        Tar::new().file("../outside", "x"),
        Tar::new().file("a/../../outside", "x"),
        Tar::new().hard("a", "../outside"),
        Tar::new().dir("..", 0o777),
        Tar::new().raw(EntryType::Regular, ".wh...", "", 0, b""),
    ] {
        let error = ground.extract(&archive.end()).unwrap_err();
        assert!(
            error.to_string().contains("\"..\"")
                || rubelet_host::chain(&error).contains("\"..\"")
                || matches!(error, ExtractError::Hostile { .. }),
            "{error}"
        );
        ground.assert_outside_is_untouched();
    }
    let outside = ground.0.path().join("outside").to_str().unwrap().to_owned();
    ground.extract(&Tar::new().file(&outside, "inside").end()).unwrap();
    ground.assert_outside_is_untouched();
    assert_eq!(ground.read(&outside[1..]), "inside");
}

#[test]
fn links_are_followed_inside_only() {
    let ground = Ground::new();
    let up = Tar::new().link("up", "../../../..").link("abs", "/").file("up/a", "1").file("abs/b", "2").end();
    ground.extract(&up).unwrap();
    assert_eq!((ground.read("a"), ground.read("b")), ("1".to_owned(), "2".to_owned()));
    ground.assert_outside_is_untouched();
    // The last part of a name is replaced, not followed.
    let ground = Ground::new();
    ground.extract(&Tar::new().link("x", "../outside").file("x", "mine").end()).unwrap();
    ground.assert_outside_is_untouched();
    assert_eq!(ground.read("x"), "mine");
    // Through a link to a file outside: there is no such file inside.
    let ground = Ground::new();
    assert!(ground.extract(&Tar::new().link("x", "..").hard("y", "x/outside").end()).is_err());
    ground.assert_outside_is_untouched();
    // A directory entry does not change what a link of its name leads to.
    let ground = Ground::new();
    ground.extract(&Tar::new().link("x", "../outside").dir("x", 0o700).file("x/y", "z").end()).unwrap();
    ground.assert_outside_is_untouched();
    assert_eq!(ground.read("x/y"), "z");
}

#[test]
fn removed_files_become_whiteouts_and_opaque_directories() {
    let ground = Ground::new();
    let archive = Tar::new()
        .dir("d", 0o755)
        .file("d/.wh.gone", "")
        .dir("o", 0o755)
        .file("o/.wh..wh..opq", "")
        .file("o/kept", "k")
        .file("r/x", "1")
        .file(".wh.r", "")
        .file(".wh.s", "")
        .file("s/y", "2")
        .file(".wh..wh.plnk", "")
        .end();
    ground.extract(&archive).unwrap();
    let gone = fs::symlink_metadata(ground.layer().join("d/gone")).unwrap();
    assert_eq!((FileType::from_raw_mode(gone.mode()), gone.rdev()), (FileType::CharacterDevice, 0));
    let opaque = |path: &str| {
        let mut value = [0; 8];
        let name = below::opaque_name(geteuid().is_root());
        rfs::getxattr(ground.layer().join(path), name, &mut value).is_ok_and(|n| &value[..n] == b"y")
    };
    assert_eq!([opaque("d"), opaque("o"), opaque("r"), opaque("s")], [false, true, true, true]);
    assert_eq!((ground.read("r/x"), ground.read("s/y")), ("1".to_owned(), "2".to_owned()));
    assert!(!ground.layer().join(".wh..wh.plnk").exists());
}

#[test]
fn an_implied_directory_is_as_it_is_below() {
    let lower = Ground::new();
    lower.extract(&Tar::new().dir("tmp", 0o1777).dir("var", 0o711).dir("var/lib", 0o700).end()).unwrap();
    let upper = Ground::new();
    let archive = Tar::new().file("tmp/a", "").file("var/lib/b", "").file("new/c", "").end();
    extract(archive.as_slice(), &upper.layer(), &[lower.layer()], &rules()).unwrap();
    let mode = |path| fs::metadata(upper.layer().join(path)).unwrap().mode() & 0o7777;
    assert_eq!([mode("tmp"), mode("var"), mode("var/lib"), mode("new")], [0o1777, 0o711, 0o700, 0o755]);
}

#[test]
fn attributes_of_files_and_those_that_are_not_for_images() {
    let ground = Ground::new();
    let archive = Tar::new()
        .pax(&[
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("mtime", b"1234.5"),
        ])
        .file("f", "x")
        .end();
    ground.extract(&archive).unwrap();
    let file = fs::File::open(ground.layer().join("f")).unwrap();
    let mut list = [0; 256];
    let length = rfs::flistxattr(&file, &mut list).unwrap();
    assert_eq!(String::from_utf8_lossy(&list[..length]), "user.note\0");
    assert_eq!(file.metadata().unwrap().mtime_nsec(), 500_000_000);
}

#[test]
fn owners_capabilities_and_devices_as_root() {
    if !is_root() {
        return;
    }
    let ground = Ground::new();
    let capability = [1, 0, 0, 2, 0x0a, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Tar::new()
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("uid", b"3000000"), ("gid", b"7")])
        .raw(EntryType::Regular, "ping", "", 0o755, b"x")
        .raw(EntryType::Fifo, "pipe", "", 0o600, b"")
        .end();
    ground.extract(&archive).unwrap();
    let ping = fs::File::open(ground.layer().join("ping")).unwrap();
    let stat = ping.metadata().unwrap();
    assert_eq!((stat.uid(), stat.gid()), (3_000_000, 7));
    let mut value = [0; 64];
    let length = rfs::fgetxattr(&ping, "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);
    let pipe = fs::metadata(ground.layer().join("pipe")).unwrap();
    assert_eq!(FileType::from_raw_mode(pipe.mode()), FileType::Fifo);
    // 0, 0 would hide a file of the layers below.
    assert!(ground.extract(&Tar::new().raw(EntryType::Char, "null", "", 0o666, b"").end()).is_err());
}

#[test]
fn bombs_end_at_the_limit() {
    let ground = Ground::new();
    let small = Rules { limits: Limits { layer_bytes_max: 1000, layer_entries_max: 5 }, is_privileged: false };
    let extract = |archive: Vec<u8>| extract(archive.as_slice(), &ground.layer(), &[], &small).unwrap_err().to_string();
    let many = (0..6).fold(Tar::new(), |t, n| t.file(&format!("f{n}"), "")).end();
    assert_eq!(extract(many), "the layer has more than 5 entries");
    let content = "x".repeat(600);
    assert_eq!(extract(Tar::new().file("a", &content).file("b", &content).end()), "the layer has more than 1000 bytes");
    let endless = std::io::repeat(0);
    let error = super::extract(endless, &ground.layer(), &[], &small).unwrap_err();
    assert!(rubelet_host::chain(&error).contains("longer than a layer may be"));
}

/// What one sees of a tree: kind, mode, owner, time to the nanosecond, links, size, attributes.
fn seen(root: &Path, dir: &Path, into: &mut std::collections::BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        let mut names = [0; 4096];
        let length = rfs::llistxattr(&path, &mut names).unwrap_or(0);
        let more = match stat.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            kind if kind.is_file() => crate::Digest::of(&fs::read(&path).unwrap()).to_string(),
            _ => String::new(),
        };
        let owner = (stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec());
        let names = String::from_utf8_lossy(&names[..length]).into_owned();
        let links = if stat.is_dir() { 0 } else { stat.nlink() };
        let text = format!("{:o} {owner:?} {links} {more} {names}", stat.mode());
        into.insert(path.strip_prefix(root).unwrap().to_owned(), text);
        if stat.is_dir() {
            seen(root, &path, into);
        }
    }
}

#[test]
fn the_same_as_gnu_tar_makes_of_this_machine() {
    let tar = |args: &[&str]| std::process::Command::new("tar").args(args).output();
    if !is_root() {
        return;
    }
    if tar(&["--version"]).is_err() {
        eprintln!("not run: no tar here");
        return;
    }
    for format in [["--format=pax", "--xattrs"].as_slice(), &["--format=gnu"]] {
        let (ground, theirs) = (Ground::new(), tempfile::tempdir().unwrap());
        let archive = theirs.path().join("archive.tar");
        let (archive, out) = (archive.to_str().unwrap(), theirs.path().join("out"));
        fs::create_dir(&out).unwrap();
        // Programs with set-id bits, deep directories, many links.
        let what: Vec<&str> =
            ["usr/share/zoneinfo/Europe", "usr/share/perl5", "usr/lib/os-release", "usr/bin/su", "usr/bin/ping"]
                .into_iter()
                .filter(|path| Path::new("/").join(path).exists())
                .collect();
        let packed = tar(&[format, &["-C", "/", "-cf", archive], what.as_slice()].concat()).unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        let args = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", out.to_str().unwrap(), "-xpf", archive];
        assert!(tar(&args).unwrap().status.success());
        ground.extract(&fs::read(archive).unwrap()).unwrap();
        let (mut a, mut b) = Default::default();
        seen(&ground.layer(), &ground.layer(), &mut a);
        seen(&out, &out, &mut b);
        // Directories that the archive only implies have the time of extraction.
        for tree in [&mut a, &mut b] {
            for implied in ["usr", "usr/share", "usr/share/zoneinfo", "usr/lib", "usr/bin"] {
                tree.remove(Path::new(implied));
            }
        }
        assert!(a.len() > 10, "{}", a.len());
        assert_eq!(a, b);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever became of an archive's bytes: an answer or an error, and nothing appears beside the layer.
    #[test]
    fn damaged_archives_are_read_or_refused(changes in prop::collection::vec((0..4096usize, any::<u8>()), 1..8), cut in 0..6000usize) {
        let ground = Ground::new();
        let mut archive = Tar::new()
            .dir("d", 0o755)
            .pax(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5")])
            .file("d/f", "content")
            .link("d/l", "../f")
            .hard("d/h", "d/f")
            .file("d/.wh.x", "")
            .end();
        for (at, byte) in changes {
            if let Some(place) = archive.get_mut(at) {
                *place = byte;
            }
        }
        // Headers whose sum is right again lead further.
        for block in archive.chunks_exact_mut(512) {
            let mut header = Header::from_byte_slice(block).clone();
            if block[0] != 0 {
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        archive.truncate(archive.len().min(cut.max(512)));
        let _ = ground.extract(&archive);
        ground.assert_outside_is_untouched();
    }

    /// Whatever names, links and kinds an archive combines: nothing appears beside the layer.
    #[test]
    fn extraction_stays_inside(entries in prop::collection::vec(
        (0..6usize, "(\\.\\./|/|\\./|a/|b/|c/|\\.wh\\.){0,4}(a|b|c|outside|\\.\\.|l)", "(\\.\\./|/|a/|b/|c/){0,4}(a|b|c|outside|\\.\\.|l)"),
        1..12,
    )) {
        let ground = Ground::new();
        // One archive each, so that one refused entry does not end the experiment.
        for (kind, name, link) in entries {
            let tar = Tar::new();
            let tar = match kind {
                0 => tar.file(&name, "x"),
                1 => tar.dir(&name, 0o777),
                2 => tar.hard(&name, &link),
                3 => tar.raw(EntryType::Fifo, &name, "", 0o666, b""),
                _ => tar.link(&name, &link),
            };
            let _ = ground.extract(&tar.end());
        }
        ground.assert_outside_is_untouched();
    }
}
