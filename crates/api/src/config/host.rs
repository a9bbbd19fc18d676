//! This process and its machine.

use super::field::section;

section! {
    /// This process and its machine.
    Host as "KubeletConfiguration" {
        /// `oom_score_adj` of this process.
        "oomScoreAdj" oom_score_adj: pointer i32 = -999;
        /// Most open files of this process.
        "maxOpenFiles" max_open_files: plain i64 = 1_000_000;
        /// Whether kernel tunables are checked instead of set.
        "protectKernelDefaults" protect_kernel_defaults: plain bool;
        /// Whether swap keeps this program from starting.
        "failSwapOn" fail_swap_on: pointer bool = true;
        /// Whether cgroup v1 keeps this program from starting.
        "failCgroupV1" fail_cgroup_v1: pointer bool = true;
    }
}
