use super::*;

const PROJECTS: &str = "# of the administrator\n10:/srv\n1048577:/k/a\n1048578:/k/b:c\n1048578:/k/d\n";
const NAMES: &str = "# of the administrator\nsrv:10\nvolume1048577:1048577\nvolume1048578:1048578\nother:1048579\n";

#[test]
fn lines_of_others_stay() {
    let mut lists = Lists::new(PROJECTS, NAMES);
    assert_eq!([lists.of("/k/b:c"), lists.of("/srv"), lists.of("/k")], [Some(1_048_578), Some(10), None]);
    assert_eq!(lists.remove("/k/none"), None);
    assert_eq!(lists.remove("/k/a"), Some(1_048_577));
    assert_eq!(lists.remove("/k/d"), Some(1_048_578));
    let wanted = [
        "# of the administrator\n10:/srv\n1048578:/k/b:c\n",
        "# of the administrator\nsrv:10\nvolume1048578:1048578\nother:1048579\n",
    ];
    assert_eq!(lists, Lists::new(wanted[0], wanted[1]), "a project keeps its name while it has a directory");
}

#[test]
fn a_project_is_new_to_everybody() {
    let lists = Lists::new(PROJECTS, NAMES);
    assert_eq!(lists.free(|_| Ok(false)).unwrap(), 1_048_580);
    assert_eq!(lists.free(|project| Ok(project < 1_048_600)).unwrap(), 1_048_600);
    assert!(lists.free(|_| Ok(true)).is_err());
    assert!(lists.free(|_| Err(io::Error::other("no account"))).is_err());
    let mut added = Lists::new("", "");
    added.add(FIRST, "/k/a");
    assert_eq!(added, Lists::new("1048577:/k/a\n", "volume1048577:1048577\n"));
    assert_eq!(Lists::new("+5:/x\n5\n:/y\nx:/z", "#a:5\n:6\nb:-7").free(|_| Ok(false)).unwrap(), FIRST);
}

#[test]
fn lists_are_made_replaced_and_kept_from_others() {
    let etc = tempfile::tempdir().unwrap();
    let volumes: Vec<String> = (0..20).map(|number| format!("/k/{number}")).collect();
    std::thread::scope(|scope| {
        for name in &volumes {
            scope.spawn(|| {
                let mut files = Files::lock(etc.path()).unwrap();
                let project = files.lists.free(|_| Ok(false)).unwrap();
                files.lists.add(project, name);
                files.write().unwrap();
            });
        }
    });
    let read = |name: &str| fs::read_to_string(etc.path().join(name)).unwrap();
    let known = Lists::new(&read("projects"), &read("projid"));
    let mut projects: Vec<u32> = volumes.iter().map(|name| known.of(name).unwrap()).collect();
    projects.sort_unstable();
    assert_eq!(projects, (FIRST..FIRST + 20).collect::<Vec<_>>());
    for name in &volumes {
        release_in(etc.path(), Path::new(name)).unwrap();
    }
    assert_eq!((read("projects"), read("projid")), (String::new(), String::new()));
    assert_eq!(fs::metadata(etc.path().join("projects")).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(etc.path()).unwrap().count(), 2);
}

#[test]
fn a_list_that_is_a_link_is_refused() {
    let etc = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/null", etc.path().join("projects")).unwrap();
    assert!(Files::lock(etc.path()).is_err());
    fs::remove_file(etc.path().join("projects")).unwrap();
    std::os::unix::fs::symlink("elsewhere", etc.path().join("projid")).unwrap();
    assert!(Files::lock(etc.path()).is_err());
}

#[test]
fn without_an_account_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!disk::counts_projects(dir.path()));
    assign(dir.path()).unwrap();
    release(dir.path()).unwrap();
}
