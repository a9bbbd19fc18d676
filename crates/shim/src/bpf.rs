//! The device filter of cgroup v2: a small eBPF program that answers for each use of a device node.

use crate::devices::Rule;

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// `code`, registers, jump offset and value of one instruction.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let offset = u16::from_ne_bytes(offset.to_ne_bytes());
    let value = u32::from_ne_bytes(value.to_ne_bytes());
    u64::from(code) | u64::from(to | from << 4) << 8 | u64::from(offset) << 16 | u64::from(value) << 32
}

const LOAD_WORD: u8 = 0x61;
const AND_32: u8 = 0x54;
const MOVE_32: u8 = 0xb4;
const MOVE_32_REGISTER: u8 = 0xbc;
const SHIFT_RIGHT_32: u8 = 0x74;
const UNLESS_EQUAL: u8 = 0x55;
const UNLESS_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Registers: the kind of node, the wanted access, major, minor.
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program for rules of which the last that fits wins; nothing fits: refused.
pub(crate) fn device_program(rules: &[Rule]) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, 1, 0, 0),
        instruction(AND_32, KIND, 0, 0, 0xffff),
        instruction(LOAD_WORD, ACCESS, 1, 0, 0),
        instruction(SHIFT_RIGHT_32, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, 1, 4, 0),
        instruction(LOAD_WORD, MINOR, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut block: Vec<(u8, u8, u8, i32)> = Vec::new();
        match rule.kind {
            'a' => {}
            'b' => block.push((UNLESS_EQUAL, KIND, 0, BLOCK)),
            _ => block.push((UNLESS_EQUAL, KIND, 0, CHARACTER)),
        }
        if rule.access != 7 {
            // All of what is wanted must be in the rule: wanted & rule == wanted.
            block.push((MOVE_32_REGISTER, 1, ACCESS, 0));
            block.push((AND_32, 1, 0, i32::from(rule.access)));
            block.push((UNLESS_EQUAL_REGISTER, 1, ACCESS, 0));
        }
        block.extend(rule.major.map(|major| (UNLESS_EQUAL, MAJOR, 0, major)));
        block.extend(rule.minor.map(|minor| (UNLESS_EQUAL, MINOR, 0, minor)));
        block.push((MOVE_32, 0, 0, i32::from(rule.allow)));
        block.push((EXIT, 0, 0, 0));
        let length = block.len();
        for (at, (code, to, from, value)) in block.into_iter().enumerate() {
            let is_jump = code == UNLESS_EQUAL || code == UNLESS_EQUAL_REGISTER;
            let offset = if is_jump { i16::try_from(length - at - 1).unwrap_or(i16::MAX) } else { 0 };
            program.push(instruction(code, to, from, offset, value));
        }
        if length == 2 {
            // It fits always: what comes behind is out of reach, and the kernel takes no such program.
            return program;
        }
    }
    program.extend([instruction(MOVE_32, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}
