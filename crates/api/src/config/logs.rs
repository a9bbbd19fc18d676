//! Logs of containers and of this program, and traces.

use super::field::{Flush, Quantity, section};
use crate::duration::Duration;

section! {
    /// Logs of containers and of this program, and traces.
    Logs as "KubeletConfiguration" {
        /// Size at which a container's log is rotated.
        "containerLogMaxSize" container_max_size: plain String = "10Mi";
        /// How many files of it are kept.
        "containerLogMaxFiles" container_max_files: pointer i32 = 5;
        /// How many are rotated at the same time.
        "containerLogMaxWorkers" container_max_workers: pointer i32 = 1;
        /// How often sizes are looked at.
        "containerLogMonitorInterval" container_monitor_interval: pointer Duration = "10s";
        /// Log of this program.
        "logging" logging: always Logging;
        /// Traces of this program.
        "tracing" tracing: pointer Option<Tracing>;
    }
}

section! {
    /// Log of this program.
    Logging as "logging" {
        /// `text` or `json`.
        "format" format: plain String = "text";
        /// How often it is written out.
        "flushFrequency" flush_frequency: always Flush = "5s";
        /// Level of detail.
        "verbosity" verbosity: always u32;
        /// Levels of single files.
        "vmodule" vmodule: plain Vec<Vmodule>;
        /// Options by format.
        "options" options: always LoggingOptions;
    }
}

section! {
    /// Level of files whose name matches.
    Vmodule as "logging.vmodule" {
        /// Name without `.go`, with `*` and `?`.
        "filePattern" file_pattern: always String;
        /// Level of detail.
        "verbosity" verbosity: always u32;
    }
}

section! {
    /// Options by format.
    LoggingOptions as "logging.options" {
        /// Of `text`.
        "text" text: always FormatOptions;
        /// Of `json`.
        "json" json: always FormatOptions;
    }
}

section! {
    /// Options of one format.
    FormatOptions as "logging.options.*" {
        /// Whether errors go to stderr and the rest to stdout.
        "splitStream" split_stream: plain bool;
        /// Bytes of the buffer then.
        "infoBufferSize" info_buffer_size: always Quantity = "0";
    }
}

section! {
    /// Traces of this program.
    Tracing as "tracing" {
        /// Where they go; `localhost:4317` when not said.
        "endpoint" endpoint: pointer Option<String>;
        /// How many of a million.
        "samplingRatePerMillion" sampling_rate_per_million: pointer Option<i32>;
    }
}
