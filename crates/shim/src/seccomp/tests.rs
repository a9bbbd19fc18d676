use super::*;

/// Runs a filter as the kernel would.
fn run(program: &Program, audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => audit,
        _ => {
            let (index, upper) = (((offset - 16) / 8) as usize, (offset - 16) % 8 == 4);
            if upper { (args[index] >> 32) as u32 } else { args[index] as u32 }
        }
    };
    let (mut at, mut a) = (0, 0);
    loop {
        let i = program.filter[at];
        at += 1;
        let mut branch = |is: bool| at += usize::from(if is { i.jt } else { i.jf });
        match i.code {
            LOAD => a = word(i.k),
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            JUMP_EQUAL => branch(a == i.k),
            JUMP_GREATER => branch(a > i.k),
            JUMP_GREATER_EQUAL => branch(a >= i.k),
            RETURN => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn profile(json: &str) -> Program {
    compile(&serde_json::from_str(json).unwrap()).unwrap()
}

const ALLOW: u32 = 0x7fff_0000;
const X86_64: u32 = 0xc000_003e;

fn native(program: &Program, name: &str, args: &[u64]) -> u32 {
    let number = Architecture::native().table().find(|(n, _)| *n == name).unwrap().1;
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(program, Architecture::native().audit(), number, all)
}

#[test]
fn each_call_gets_the_answer_of_its_rule() {
    let program = profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","write","mseal","no_such_call"],"action":"SCMP_ACT_ALLOW"},
            {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#,
    );
    assert_eq!(native(&program, "read", &[]), ALLOW);
    assert_eq!(native(&program, "mseal", &[]), ALLOW);
    assert_eq!(native(&program, "mkdirat", &[]), ERRNO | 1);
    assert_eq!(native(&program, "clone3", &[]), ERRNO | 38);
    assert_eq!(run(&program, Architecture::native().audit(), 463, [0; 6]), ERRNO | 38, "newer than the profile");
    assert_eq!(run(&program, 0x1234, 0, [0; 6]), KILL_PROCESS);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(run(&program, X86_64, 0x4000_0000, [0; 6]), ERRNO | 38, "x32");
    }
}

#[test]
fn all_comparisons_look_at_both_halves() {
    let big = 0x1_0000_0005u64;
    let cases = [
        ("EQ", vec![big], vec![5, big + 1, big + (1 << 32)]),
        ("NE", vec![5, big - 1], vec![big]),
        ("GT", vec![big + 1, 1 << 40], vec![big, 6, big - 1]),
        ("GE", vec![big, big + 1, 1 << 40], vec![6, big - 1]),
        ("LT", vec![6, big - 1], vec![big, big + 1, 1 << 40]),
        ("LE", vec![6, big - 1, big], vec![big + 1, 1 << 40]),
    ];
    for (op, fit, others) in cases {
        let program = profile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["personality"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":1,"value":{big},"op":"SCMP_CMP_{op}"}}]}}]}}"#
        ));
        for value in fit {
            assert_eq!(native(&program, "personality", &[0, value]), ALLOW, "{value} {op}");
        }
        for value in others {
            assert_eq!(native(&program, "personality", &[0, value]), ERRNO | 1, "{value} {op}");
        }
    }
}

#[test]
fn masks_and_alternatives() {
    let program = profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,
            "op":"SCMP_CMP_MASKED_EQ"}]},{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},
            {"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},
            {"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(native(&program, "clone", &[17]), ALLOW);
    assert_eq!(native(&program, "clone", &[0x1000_0000]), ERRNO | 1);
    assert_eq!([0, 8, 9].map(|v| native(&program, "personality", &[v])), [ALLOW, ALLOW, ERRNO | 1]);
    assert_eq!([[1, 2], [1, 3], [2, 2]].map(|v| native(&program, "socket", &v)), [ALLOW, ERRNO | 1, ERRNO | 1]);
}

#[test]
fn what_is_not_supported_is_refused() {
    for json in [
        r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW"]}"#,
    ] {
        assert!(
            compile(&serde_json::from_str(json).unwrap()).unwrap_err().to_string().contains("not supported"),
            "{json}"
        );
    }
}
