use super::*;

/// A made-up `/sys/devices/system`.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn cpu(&self, number: usize, core: i64, socket: i64) -> &Self {
        self.write(&format!("cpu/cpu{number}/topology/core_id"), &format!("{core}\n"))
            .write(&format!("cpu/cpu{number}/topology/physical_package_id"), &format!("{socket}\n"))
    }

    /// A core's own cache, and one of level 3.
    fn caches(&self, cpu: usize, id: usize, mask: &str) -> &Self {
        for (index, id, level, mask) in [("index0", cpu, 1, "1"), ("index3", id, 3, mask)] {
            let file = |name: &str, text: &str| {
                self.write(&format!("cpu/cpu{cpu}/cache/{index}/{name}"), &format!("{text}\n"));
            };
            file("id", &id.to_string());
            file("level", &level.to_string());
            file("size", "32768K");
            file("type", "Unified");
            file("shared_cpu_map", mask);
        }
        self
    }

    fn node(&self, number: usize, cpus: &[usize], distances: &str) -> &Self {
        self.write(&format!("node/node{number}/distance"), &format!("{distances}\n"))
            .write(&format!("node/node{number}/cpulist"), "not read\n");
        for cpu in cpus {
            self.write(&format!("node/node{number}/cpu{cpu}/online"), "1\n");
        }
        let kib = 1024 * (number + 1);
        self.write(
            &format!("node/node{number}/meminfo"),
            &format!("Node {number} MemTotal:       {kib} kB\nNode {number} MemFree:  5 kB\n"),
        )
    }

    fn pages(&self, node: usize, kib: u64, count: u64) -> &Self {
        self.write(&format!("node/node{node}/hugepages/hugepages-{kib}kB/nr_hugepages"), &format!("{count}\n"))
    }

    fn read(&self) -> Result<Topology, ProcError> {
        topology(self.0.path())
    }

    /// Of each processor: core, socket, node, uncore cache.
    fn shown(&self) -> Vec<(usize, [usize; 4])> {
        let all = self.read().unwrap();
        all.cpus.iter().map(|cpu| (cpu.number, [cpu.core, cpu.socket, cpu.node, cpu.uncore])).collect()
    }
}

/// Two sockets of two cores of two threads each: threads of a core are four apart.
fn two_sockets() -> Tree {
    let tree = Tree::new();
    tree.write("cpu/online", "0-7\n").write("cpu/cpufreq/x", "").write("node/possible", "0-1\n");
    for cpu in 0..8 {
        let socket = cpu % 4 / 2;
        tree.cpu(cpu, (cpu % 2) as i64, socket as i64).caches(cpu, socket, if socket == 0 { "33" } else { "cc" });
    }
    tree.node(0, &[0, 1, 4, 5], "10 21").node(1, &[2, 3, 6, 7], "21 10");
    tree.pages(0, 2048, 3).pages(0, 1_048_576, 1).pages(1, 2048, 0);
    tree
}

#[test]
fn threads_cores_sockets_and_nodes() {
    let tree = two_sockets();
    // The whole node shares the cache: the socket's number stands for it.
    let expected = [
        (0, [0, 0, 0, 0]),
        (1, [1, 0, 0, 0]),
        (2, [2, 1, 1, 1]),
        (3, [3, 1, 1, 1]),
        (4, [0, 0, 0, 0]),
        (5, [1, 0, 0, 0]),
        (6, [2, 1, 1, 1]),
        (7, [3, 1, 1, 1]),
    ];
    assert_eq!(tree.shown(), expected);
    let pages = |kib: u64, count| HugePages { size_bytes: kib << 10, count };
    let node =
        |number, memory_bytes, huge_pages, distances, cpus| Node { number, memory_bytes, huge_pages, distances, cpus };
    let nodes = [
        node(0, 1 << 20, vec![pages(2048, 3), pages(1 << 20, 1)], vec![10, 21], vec![0, 1, 4, 5]),
        node(1, 2 << 20, vec![pages(2048, 0)], vec![21, 10], vec![2, 3, 6, 7]),
    ];
    assert_eq!(tree.read().unwrap().nodes, nodes);
}

#[test]
fn what_is_offline_is_left_out() {
    let tree = two_sockets();
    tree.write("cpu/online", "0-3,5,7\n");
    let shown = tree.shown();
    assert_eq!(shown.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>(), [0, 1, 2, 3, 5, 7]);
    assert_eq!(tree.read().unwrap().nodes[0].cpus, [0, 1, 5]);
    // Its sibling names the core.
    tree.write("cpu/online", "4,6\n");
    assert_eq!(tree.shown(), [(4, [4, 0, 0, 0]), (6, [6, 1, 1, 1])]);
    // Without processors it has its memory.
    tree.write("cpu/online", "0\n");
    assert_eq!((tree.shown().len(), tree.read().unwrap().nodes[1].memory_bytes), (1, 2 << 20));
}

#[test]
fn caches_that_some_cores_of_a_node_share_have_their_own_number() {
    let tree = Tree::new();
    for cpu in 0..4 {
        tree.cpu(cpu, cpu as i64, 0).caches(cpu, 7 + cpu / 2, if cpu < 2 { "00000000,00000003" } else { "c" });
    }
    tree.node(0, &[0, 1, 2, 3], "10");
    let uncore = |tree: &Tree| tree.shown().iter().map(|(_, of)| of[3]).collect::<Vec<_>>();
    assert_eq!(uncore(&tree), [7, 7, 8, 8]);
    // From the first core on that is not told of: as an arm64 guest.
    fs::remove_file(tree.0.path().join("cpu/cpu2/cache/index0/id")).unwrap();
    assert_eq!(uncore(&tree), [7, 7, 0, 0]);
    fs::remove_dir_all(tree.0.path().join("cpu/cpu0/cache")).unwrap();
    assert_eq!(uncore(&tree), [0, 0, 0, 0]);
}

#[test]
fn without_nodes_each_socket_is_one() {
    let tree = Tree::new();
    for (cpu, socket) in [(0, 0), (1, 1), (10, 1), (2, 0)] {
        tree.cpu(cpu, i64::from(cpu > 1), socket);
    }
    // No core: no processor.
    tree.write("cpu/cpu3/topology/physical_package_id", "0\n");
    let expected = [(0, [0, 0, 0, 0]), (1, [1, 1, 1, 1]), (2, [2, 0, 0, 0]), (10, [10, 1, 1, 1])];
    assert_eq!(tree.shown(), expected);
    let node = |number, cpus| Node { number, cpus, ..Node::default() };
    assert_eq!(tree.read().unwrap().nodes, [node(0, vec![0, 2]), node(1, vec![1, 10])]);
    tree.write("cpu/online", "0-1\n").cpu(11, 0, 2);
    assert_eq!(tree.read().unwrap().nodes, [node(0, vec![0]), node(1, vec![1]), node(2, Vec::new())]);
}

#[test]
fn what_the_kernel_does_not_know_is_the_first_socket() {
    let tree = Tree::new();
    tree.cpu(0, -1, -1).node(0, &[0], "10");
    assert_eq!(tree.shown(), [(0, [0, 0, 0, 0])]);
    let path = tree.0.path().join("node/node0");
    for file in ["distance", "meminfo"] {
        fs::remove_file(path.join(file)).unwrap();
    }
    assert_eq!(tree.read().unwrap().nodes, [Node { cpus: vec![0], ..Node::default() }]);
}

#[test]
fn what_is_wrong_is_told() {
    let tree = two_sockets();
    let dir = tree.0.path().display().to_string();
    for (file, text, what) in [
        ("cpu/online", "0-x\n", "list of processors"),
        ("cpu/online", "3-1\n", "list of processors"),
        ("cpu/cpu3/topology/core_id", "\n", "number of a core"),
        ("cpu/cpu3/topology/physical_package_id", "a\n", "number of a socket"),
        ("node/node1/distance", "10 x\n", "list of distances"),
        ("node/node1/meminfo", "Node 1 MemTotal: 12 MB\n", "MemTotal"),
    ] {
        let path = tree.0.path().join(file);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, text).unwrap();
        assert_eq!(tree.read().unwrap_err().to_string(), format!("{dir}/{file} has no usable {what}"));
        fs::write(&path, before).unwrap();
    }
    let tree = Tree::new();
    let dir = tree.0.path().display().to_string();
    assert_eq!(tree.read().unwrap_err().to_string(), format!("{dir}/cpu has no usable processor"));
    tree.write("cpu", "");
    assert_eq!(tree.read().unwrap_err().to_string(), format!("read {dir}/cpu/online"));
}

#[test]
fn this_machine_is_read() {
    let all = topology(Path::new(ROOT)).unwrap();
    assert_eq!(all.cpus.len(), crate::proc::cpu_count().unwrap() as usize);
    assert!(all.cpus.iter().all(|cpu| all.cpus.iter().any(|first| first.number == cpu.core && first.core == cpu.core)));
    let mut of_nodes: Vec<usize> = all.nodes.iter().flat_map(|node| node.cpus.clone()).collect();
    of_nodes.sort_unstable();
    assert_eq!(of_nodes, all.cpus.iter().map(|cpu| cpu.number).collect::<Vec<_>>());
    let total: u64 = all.nodes.iter().map(|node| node.memory_bytes).sum();
    let is_told = Path::new(ROOT).join("node/node0/meminfo").exists();
    assert_eq!(total, if is_told { crate::proc::memory().unwrap().total } else { 0 });
}
