//! Seccomp: the specification's rules as a program of classic BPF.
//!
//! For each architecture a decision tree over ranges of system calls with the same answer; calls with conditions on arguments are
//! leaves with comparisons. As in runc, system calls that are newer than all of the profile's get ENOSYS instead of the profile's error, so
//! that programs fall back to older ones.

use std::collections::BTreeMap;

use crate::fault::Fault;
use crate::spec::{Seccomp, SeccompArg, SeccompRule};
use crate::sys::Filter;
use crate::syscalls::Architecture;

#[cfg(test)]
mod tests;

/// A filter to load.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) filter: Vec<Filter>,
    pub(crate) flags: u32,
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = 38;
/// Offsets in `struct seccomp_data`.
const AT_NUMBER: u32 = 0;
const AT_ARCHITECTURE: u32 = 4;
const AT_ARGUMENTS: u32 = 16;
/// The kernel takes at most this many instructions.
const INSTRUCTIONS_MAX: usize = 4096;

/// The answer for a system call.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Always(u32),
    /// The first whose conditions are all true; else the default.
    If(Vec<(Vec<SeccompArg>, u32)>),
}

/// Makes the filter of a profile.
pub(crate) fn compile(profile: &Seccomp) -> Result<Program, Fault> {
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut architectures: Vec<Architecture> =
        profile.architectures.iter().filter_map(|name| Architecture::named(name)).collect();
    if profile.architectures.is_empty() {
        architectures.push(Architecture::native());
    }
    let mut code = Code::default();
    code.load(AT_ARCHITECTURE);
    for architecture in architectures {
        let skip = code.unless(JUMP_EQUAL, architecture.audit());
        one_architecture(&mut code, architecture, profile, default)?;
        code.land(skip);
    }
    code.ret(KILL_PROCESS);
    if code.filter.len() > INSTRUCTIONS_MAX {
        return Err(Fault(format!("seccomp: {} instructions, at most {INSTRUCTIONS_MAX}", code.filter.len())));
    }
    Ok(Program { filter: code.filter, flags: flags(&profile.flags)? })
}

fn flags(names: &[String]) -> Result<u32, Fault> {
    names.iter().try_fold(0, |flags, name| match name.as_str() {
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(flags | 1),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(flags | 2),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(flags | 4),
        other => Err(Fault(format!("seccomp: flag {other} is not supported"))),
    })
}

fn action(name: &str, number: Option<u32>) -> Result<u32, Fault> {
    const EPERM: u32 = 1;
    let number = number.unwrap_or(EPERM) & 0xffff;
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => ERRNO | number,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | number,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        other => return Err(Fault(format!("seccomp: action {other} is not supported"))),
    })
}

fn one_architecture(code: &mut Code, architecture: Architecture, profile: &Seccomp, default: u32) -> Result<(), Fault> {
    let numbers: BTreeMap<&str, u32> = architecture.table().collect();
    let mut answers: BTreeMap<u32, Answer> = BTreeMap::new();
    let mut newest = 0;
    for rule in &profile.syscalls {
        let answer = action(&rule.action, rule.errno_ret)?;
        for number in rule.names.iter().filter_map(|name| numbers.get(name.as_str())) {
            newest = newest.max(*number);
            add(&mut answers, *number, rule, answer);
        }
    }
    let is_error = default & 0xffff_0000 == ERRNO && default != ERRNO | ENOSYS;
    let unknown = if is_error { ERRNO | ENOSYS } else { default };
    // Ranges with one answer each: (first number, answer), from 0 on.
    let mut ranges: Vec<(u32, Answer)> = vec![(0, Answer::Always(default))];
    for (number, answer) in answers {
        set(&mut ranges, number, answer);
        set(&mut ranges, number + 1, Answer::Always(default));
    }
    set(&mut ranges, newest + 1, Answer::Always(unknown));
    ranges.dedup_by(|later, earlier| later.1 == earlier.1 && matches!(later.1, Answer::Always(_)));
    code.load(AT_NUMBER);
    if architecture == Architecture::X86_64 {
        // x32 shares the architecture: its numbers have a high bit.
        let skip = code.unless(JUMP_GREATER_EQUAL, 0x4000_0000);
        code.ret(ERRNO | ENOSYS);
        code.land(skip);
    }
    tree(code, &ranges, default);
    Ok(())
}

/// From `number` on it is `answer`; numbers come ascending.
fn set(ranges: &mut Vec<(u32, Answer)>, number: u32, answer: Answer) {
    if ranges.last().is_some_and(|(first, _)| *first == number) {
        ranges.pop();
    }
    ranges.push((number, answer));
}

fn add(answers: &mut BTreeMap<u32, Answer>, number: u32, rule: &SeccompRule, action: u32) {
    if rule.args.is_empty() {
        // Without a condition it always fits; what came before and had conditions goes first.
        match answers.get_mut(&number) {
            None => drop(answers.insert(number, Answer::Always(action))),
            Some(Answer::If(cases)) => cases.push((Vec::new(), action)),
            Some(Answer::Always(_)) => {}
        }
        return;
    }
    // As in runc: two conditions on one argument cannot both be meant, they are alternatives.
    let mut indexes: Vec<u32> = rule.args.iter().map(|arg| arg.index).collect();
    indexes.sort_unstable();
    let repeats = indexes.windows(2).any(|pair| pair[0] == pair[1]);
    let cases: Vec<Vec<SeccompArg>> =
        if repeats { rule.args.iter().map(|arg| vec![arg.clone()]).collect() } else { vec![rule.args.clone()] };
    if let Answer::If(known) = answers.entry(number).or_insert_with(|| Answer::If(Vec::new())) {
        known.extend(cases.into_iter().map(|case| (case, action)));
    }
}

fn tree(code: &mut Code, ranges: &[(u32, Answer)], default: u32) {
    match ranges {
        [] => code.ret(default),
        [(_, Answer::Always(action))] => code.ret(*action),
        [(_, Answer::If(cases))] => conditional(code, cases, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let to_high = code.when(JUMP_GREATER_EQUAL, high[0].0);
            tree(code, low, default);
            code.land(to_high);
            tree(code, high, default);
        }
    }
}

fn conditional(code: &mut Code, cases: &[(Vec<SeccompArg>, u32)], default: u32) {
    for (conditions, action) in cases {
        let mut failed = Vec::new();
        for condition in conditions {
            failed.extend(compare(code, condition));
        }
        code.ret(*action);
        for jump in failed {
            code.land(jump);
        }
    }
    code.ret(default);
}

/// Goes on behind it when the condition is true; the returned jumps are taken when it is false.
fn compare(code: &mut Code, condition: &SeccompArg) -> Vec<usize> {
    let at = AT_ARGUMENTS + 8 * condition.index;
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let high = |value: u64| u32::try_from(value >> 32).unwrap_or(0);
    let value = condition.value;
    let ordered = |code: &mut Code, or_equal: bool| {
        // The upper half decides, or when equal the lower.
        code.load(at + 4);
        let above = code.when(JUMP_GREATER, high(value));
        let below = code.unless(JUMP_EQUAL, high(value));
        code.load(at);
        let fails = code.unless(if or_equal { JUMP_GREATER_EQUAL } else { JUMP_GREATER }, low(value));
        code.land(above);
        vec![below, fails]
    };
    match condition.op.as_str() {
        "SCMP_CMP_NE" => {
            code.load(at + 4);
            let differs = code.unless(JUMP_EQUAL, high(value));
            code.load(at);
            let equal = code.when(JUMP_EQUAL, low(value));
            code.land(differs);
            vec![equal]
        }
        "SCMP_CMP_GT" => ordered(code, false),
        "SCMP_CMP_GE" => ordered(code, true),
        // Less is the opposite of greater or equal: its failures go on, its success fails.
        "SCMP_CMP_LT" => opposite(code, |code| ordered(code, true)),
        "SCMP_CMP_LE" => opposite(code, |code| ordered(code, false)),
        "SCMP_CMP_MASKED_EQ" => {
            let wanted = condition.value_two;
            code.load(at + 4);
            code.and(high(value));
            let upper = code.unless(JUMP_EQUAL, high(wanted));
            code.load(at);
            code.and(low(value));
            vec![upper, code.unless(JUMP_EQUAL, low(wanted))]
        }
        _ => {
            code.load(at + 4);
            let upper = code.unless(JUMP_EQUAL, high(value));
            code.load(at);
            vec![upper, code.unless(JUMP_EQUAL, low(value))]
        }
    }
}

fn opposite(code: &mut Code, condition: impl FnOnce(&mut Code) -> Vec<usize>) -> Vec<usize> {
    let false_ones = condition(code);
    let when_true = code.jump();
    for jump in false_ones {
        code.land(jump);
    }
    vec![when_true]
}

/// Instructions in the making. Jumps over any distance: a conditional jump only steps over an unconditional one.
#[derive(Default)]
struct Code {
    filter: Vec<Filter>,
}

impl Code {
    fn put(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.filter.push(Filter { code, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.put(LOAD, 0, 0, offset);
    }

    fn and(&mut self, mask: u32) {
        self.put(AND, 0, 0, mask);
    }

    fn ret(&mut self, action: u32) {
        self.put(RETURN, 0, 0, action);
    }

    /// A jump to be landed later.
    fn jump(&mut self) -> usize {
        self.put(JUMP, 0, 0, 0);
        self.filter.len() - 1
    }

    /// Jumps when the comparison is true.
    fn when(&mut self, comparison: u16, value: u32) -> usize {
        self.put(comparison, 0, 1, value);
        self.jump()
    }

    /// Jumps when the comparison is false.
    fn unless(&mut self, comparison: u16, value: u32) -> usize {
        self.put(comparison, 1, 0, value);
        self.jump()
    }

    /// The jump leads to what comes next.
    fn land(&mut self, jump: usize) {
        self.filter[jump].k = u32::try_from(self.filter.len() - jump - 1).unwrap_or(u32::MAX);
    }
}
